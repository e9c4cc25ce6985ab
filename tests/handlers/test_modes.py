"""Handlers behave the same in threads, greenlets and other processes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.db import SessionStore

from tests.programs import RedisServer
from tests.standalone.server import WEBSOCKET_URL, StandaloneServer, settings_with_handlers
from tests.timeouts import scaled
from tests.websocket_client import HandshakeRefused, RawWebSocket, WebSocketCrowd

pytestmark = pytest.mark.slow

MODES = {
    'threaded': ('--threaded',),
    'gevent': ('--gevent',),
    'multiprocess': ('--multiprocess', '--handler-processes', '2'),
}
MAX_PER_USER = 2


@pytest.fixture(params=MODES, scope='module')
def server(
    request: pytest.FixtureRequest, redis_server: RedisServer, django_db_setup: None
) -> Iterator[StandaloneServer]:
    """The standalone server in each mode, with the sample handlers."""
    with StandaloneServer(
        *(*MODES[request.param], '--websocket-url', WEBSOCKET_URL),
        redis_server=redis_server,
        django_settings=settings_with_handlers(WS4REDIS_MAX_CONNECTIONS_PER_USER=MAX_PER_USER),
    ) as server:
        server.mode = request.param  # type: ignore[attr-defined]
        yield server


@pytest.fixture(autouse=True)
def _keep_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    # The server of this module holds its keys in Redis: no test may flush it.
    monkeypatch.setattr('redis.Redis.flushall', lambda self: None)


def connect(server: StandaloneServer, namespace: str, **headers: str) -> RawWebSocket:
    return RawWebSocket(f'{server.ws_url}/socket/{namespace}', headers=headers)


def test_text_and_binary_come_back_as_they_were(server: StandaloneServer) -> None:
    with connect(server, 'echo') as websocket:
        for message in ('grüße', b'\x00\xff', '', b'plain', 'x' * 100_000):
            websocket.send(message)
            assert websocket.receive() == message
        assert websocket.close(1000) == (1000, '')


def test_without_a_namespace_the_default_handler_answers(server: StandaloneServer) -> None:
    with RawWebSocket(f'{server.ws_url}/socket') as websocket:
        websocket.send('x')
        assert websocket.receive() == 'x'


def test_the_first_message_goes_to_on_open_and_on_message(server: StandaloneServer) -> None:
    since = server.log_position()
    with connect(server, 'old') as websocket:
        websocket.send('a')
        websocket.send('b')
        assert websocket.receive_many(3) == ["opened with 'a'", "got 'a'", "got 'b'"]
    server.wait_for_log('old style closed', since=since)


def test_events_come_in_order_and_on_open_may_keep_the_first(server: StandaloneServer) -> None:
    since = server.log_position()
    with connect(server, 'log') as websocket:
        assert websocket.receive() == 'welcome'
        websocket.send('a')
        websocket.send(b'b')
        websocket.close(3001)
    server.wait_for_log('on_close 3001', since=since)
    lines = [line for line in server.log_lines(since) if line.startswith('on_')]
    assert lines == ['on_connect', "on_open 'a'", "on_message b'b'", 'on_close 3001']


def test_a_client_that_vanishes_closes_with_1006(server: StandaloneServer) -> None:
    since = server.log_position()
    websocket = connect(server, 'log')
    assert websocket.receive() == 'welcome'
    websocket.reset()
    server.wait_for_log('on_close 1006', since=since)


def test_a_protocol_error_closes_once(server: StandaloneServer) -> None:
    since = server.log_position()
    with connect(server, 'log') as websocket:
        websocket.send_frame(3, b'')
        assert websocket.receive_close()[0] == 1002
    server.wait_for_log('on_close 1002', since=since)
    with connect(server, 'echo') as other:
        other.send('x')
        other.receive()
    assert len([line for line in server.log_lines(since) if 'on_close' in line]) == 1


def test_a_fault_closes_that_websocket_alone_with_1011(server: StandaloneServer) -> None:
    since = server.log_position()
    with connect(server, 'faulty') as websocket, connect(server, 'faulty') as other:
        websocket.send('fail')
        websocket.send('never seen')
        assert websocket.receive_close() == (1011, '')
        other.send('still here')
        assert other.receive() == 'still here'
    server.wait_for_log('RuntimeError: a fault of the handler', since=since)
    server.wait_for_log('faulty closed 1011', since=since)
    server.wait_for_log('RuntimeError: a fault at the end', since=since)


def test_permission_denied_refuses_the_handshake_with_403(server: StandaloneServer) -> None:
    since = server.log_position()
    with pytest.raises(HandshakeRefused) as refused:
        connect(server, 'guarded')
    assert refused.value.response.status == 403
    with connect(server, 'guarded?word=sesame') as websocket:
        websocket.close()
    # Only for the one that was let in.
    server.wait_for_log('guarded closed 1000', since=since)
    assert not [line for line in server.log_lines(since) if 'closed 1006' in line]


def test_a_fault_in_on_connect_refuses_with_500_and_tells_nothing(
    server: StandaloneServer,
) -> None:
    since = server.log_position()
    with pytest.raises(HandshakeRefused) as refused:
        connect(server, 'guarded?word=crash')
    assert refused.value.response.status == 500
    assert b'fault' not in refused.value.response.body
    server.wait_for_log('RuntimeError: a fault in on_connect', since=since)


def test_an_unknown_namespace_gets_404_and_a_line_in_the_log(server: StandaloneServer) -> None:
    since = server.log_position()
    with pytest.raises(HandshakeRefused) as refused:
        connect(server, 'nowhere')
    assert refused.value.response.status == 404
    server.wait_for_log("unknown namespace 'nowhere'", since=since)


def test_a_foreign_origin_gets_403(server: StandaloneServer) -> None:
    with pytest.raises(HandshakeRefused) as refused:
        connect(server, 'echo', Origin='http://evil.example')
    assert refused.value.response.status == 403


def test_a_request_without_upgrade_gets_400(server: StandaloneServer) -> None:
    websocket = RawWebSocket(f'{server.ws_url}/socket', headers={'Upgrade': None}, connect=False)
    with websocket, pytest.raises(HandshakeRefused) as refused:
        websocket.handshake()
    assert refused.value.response.status == 400


def cookie_of_a_user() -> str:
    """Log a user in, with something in the session, and return the session's cookie."""
    user = get_user_model().objects.create_user('john', password='secret')
    session = SessionStore()
    session['colour'] = 'green'
    session['_auth_user_id'] = str(user.pk)
    session['_auth_user_backend'] = 'django.contrib.auth.backends.ModelBackend'
    session['_auth_user_hash'] = user.get_session_auth_hash()
    session.create()
    return f'sessionid={session.session_key}'


