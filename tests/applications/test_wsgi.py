"""The WSGI application that answers handshakes, in this process."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from django.http import HttpRequest
from django.test import override_settings

from tests.django_requests import logged_in_request, make_user
from tests.programs import RedisServer
from tests.serving import Served, served
from tests.timeouts import wait_until
from tests.websocket_client import HandshakeRefused, HttpResponse, RawWebSocket
from ws4redis.applications import wsgi as wsgi_server
from ws4redis.applications.wsgi import (
    CombinedServer,
    WebSocketServer,
    _under_websocket_url,
    refuse,
)
from ws4redis.handshake.connection_limits import connection_limits
from ws4redis.redis_store import RedisMessage
from ws4redis.servers.process import get_hub
from ws4redis.subscriber import RedisSubscriber

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[Served]:
    with served(WebSocketServer()) as server:
        yield server
    assert connection_limits.taken == 0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def refused(server: Served, path: str, **headers: str | None) -> HttpResponse:
    names = {name.replace('_', '-'): value for name, value in headers.items()}
    with pytest.raises(HandshakeRefused) as caught:
        RawWebSocket(server.ws_url + path, headers=names)
    return caught.value.response


def test_a_websocket_publishes_and_receives(server: Served, redis_client: redis.Redis) -> None:
    url = f'{server.ws_url}/ws/foo?subscribe-broadcast&publish-broadcast&echo'
    with RawWebSocket(url) as websocket:
        websocket.send('hello')
        assert websocket.receive() == 'hello'
        redis_client.publish('broadcast:foo', 'from elsewhere')
        assert websocket.receive() == 'from elsewhere'


def test_what_is_published_once_the_handshake_is_answered_is_received(
    server: Served, redis_client: redis.Redis
) -> None:
    for number in range(30):
        with RawWebSocket(f'{server.ws_url}/ws/{number}?subscribe-broadcast') as websocket:
            assert redis_client.publish(f'broadcast:{number}', 'hello') == 1
            assert websocket.receive() == 'hello'


@pytest.mark.parametrize(
    ('path', 'headers', 'status'),
    [
        ('/ws/x', {'Upgrade': None}, 400),
        ('/ws/x', {'Sec_WebSocket_Key': None}, 400),
        ('/ws/x', {'Sec_WebSocket_Version': '8'}, 426),
        ('/ws/x', {'Origin': 'http://evil.example'}, 403),
        ('/ws/x', {'Host': 'evil.example'}, 400),
        ('/ws/x', {'Cookie': 'x' * 40_000}, 431),
        ('/elsewhere', {}, 404),
        ('/ws', {}, 404),
    ],
)
def test_a_bad_handshake_is_refused_and_counted(
    server: Served, path: str, headers: dict[str, Any], status: int
) -> None:
    answer = refused(server, path, **headers)
    assert answer.status == status
    assert answer.headers['content-type'].startswith('text/plain')
    if status != 431:
        # Those that end before anything was made are not counted; this makes it.
        with RawWebSocket(f'{server.ws_url}/ws/x'):
            refused(server, path, **headers)
            counted = get_hub().statistics.handshakes
            wait_until(lambda: counted[status] >= 1)


@pytest.mark.parametrize(
    ('path', 'seen'),
    [
        ('/ws/foo', '/ws/foo'),
        ('/foo', '/ws/foo'),
        ('//foo/ws/', '/ws/foo/ws/'),
        ('/ws', '/ws/'),
        ('/', '/ws/'),
        ('', '/ws/'),
    ],
)
@pytest.mark.parametrize('url', ['/ws/', '/ws'])
def test_a_path_without_the_prefix_gets_it_back(url: str, path: str, seen: str) -> None:
    with override_settings(WEBSOCKET_URL=url):
        assert _under_websocket_url({'PATH_INFO': path})['PATH_INFO'] == seen


def test_a_path_of_nobody_is_logged_for_websockets_alone(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    assert refused(server, '/elsewhere', Upgrade=None).status == 404
    assert not caplog.messages
    assert refused(server, '/elsewhere').status == 404
    assert ["'/elsewhere'" in message for message in caplog.messages] == [True]


def test_an_exception_of_ours_is_answered_500_and_logged(
    server: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError('the secret')

    monkeypatch.setattr(wsgi_server, 'join', fail)
    answer = refused(server, '/ws/x?subscribe-broadcast')
    assert answer.status == 500
    assert b'secret' not in answer.body
    assert 'the secret' in caplog.text
    wait_until(lambda: connection_limits.taken == 0)


def test_a_server_that_keeps_its_sockets_is_told_so() -> None:
    answers: list[Any] = []
    environ = {
        'REQUEST_METHOD': 'GET',
        'PATH_INFO': '/ws/x',
        'HTTP_UPGRADE': 'websocket',
        'HTTP_CONNECTION': 'Upgrade',
        'HTTP_SEC_WEBSOCKET_KEY': 'dGhlIHNhbXBsZSBub25jZQ==',
        'HTTP_SEC_WEBSOCKET_VERSION': '13',
    }

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        answers.append(status)

    body = b''.join(WebSocketServer()(environ, start_response))
    assert answers == ['501 Not Implemented']
    assert b'uWSGI' in body


def test_while_redis_does_not_answer_a_websocket_opens_all_the_same(
    server: Served, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wsgi_server, 'JOIN_SECONDS', 0.1)
    with RawWebSocket(f'{server.ws_url}/ws/x?subscribe-broadcast'):
        redis_server.pause()
        with RawWebSocket(f'{server.ws_url}/ws/foo?subscribe-broadcast') as websocket:
            websocket.send_ping(b'alive')
            assert websocket.receive_frame().payload == b'alive'
            redis_server.resume()
            hub = get_hub()
            wait_until(lambda: b'broadcast:foo' in hub.bus.channels)
            with redis_server.client() as client:
                wait_until(lambda: client.publish('broadcast:foo', 'hello'))
            assert websocket.receive() == 'hello'


@override_settings(WS4REDIS_MAX_CONNECTIONS_PER_USER=1)
def test_a_user_has_a_limit_of_websockets(server: Served) -> None:
    login: HttpRequest = logged_in_request(make_user('john'))
    headers = {'Cookie': f'sessionid={login.session.session_key}'}
    url = f'{server.ws_url}/ws/x?subscribe-user'
    with RawWebSocket(url, headers=headers):
        with pytest.raises(HandshakeRefused) as caught:
            RawWebSocket(url, headers=headers)
        assert caught.value.response.status == 429
        RawWebSocket(url).reset()
    wait_until(lambda: connection_limits.taken == 0)
    RawWebSocket(url, headers=headers).reset()
    wait_until(lambda: connection_limits.taken == 0)


class WithPubSubOfItsOwn(RedisSubscriber):
    """As subclasses of earlier versions did: the subscription is redis-py's PubSub."""

    def set_pubsub_channels(self, request: HttpRequest, channels: Any) -> None:
        super().set_pubsub_channels(request, channels)
        self._subscription = self._connection.pubsub()
        self._subscription.subscribe('broadcast:own', 'broadcast:grüße')


