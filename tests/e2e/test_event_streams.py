"""Event streams on the URLs of websockets, on every kind of server."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from django.contrib.auth import logout
from django.http import HttpRequest

from tests.e2e.conftest import cookie_of
from tests.e2e.kinds import KINDS, Server
from tests.event_stream_client import EventStreamClient, StreamEvent
from tests.programs import RedisServer
from tests.timeouts import wait_until
from ws4redis.control import disconnect, unsubscribe
from ws4redis.protocol.end_codes import EndCode
from ws4redis.publisher import RedisPublisher

pytestmark = pytest.mark.django_db(transaction=True)


def stream(server: Server, address: str, **options: Any) -> EventStreamClient:
    return EventStreamClient(f'{server.url}/ws/{address}', **options)


@contextlib.contextmanager
def opened(server: Server, address: str, **options: Any) -> Iterator[EventStreamClient]:
    with stream(server, address, **options) as client:
        assert client.status == 200, client.status
        yield client


def test_it_brings_the_kept_message_and_what_is_published(server: Server) -> None:
    publisher = RedisPublisher(facility='stream', broadcast=True)
    publisher.publish_message('kept')
    with opened(server, 'stream?subscribe-broadcast') as client:
        assert client.headers['content-type'] == 'text/event-stream; charset=utf-8'
        assert 'no-cache' in client.headers['cache-control']
        assert client.headers['x-accel-buffering'] == 'no'
        assert client.receive() == StreamEvent('kept')
        publisher.publish_message('two\nlines')
        assert client.receive() == StreamEvent('two\nlines')
        publisher.publish_message(b'\xff\x00')
        assert client.receive() == StreamEvent('/wA=', 'binary')


def test_it_brings_what_is_meant_for_its_user(server: Server, john: HttpRequest) -> None:
    headers = {'Cookie': cookie_of(john)}
    with opened(server, 'personal?subscribe-user', headers=headers) as client:
        RedisPublisher(facility='personal', users=['john']).publish_message('for john')
        assert client.receive() == StreamEvent('for john')


def test_a_page_of_another_site_may_not_read_it(server: Server) -> None:
    headers = {'Origin': 'http://evil.example'}
    with stream(server, 'x?subscribe-broadcast', headers=headers) as client:
        assert client.status == 403
    with opened(server, 'x?subscribe-broadcast', headers={'Origin': server.url}) as client:
        assert client.headers['access-control-allow-origin'] == server.url
        assert client.headers['access-control-allow-credentials'] == 'true'


def test_a_page_of_another_site_may_not_hold_it_without_reading_it(server: Server) -> None:
    # As fetch(…, {mode: 'no-cors', credentials: 'include'}) asks, which sends no Origin.
    blind = {'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'no-cors'}
    with stream(server, 'x?subscribe-broadcast', headers=blind) as client:
        assert client.status == 403
    own = {'Sec-Fetch-Site': 'same-origin', 'Sec-Fetch-Mode': 'cors'}
    with opened(server, 'x?subscribe-broadcast', headers=own):
        pass
    # What the own page was granted is nothing to go by.
    with stream(server, 'x?subscribe-broadcast', headers=blind) as client:
        assert client.status == 403


def test_who_does_not_ask_for_a_stream_is_told_to_upgrade(server: Server) -> None:
    with stream(server, 'x?subscribe-broadcast', headers={'Accept': '*/*'}) as client:
        assert client.status == 400


@pytest.mark.parametrize('kind', ['gevent', 'threads', 'runserver', 'alone-native'])
def test_a_stream_is_taken_up_where_it_broke(
    redis_server: RedisServer, django_db_setup: None, kind: str
) -> None:
    settings = {
        'WS4REDIS_FACILITIES': {'kept/*': {'HISTORY_SIZE': 10}},
        'WS4REDIS_DRAIN_SECONDS': 0,
    }
    with KINDS[kind](redis_server, settings) as server, redis_server.client() as client:
        address = f'kept/{kind}?subscribe-broadcast'
        with opened(server, address) as first:
            publish_with_history(client, f'broadcast:kept/{kind}', b'1')
            assert first.receive() == StreamEvent('1')
            seen = first.parser.last_event_id
        assert seen
        publish_with_history(client, f'broadcast:kept/{kind}', b'2', b'3')
        with opened(server, address, last_event_id=seen) as second:
            assert [second.receive().data for _ in range(2)] == ['2', '3']
        with opened(server, f'{address}&since={seen}') as third:
            assert [third.receive().data for _ in range(2)] == ['2', '3']
        with opened(server, address, last_event_id='nonsense') as gap:
            assert gap.receive().name == 'gap'
            if kind == 'runserver':
                # It ends without a word, as it does for everybody.
                return
            server.stop()
            assert gap.receive().name == 'close'


def publish_with_history(client: redis.Redis, name: str, *payloads: bytes) -> None:
    from tests.hub.history_rig import publish

    publish(client, *payloads, name=name)


ENDS: dict[str, tuple[Callable[[Any], object], int]] = {
    'logout': (logout, EndCode.LOGGED_OUT),
    'disconnect': (lambda request: disconnect(user=request.user), EndCode.DISCONNECTED),
    'session': (lambda request: disconnect(session=request.session), EndCode.DISCONNECTED),
    'last-channel': (
        lambda request: unsubscribe('personal', user=request.user),
        EndCode.DISCONNECTED,
    ),
}


@pytest.mark.parametrize('server', ['gevent', 'runserver', 'alone-native'], indirect=True)
@pytest.mark.parametrize('end', ENDS)
def test_it_ends_with_what_it_was_granted_for(
    server: Server, john: HttpRequest, mary: HttpRequest, end: str
) -> None:
    address = 'personal?subscribe-user'
    with (
        opened(server, address, headers={'Cookie': cookie_of(john)}) as client,
        opened(server, address, headers={'Cookie': cookie_of(mary)}) as other,
    ):
        what_ends, code = ENDS[end]
        what_ends(john)
        event = client.receive()
        assert (event.name, json.loads(event.data)['code']) == ('close', code)
        client.expect_end()
        RedisPublisher(facility='personal', users=['mary']).publish_message('still here')
        assert other.receive() == StreamEvent('still here')


@pytest.mark.parametrize('server', ['gevent', 'alone-native'], indirect=True)
def test_it_leaves_one_of_its_channels_and_hears_the_others(
    server: Server, john: HttpRequest, redis_client: redis.Redis
) -> None:
    headers = {'Cookie': cookie_of(john)}
    with opened(server, 'both?subscribe-user&subscribe-broadcast', headers=headers) as client:
        unsubscribe('both', user='john')
        wait_until(lambda: not redis_client.pubsub_channels('user:john:both'))
        RedisPublisher(facility='both', users=['john']).publish_message('for john')
        RedisPublisher(facility='both', broadcast=True).publish_message('for all')
        assert client.receive() == StreamEvent('for all')


@pytest.mark.parametrize('kind', ['gevent', 'alone-native'])
def test_it_counts_against_the_limits_until_it_ends(
    redis_server: RedisServer, john: HttpRequest, mary: HttpRequest, kind: str
) -> None:
    settings = {'WS4REDIS_MAX_CONNECTIONS': 2, 'WS4REDIS_MAX_CONNECTIONS_PER_USER': 1}
    address = 'personal?subscribe-user'

    def status(request: HttpRequest) -> int:
        with stream(server, address, headers={'Cookie': cookie_of(request)}) as client:
            return client.status

    with KINDS[kind](redis_server, settings) as server:
        with opened(server, address, headers={'Cookie': cookie_of(john)}) as client:
            assert status(john) == 429
            with opened(server, address, headers={'Cookie': cookie_of(mary)}):
                assert status(mary) == 503
            disconnect(user='john')
            assert client.receive().name == 'close'
            client.expect_end()
        wait_until(lambda: status(john) == 200)
