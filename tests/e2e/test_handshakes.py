"""How handshakes are answered: contract A3 and A6, on every kind of server."""

from __future__ import annotations

import re
from typing import Any

import pytest
import redis
from django.http import HttpRequest

from tests.e2e.conftest import Connect, refused
from tests.e2e.kinds import Server
from tests.websocket_client import RawWebSocket
from ws4redis.publisher import RedisPublisher

pytestmark = pytest.mark.django_db(transaction=True)

PATH = '/ws/foo?subscribe-broadcast'


@pytest.mark.parametrize('method', ['GET', 'POST', 'HEAD', 'OPTIONS'])
def test_a_request_that_does_not_upgrade_is_told_to(server: Server, method: str) -> None:
    answer = refused(server, PATH, method=method, Upgrade=None, Connection='close')
    assert answer.status == 400
    if method != 'HEAD':
        assert b'must upgrade to a websocket' in answer.body


def test_an_upgrade_by_another_method_is_refused(server: Server) -> None:
    assert refused(server, PATH, method='POST', Content_Length='0').status == 400


@pytest.mark.parametrize('key', [None, '', 'short', 'no base64 at all!!!!!!!!', 'a' * 40])
def test_a_bad_key_is_refused(server: Server, key: str | None) -> None:
    assert refused(server, PATH, Sec_WebSocket_Key=key).status == 400


@pytest.mark.parametrize('version', [None, '8', '12', 'thirteen', '13, 8'])
def test_another_version_is_told_which_is_supported(server: Server, version: str | None) -> None:
    answer = refused(server, PATH, Sec_WebSocket_Version=version)
    assert answer.status == 426
    assert answer.headers['sec-websocket-version'] == '13'


def test_a_foreign_origin_is_refused(server: Server) -> None:
    for origin in ('http://evil.example', 'null', 'http://127.0.0.1:1'):
        assert refused(server, PATH, Origin=origin).status == 403


def test_the_own_origin_is_accepted(server: Server, connect: Connect) -> None:
    connect(server, 'foo?subscribe-broadcast', headers={'Origin': server.url})


def test_a_foreign_host_is_refused(server: Server) -> None:
    answer = refused(server, PATH, Host='evil.example')
    assert answer.status == 400
    assert b'evil' not in answer.body


def test_the_answer_to_a_handshake_is_that_of_the_rfc(server: Server) -> None:
    with RawWebSocket(f'{server.ws_url}{PATH}') as websocket:
        assert websocket.response is not None
        headers = websocket.response.headers
        assert headers['upgrade'].lower() == 'websocket'
        assert headers['connection'].lower() == 'upgrade'
        # Not asked for, not given.
        assert 'sec-websocket-extensions' not in headers
        assert 'sec-websocket-protocol' not in headers


@pytest.mark.parametrize(
    ('query', 'channels'),
    [
        ('subscribe-broadcast', {'broadcast:x'}),
        ('SUBSCRIBE-Broadcast', {'broadcast:x'}),
        ('subscribe=broadcast', {'broadcast:x'}),
        ('Subscribe=BROADCAST', {'broadcast:x'}),
        ('subscribe=broadcast,user', {'broadcast:x', 'user:john:x'}),
        ('subscribe=broadcast&subscribe=user', {'broadcast:x', 'user:john:x'}),
        ('subscribe-broadcast&subscribe=user', {'broadcast:x', 'user:john:x'}),
        ('subscribe-broadcast=', {'broadcast:x'}),
        ('subscribe-broadcast&subscribe-unknown&nonsense&a=b', {'broadcast:x'}),
        ('subscribe-group', {'group:chatters:x', 'group:writers:x'}),
        ('publish-broadcast&echo', set()),
        ('', set()),
    ],
)
def test_the_options_of_the_url_name_channels(
    gevent_server: Server,
    connect: Connect,
    redis_client: redis.Redis,
    john: HttpRequest,
    query: str,
    channels: set[str],
) -> None:
    connect(gevent_server, f'x?{query}', request=john)
    subscribed: Any = redis_client.pubsub_channels()
    assert {channel.decode() for channel in subscribed} - {'ws4redis:control'} == channels


@pytest.mark.parametrize(
    ('path', 'facility'),
    [
        ('a/b/c', 'a/b/c'),
        ('a%2Fb', 'a/b'),
        ('with%20space', 'with space'),
        ('gr%C3%BC%C3%9Fe', 'grüße'),
        ('a:b', 'a:b'),
        ('100%25', '100%'),
        ('', ''),
        ('/leading', '/leading'),
    ],
)
def test_the_facility_is_the_path_after_the_prefix(
    server: Server, connect: Connect, path: str, facility: str
) -> None:
    websocket = connect(server, f'{path}?subscribe-broadcast')
    RedisPublisher(facility=facility, broadcast=True).publish_message('hello')
    assert websocket.receive() == 'hello'


