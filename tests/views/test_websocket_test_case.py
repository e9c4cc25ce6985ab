"""ws4redis.test: what projects test their websockets with."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from django.contrib.auth.models import Group, User
from django.test import override_settings

from tests.redis_keys import stored_keys
from tests.timeouts import SOON_SECONDS
from tests.websocket_client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    FrameBuffer,
    close_payload,
    encode_frame,
    expected_accept,
)
from ws4redis.broker.connections import get_client
from ws4redis.conf import conf
from ws4redis.exceptions import ConnectionClosed, HandshakeError
from ws4redis.publisher import RedisPublisher
from ws4redis.test import WebSocketClient, WebSocketTestCase


@pytest.mark.usefixtures('redis_server')
@override_settings(ROOT_URLCONF='tests.views.urls')
class TestCaseTests(WebSocketTestCase):
    """The test case, tested by itself."""

    websocket_timeout = SOON_SECONDS

    def test_a_broadcast_reaches_many_websockets(self) -> None:
        with self.websockets('/ws/news?subscribe-broadcast', 100) as listeners:
            with self.websocket('/ws/news?publish-broadcast') as websocket:
                websocket.send('hello')
            assert [listener.receive() for listener in listeners] == ['hello'] * 100

    def test_a_user_is_logged_in_for_a_websocket_alone(self) -> None:
        mary, john = User.objects.create_user('mary'), User.objects.create_user('john')
        with (
            self.websocket('/ws/post?subscribe-user', user=mary) as for_mary,
            self.websocket('/ws/post?subscribe-user', user=john) as for_john,
        ):
            RedisPublisher(facility='post', users=['mary']).publish_message('dear Mary')
            assert for_mary.receive() == 'dear Mary'
            for_john.receive_nothing()
        assert '_auth_user_id' not in self.client.session

    def test_the_cookies_of_the_client_count(self) -> None:
        group = Group.objects.create(name='chatters')
        user = User.objects.create_user('mary')
        user.groups.add(group)
        self.client.force_login(user)
        with self.websocket('/ws/post?subscribe-group') as websocket:
            RedisPublisher(facility='post', groups=['chatters']).publish_message('hello group')
            assert websocket.receive() == 'hello group'

    def test_a_refused_handshake_raises_with_the_answer(self) -> None:
        with pytest.raises(HandshakeError) as caught:
            self.websocket('/ws/news', headers={'Sec-WebSocket-Version': '7'})
        assert caught.value.status == 426
        assert caught.value.headers['sec-websocket-version'] == '13'
        with pytest.raises(HandshakeError) as caught:
            self.websocket('/ws/news', headers={'Origin': 'https://evil.example.com'})
        assert caught.value.status == 403
        assert 'origin' in caught.value.body

    def test_messages_of_views_and_of_websockets_are_asserted(self) -> None:
        with self.assertPublished('from a view', facility='views', broadcast=True):
            self.client.get('/publish/')
        with self.assertPublished(facility='views', broadcast=True) as published:
            with self.websocket('/ws/views?publish-broadcast') as websocket:
                websocket.send('from a browser')
        assert published == [b'from a browser']

    def test_a_message_that_is_missing_fails_and_tells_what_came_instead(self) -> None:
        with pytest.raises(AssertionError, match=r"b'expected' came on .*b'from a view'"):
            with self.assertPublished('expected', facility='views', broadcast=True, timeout=0.2):
                self.client.get('/publish/')

    def test_each_channel_of_the_audience_has_to_get_the_message(self) -> None:
        with pytest.raises(AssertionError, match='user:mary:views'):
            with self.assertPublished(
                facility='views', broadcast=True, users=['mary'], timeout=0.2
            ):
                self.client.get('/publish/')

    def test_an_exception_in_the_block_is_not_hidden(self) -> None:
        with pytest.raises(ZeroDivisionError):
            with self.assertPublished(facility='views', broadcast=True):
                raise ZeroDivisionError

    def test_messages_stay_apart_from_others_on_the_same_redis(self) -> None:
        assert conf.WS4REDIS_PREFIX.startswith('test-')
        self.client.get('/publish/')
        assert get_client().get('broadcast:views') is None
        assert get_client().get(f'{conf.WS4REDIS_PREFIX}:broadcast:views') == b'from a view'

    def test_changed_settings_hold_for_websockets_that_open_afterwards(self) -> None:
        with override_settings(WS4REDIS_MAX_MESSAGE_SIZE=10):
            with self.websocket('/echo/') as websocket:
                websocket.send('x' * 11)
                assert websocket.wait_closed() == 1009
        with self.websocket('/echo/') as websocket:
            websocket.send('x' * 11)
            assert websocket.receive() == 'x' * 11


@pytest.mark.django_db(transaction=True)
def test_a_test_leaves_no_key_in_redis(redis_client: redis.Redis) -> None:
    @override_settings(ROOT_URLCONF='tests.views.urls')
    class Publishing(WebSocketTestCase):
        def test(self) -> None:
            RedisPublisher(facility='x', broadcast=True).publish_message('kept')
            assert stored_keys(redis_client)

    result = run(Publishing('test'))
    assert not result.failures + result.errors
    assert stored_keys(redis_client) == []


def run(case: WebSocketTestCase) -> Any:
    """Run a test case in the manner of unittest, and return its result."""
    import unittest

    result = unittest.TestResult()
    unittest.TestSuite([case]).run(result)
    return result


# The client, against a server that a test plays


@contextmanager
def played_server() -> Iterator[tuple[WebSocketClient, socket.socket, FrameBuffer]]:
    """Give a client, and the other end of its connection."""
    accepted: list[socket.socket] = []

    def answer() -> None:
        connection, _ = listener.accept()
        request = connection.recv(65536).decode()
        key = next(
            line.partition(': ')[2]
            for line in request.split('\r\n')
            if line.lower().startswith('sec-websocket-key')
        )
        connection.sendall(
            'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
            f'Sec-WebSocket-Accept: {expected_accept(key)}\r\n\r\n'.encode()
            # Comes in the same packet.
            + server_frame(TEXT, b'early')
        )
        accepted.append(connection)

    with socket.create_server(('127.0.0.1', 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        client = WebSocketClient(f'ws://127.0.0.1:{listener.getsockname()[1]}/', timeout=5)
        thread.join()
    try:
        with accepted[0]:
            yield client, accepted[0], FrameBuffer()
    finally:
        client.drop()


def server_frame(opcode: int, payload: bytes = b'', *, fin: bool = True) -> bytes:
    return encode_frame(opcode, payload, mask=None, fin=fin)


def receive_frame(connection: socket.socket, frames: FrameBuffer) -> tuple[int, bytes]:
    while (frame := frames.next_frame()) is None:
        data = connection.recv(65536)
        assert data
        frames.feed(data)
    assert frame.masked
    return frame.opcode, frame.payload


def test_what_comes_along_with_the_answer_is_received() -> None:
    with played_server() as (client, _connection, _frames):
        assert client.receive() == 'early'


def test_messages_in_pieces_are_put_together() -> None:
    with played_server() as (client, connection, _frames):
        client.receive()
        connection.sendall(server_frame(TEXT, b'one ', fin=False))
        connection.sendall(server_frame(PING, b'between'))
        connection.sendall(server_frame(CONTINUATION, 'zwö'.encode()))
        assert client.receive() == 'one zwö'
        big = b'x' * 70_000
        for part in (server_frame(BINARY, big)[:5], server_frame(BINARY, big)[5:]):
            connection.sendall(part)
        assert client.receive() == big


def test_pings_are_answered() -> None:
    with played_server() as (client, connection, frames):
        client.receive()
        connection.sendall(server_frame(PING, b'are you there?') + server_frame(TEXT, b'x'))
        assert client.receive() == 'x'
        assert receive_frame(connection, frames) == (PONG, b'are you there?')


def test_the_servers_close_frame_is_answered_and_told() -> None:
    with played_server() as (client, connection, frames):
        client.receive()
        connection.sendall(server_frame(TEXT, b'last'))
        connection.sendall(server_frame(CLOSE, close_payload(4000, 'enough')))
        assert client.receive() == 'last'
        with pytest.raises(ConnectionClosed) as caught:
            client.receive()
        assert (caught.value.code, caught.value.reason) == (4000, 'enough')
        assert receive_frame(connection, frames) == (CLOSE, close_payload(4000, 'enough'))
        with pytest.raises(ConnectionClosed):
            client.send('too late')
        assert list(client) == []


def test_a_server_that_hangs_up_is_told_as_1006() -> None:
    with played_server() as (client, connection, _frames):
        client.receive()
        connection.close()
        assert client.wait_closed() == 1006


def test_waiting_ends_with_the_time_out() -> None:
    with played_server() as (client, _connection, _frames):
        client.receive()
        with pytest.raises(TimeoutError):
            client.receive(timeout=0.01)
        client.receive_nothing(0.01)


def test_a_message_where_none_should_be_is_an_error() -> None:
    with played_server() as (client, _connection, _frames):
        with pytest.raises(AssertionError, match='early'):
            client.receive_nothing()