@override_settings(WS4REDIS_SUBSCRIBER=WithPubSubOfItsOwn)
def test_channels_of_a_pubsub_of_redis_py_are_taken_over(
    server: Served, redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    with RawWebSocket(f'{server.ws_url}/ws/x') as websocket:
        for name in ('broadcast:own', 'broadcast:grüße'):
            redis_client.publish(name, name)
        assert websocket.receive_many(2) == ['broadcast:own', 'broadcast:grüße']
        websocket.expect_silence(0.05)


class Released(RedisSubscriber):
    releases: list[object] = []
    refuses = True

    def send_persisted_messages(self, websocket: Any) -> None:
        if type(self).refuses:
            raise RuntimeError('no history')

    def publish_message(self, message: object, expire: int | None = None) -> None:  # type: ignore[override]  # as in 0.6
        assert isinstance(message, bytes)
        super().publish_message(RedisMessage(b'<' + message + b'>'))

    def release(self) -> None:
        self.releases.append(self)


@override_settings(WS4REDIS_SUBSCRIBER=Released)
def test_a_subscriber_is_released_once_whether_it_opens_or_fails(
    server: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Released, 'releases', [])
    url = f'{server.ws_url}/ws/x?subscribe-broadcast&publish-broadcast&echo'
    with pytest.raises(HandshakeRefused) as caught:
        RawWebSocket(url)
    assert caught.value.response.status == 500
    assert 'no history' in caplog.text
    wait_until(lambda: len(Released.releases) == 1)
    monkeypatch.setattr(Released, 'refuses', False)
    with RawWebSocket(url) as websocket:
        websocket.send('hello')
        assert websocket.receive() == '<hello>'
        assert len(Released.releases) == 1
    wait_until(lambda: len(Released.releases) == 2)
    wait_until(lambda: connection_limits.taken == 0)
    assert len(set(map(id, Released.releases))) == 2


def test_what_is_no_websocket_is_for_django(redis_server: RedisServer) -> None:
    def django(environ: Any, start_response: Any) -> list[bytes]:
        start_response('200 OK', [('Content-Length', '6')])
        return [b'Django']

    with served(CombinedServer(django)) as server:
        with urllib.request.urlopen(f'{server.url}/anything') as response:
            assert response.read() == b'Django'
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f'{server.url}/ws/x')
        assert caught.value.code == 400
        assert b'must upgrade' in caught.value.read()
        caught.value.close()
        with RawWebSocket(f'{server.ws_url}/ws/x'):
            pass


def test_without_an_application_django_is_made_at_the_first_request(
    redis_server: RedisServer,
) -> None:
    with served(CombinedServer()) as server:
        with urllib.request.urlopen(f'{server.url}/hello/') as response:
            assert response.read() == b'hello from Django'


def test_a_refusal_has_status_headers_and_a_plain_body() -> None:
    from ws4redis.exceptions import HandshakeError

    answers: list[Any] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        answers.append((status, dict(headers)))

    error = HandshakeError(426, 'Grüße', {'Sec-WebSocket-Version': '13'})
    body = b''.join(refuse(start_response, error))
    assert body == 'Grüße\n'.encode()
    assert answers == [
        (
            '426 Upgrade Required',
            {
                'Content-Type': 'text/plain; charset=utf-8',
                'Content-Length': str(len(body)),
                'Sec-WebSocket-Version': '13',
            },
        )
    ]
