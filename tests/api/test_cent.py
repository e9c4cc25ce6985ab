"""The API for other programs, asked by Centrifugo's own library for Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.core.wsgi import get_wsgi_application
from django.test import Client as DjangoClient
from django.test import override_settings
from django.urls import include, path

from tests.django_requests import logged_in_request, make_user
from tests.programs import RedisServer
from tests.serving import Served, served
from tests.timeouts import SOON_SECONDS, wait_until
from tests.websocket_client import RawWebSocket
from ws4redis.applications.wsgi import CombinedServer
from ws4redis.history import history

cent = pytest.importorskip('cent')

KEY = 'a key of the API, long enough'
urlpatterns = [path('api/', include('ws4redis.api.urls'))]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[Served]:
    settings = {
        'ROOT_URLCONF': __name__,
        'WS4REDIS_API_KEY': KEY,
        'WS4REDIS_PREFIX': 'p',
        'WS4REDIS_SNAPSHOT_INTERVAL': 0.2,
        'WS4REDIS_FACILITIES': {'chat/*': {'HISTORY_SIZE': 10, 'PRESENCE': True}},
    }
    with (
        override_settings(**settings),
        served(CombinedServer(get_wsgi_application())) as server,
    ):
        yield server


@pytest.fixture
def client(server: Served) -> Iterator[Any]:
    client = cent.Client(f'{server.url}/api', KEY, timeout=SOON_SECONDS)
    yield client
    client.close()


def test_it_publishes_and_reads_histories(client: Any) -> None:
    first = client.publish(cent.PublishRequest(channel='chat/1', data={'a': 1}))
    assert (first.offset, bool(first.epoch)) == (1, True)
    assert client.publish(cent.PublishRequest(channel='open', data='text')).offset == 0
    client.publish(cent.PublishRequest(channel='broadcast:chat/1', data='', b64data='/wA='))
    both = cent.BroadcastRequest(channels=['chat/1', 'chat/2'], data='x', idempotency_key='k')
    for _ in range(2):
        responses = client.broadcast(both).responses
        assert [response.result.offset for response in responses] == [3, 1]
    page = client.history(cent.HistoryRequest(channel='chat/1', limit=10))
    assert [item.data for item in page.publications] == [{'a': 1}, {'b64': '/wA='}, 'x']
    since = cent.StreamPosition(offset=1, epoch=page.epoch)
    rest = client.history(cent.HistoryRequest(channel='chat/1', limit=1, since=since))
    assert [item.offset for item in rest.publications] == [2]
    newest = client.history(cent.HistoryRequest(channel='chat/1', limit=1, reverse=True))
    assert [item.offset for item in newest.publications] == [3]
    assert client.history(cent.HistoryRequest(channel='chat/1')).publications == []
    assert [message.text for message in history('chat/2').messages] == ['x']


def test_what_it_cannot_do_is_an_error(client: Any) -> None:
    for request, code in (
        (cent.HistoryRequest(channel='open', limit=1), 108),
        (cent.PresenceRequest(channel='open'), 108),
        (cent.PublishRequest(channel='', data=1), 107),
        (cent.PublishRequest(channel='user:inbox', data=1), 107),
        (cent.PublishRequest(channel='open', data=1, tags={'a': 'b'}), 107),
        (cent.PublishRequest(channel='open', data=1, idempotency_key='k'), 107),
        (cent.DisconnectRequest(user=''), 107),
        (
            cent.HistoryRequest(
                channel='chat/1', limit=1, since=cent.StreamPosition(offset=5, epoch='x')
            ),
            112,
        ),
        (
            cent.HistoryRequest(
                channel='chat/1', limit=1, since=cent.StreamPosition(offset=-1, epoch='x')
            ),
            107,
        ),
    ):
        with pytest.raises(cent.CentApiResponseError) as caught:
            getattr(client, request.api_method)(request)
        assert caught.value.code == code, request


def test_several_commands_are_answered_in_their_order(client: Any) -> None:
    commands = [
        cent.PublishRequest(channel='chat/1', data=1),
        cent.PresenceStatsRequest(channel='chat/1'),
    ]
    published, stats = client.batch(cent.BatchRequest(requests=commands)).replies
    assert (published.offset, stats.num_clients) == (1, 0)


def test_it_knows_who_is_there_and_throws_them_out(server: Served, client: Any) -> None:
    login = logged_in_request(make_user('mary'))
    headers = {'Cookie': f'sessionid={login.session.session_key}'}
    address = f'{server.ws_url}/ws/chat/1?subscribe=broadcast,user'
    with RawWebSocket(address, headers=headers) as websocket:
        request = cent.PresenceRequest(channel='chat/1')
        wait_until(lambda: client.presence(request).presence)
        assert [who.user for who in client.presence(request).presence.values()] == ['mary']
        stats = client.presence_stats(cent.PresenceStatsRequest(channel='chat/1'))
        assert (stats.num_clients, stats.num_users) == (1, 1)
        found = client.channels(cent.ChannelsRequest(pattern='*chat*')).channels
        assert {name: item.num_clients for name, item in found.items()} == {
            'broadcast:chat/1': 1,
            'user:mary:chat/1': 1,
        }
        wait_until(lambda: client.info(cent.InfoRequest()).nodes)
        assert client.info(cent.InfoRequest()).nodes[0].num_clients >= 0
        client.unsubscribe(cent.UnsubscribeRequest(user='mary', channel='chat/1'))
        wait_until(
            lambda: (
                'broadcast:chat/1' not in client.channels(cent.ChannelsRequest()).channels
                or not client.presence(request).presence
            )
        )
        client.publish(cent.PublishRequest(channel='chat/1', data='not for mary'))
        client.publish(cent.PublishRequest(channel='user:mary:chat/1', data='for mary'))
        assert websocket.receive(timeout=SOON_SECONDS) == 'for mary'
        how = cent.Disconnect(code=4000, reason='enough')
        client.disconnect(cent.DisconnectRequest(user='mary', disconnect=how))
        assert websocket.receive_close(timeout=SOON_SECONDS) == (4000, 'enough')


@pytest.mark.parametrize('key', ['', 'a wrong key of the same kind', KEY + 'x'])
def test_nobody_gets_in_without_the_key(server: Served, key: str) -> None:
    client = cent.Client(f'{server.url}/api', key, timeout=SOON_SECONDS)
    with pytest.raises(cent.CentUnauthorizedError):
        client.publish(cent.PublishRequest(channel='open', data=1))


def test_without_a_key_in_the_settings_nobody_gets_in(server: Served) -> None:
    with override_settings(WS4REDIS_API_KEY=None):
        for headers in ({}, {'X-API-Key': ''}, {'Authorization': 'apikey '}):
            assert DjangoClient().post('/api/info', headers=headers).status_code == 401


def test_bad_requests_and_methods_are_told(server: Served) -> None:
    post = DjangoClient(enforce_csrf_checks=True).post
    key = {'Authorization': f'apikey {KEY}'}
    assert (
        post('/api/nothing', '{}', content_type='application/json', headers=key).status_code == 404
    )
    for body in ('[1]', 'nonsense', '[' * 100_000):
        answer = post('/api/publish', body, content_type='application/json', headers=key)
        assert answer.status_code == 400
    assert DjangoClient().get('/api/info', headers=key).status_code == 405


def test_a_redis_that_is_away_is_an_error(
    server: Served, redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    redis_server.kill()
    answer = DjangoClient().post(
        '/api/publish',
        {'channel': 'open', 'data': 1},
        content_type='application/json',
        headers={'X-API-Key': KEY},
    )
    assert answer.json()['error']['code'] == 100