@pytest.fixture(scope='module', params=['dotted path', 'callable'])
def guarded_server(request: pytest.FixtureRequest, redis_server: Any, django_db_setup: None) -> Any:
    """A server whose callbacks are given by their dotted paths, or as callables."""
    from tests.e2e.kinds import uwsgi

    if request.param == 'callable':
        options: Any = {'settings': 'tests.e2e.settings_with_callables'}
        settings: dict[str, Any] = {}
        from tests.programs import UwsgiServer

        server = UwsgiServer(redis_server=redis_server, **options)
    else:
        settings = {
            'WS4REDIS_ALLOWED_CHANNELS': 'tests.e2e.callbacks.allowed_channels',
            'WS4REDIS_PROCESS_REQUEST': 'tests.e2e.callbacks.process_request',
        }
        server = uwsgi(redis_server, settings)
    with server:
        yield server


def channels_of(redis_client: redis.Redis) -> set[bytes]:
    channels: Any = redis_client.pubsub_channels()
    return set(channels) - {b'ws4redis:control'}


def test_process_request_says_who_it_is(
    guarded_server: Server, connect: Connect, redis_client: redis.Redis
) -> None:
    websocket = connect(guarded_server, 'x?subscribe-user', headers={'X-Token': 'token of jane'})
    assert channels_of(redis_client) == {b'user:jane:x'}
    RedisPublisher(facility='x', users=['jane']).publish_message('hello')
    assert websocket.receive() == 'hello'


def test_allowed_channels_restricts_what_is_asked_for(
    guarded_server: Server, connect: Connect, redis_client: redis.Redis
) -> None:
    websocket = connect(guarded_server, 'listen-only?subscribe-broadcast&publish-broadcast&echo')
    websocket.send('not published')
    RedisPublisher(facility='listen-only', broadcast=True).publish_message('published')
    assert websocket.receive() == 'published'
    assert redis_client.get('broadcast:listen-only') == b'published'


def test_allowed_channels_decides_alone_what_is_subscribed(
    guarded_server: Server, connect: Connect, redis_client: redis.Redis
) -> None:
    connect(guarded_server, 'other?subscribe-user', headers={'X-Token': 'token of jane'})
    assert channels_of(redis_client) == {b'broadcast:other'}


@pytest.mark.parametrize(
    ('path', 'token'), [('/ws/members?subscribe-broadcast', ''), ('/ws/x', 'expired')]
)
def test_permission_denied_by_a_callback_is_answered_403_without_its_reason(
    guarded_server: Server, path: str, token: str
) -> None:
    answer = refused(guarded_server, path, X_Token=token)
    assert answer.status == 403
    assert b'secret' not in answer.body


@pytest.mark.parametrize(
    ('path', 'token', 'secret'),
    [
        ('/ws/broken?subscribe-broadcast', '', 'the secret of allowed_channels'),
        ('/ws/x?subscribe-broadcast', 'broken', 'the secret of process_request'),
    ],
)
def test_any_other_exception_of_a_callback_is_answered_500_and_logged(
    guarded_server: Server, connect: Connect, path: str, token: str, secret: str
) -> None:
    since = guarded_server.log_position()
    answer = refused(guarded_server, path, X_Token=token)
    assert answer.status == 500
    assert b'secret' not in answer.body
    assert b'Traceback' not in answer.body
    guarded_server.wait_for_log(f'RuntimeError: {re.escape(secret)}', since=since)
    assert 'Traceback' in guarded_server.log_text(since)
    # The loop goes on.
    connect(guarded_server, 'x?subscribe-broadcast')


def test_a_refused_handshake_leaves_nothing_behind(
    guarded_server: Server, redis_client: redis.Redis
) -> None:
    for _ in range(50):
        assert refused(guarded_server, '/ws/members?subscribe-broadcast').status == 403
    assert channels_of(redis_client) == set()


@pytest.mark.parametrize('kind', ['gevent', 'runserver'])
def test_another_prefix_of_urls_and_of_channels(
    start: Any, connect: Connect, redis_client: redis.Redis, kind: str
) -> None:
    from tests.e2e.kinds import KINDS

    server = start(KINDS[kind], WEBSOCKET_URL='/sockets/', WS4REDIS_PREFIX='my app')
    websocket = connect(
        server, 'foo?subscribe-broadcast&publish-broadcast&echo', prefix='/sockets/'
    )
    redis_client.publish('my app:broadcast:foo', 'hi')
    assert websocket.receive() == 'hi'
    websocket.send('hello')
    assert websocket.receive() == 'hello'
    assert redis_client.get('my app:broadcast:foo') == b'hello'
    assert server.get('/hello/') == 'hello from Django'