@pytest.mark.django_db(transaction=True)
def test_the_websockets_of_a_user_are_counted(server: StandaloneServer) -> None:
    cookie = cookie_of_a_user()
    with WebSocketCrowd(
        [f'{server.ws_url}/socket/echo'] * MAX_PER_USER, headers={'Cookie': cookie}
    ):
        with pytest.raises(HandshakeRefused) as refused:
            connect(server, 'echo', Cookie=cookie)
        assert refused.value.response.status == 429


@pytest.mark.django_db(transaction=True)
def test_a_handler_knows_request_user_and_session(server: StandaloneServer) -> None:
    with connect(server, 'about?a=1', Cookie=cookie_of_a_user()) as websocket:
        websocket.send('who?')
        assert json.loads(websocket.receive()) == {
            'path': '/socket/about',
            'get': {'a': '1'},
            'namespace': 'about',
            'kwargs': {'namespace': 'about'},
            'user': 'john',
            'session': 'green',
        }


def test_a_handler_closes_after_what_it_has_sent(server: StandaloneServer) -> None:
    with connect(server, 'closing') as websocket:
        websocket.send('close')
        assert websocket.receive() == 'before'
        assert websocket.receive_close() == (4001, 'as you wish')


def test_a_reason_that_is_no_text_is_refused_to_the_handler(server: StandaloneServer) -> None:
    with connect(server, 'closing') as websocket:
        websocket.send('without a text')
        assert websocket.receive_close() == (4003, 'refused')


def test_a_handler_that_closes_in_on_connect_closes_an_open_websocket(
    server: StandaloneServer,
) -> None:
    with connect(server, 'closing?at_once') as websocket:
        assert websocket.receive() == 'never mind'
        assert websocket.receive_close() == (4000, 'at once')


def test_wait_closed_ends_with_the_websocket(server: StandaloneServer) -> None:
    since = server.log_position()
    with connect(server, 'closing') as websocket:
        websocket.send('wait')
        assert websocket.receive() == 'waiting'
        websocket.close()
    server.wait_for_log('closed: True, True', since=since)


def test_a_handler_publishes_and_uses_the_database(server: StandaloneServer) -> None:
    url = f'{server.ws_url}/ws/from-handler?subscribe-broadcast'
    with RawWebSocket(url) as listener, connect(server, 'publishing') as websocket:
        websocket.send('to all')
        assert websocket.receive() == '"published"'
        assert listener.receive() == 'to all'


def test_what_comes_faster_than_a_handler_takes_it_is_held_back_and_not_lost(
    server: StandaloneServer,
) -> None:
    with connect(server, 'slow') as websocket, connect(server, 'echo') as other:
        for _ in range(60):
            websocket.send('x')
        websocket.send('end')
        other.send('quick')
        assert other.receive() == 'quick'
        assert websocket.receive() == 'done'


def test_order_is_kept_with_100_websockets_and_1000_messages_each(
    server: StandaloneServer,
) -> None:
    urls = [f'{server.ws_url}/socket/counting'] * 100
    numbers = [str(number) for number in range(1000)]
    with WebSocketCrowd(urls, timeout=scaled(100)) as crowd:
        # In pieces, so that all websockets are at it at once.
        for start in range(0, 1000, 100):
            for index in range(100):
                for number in numbers[start : start + 100]:
                    crowd[index].send(number)
        received = crowd.receive(1000)
        assert crowd.number_open == 100
        assert all(messages == numbers for messages in received)


def test_old_clients_of_the_main_loop_are_served_too(server: StandaloneServer) -> None:
    url = f'{server.ws_url}/ws/room?subscribe-broadcast&publish-broadcast&echo'
    with RawWebSocket(url) as one, RawWebSocket(url) as two:
        one.send('hello')
        assert one.receive() == 'hello'
        assert two.receive() == 'hello'


def test_paths_of_nobody_get_404(server: StandaloneServer) -> None:
    for path in ('/', '/elsewhere', '/socketx'):
        with pytest.raises(HandshakeRefused) as refused:
            RawWebSocket(server.ws_url + path)
        assert refused.value.response.status == 404
