"""Hostile input: it costs the one who sends it, and nobody else."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.faults.observed import ObservedServer
from tests.programs import RedisServer
from tests.timeouts import SOON_SECONDS, scaled, wait_until
from tests.websocket_client import (
    CONTINUATION,
    PING,
    TEXT,
    ConnectionEnded,
    HandshakeRefused,
    RawWebSocket,
    WebSocketCrowd,
    encode_frame,
    handshake_request,
)

# What the example configurations say.
OPTIONS = ['--buffer-size', '16384', '--socket-timeout', '3']


@contextmanager
def bystander(server: ObservedServer) -> Iterator[RawWebSocket]:
    """A websocket that is served as usual, before and afterwards."""
    with RawWebSocket(server.url_of('bystander')) as websocket:
        server.wait_for_bus()
        expect_service(server, websocket)
        yield websocket
        expect_service(server, websocket)


def expect_service(server: ObservedServer, websocket: RawWebSocket) -> None:
    """Deliver a message soon."""
    assert server.redis_server is not None
    started = time.monotonic()
    with server.redis_server.client() as client:
        client.publish('broadcast:bystander', 'hi')
    assert websocket.receive() == 'hi'
    assert time.monotonic() - started < scaled(1)


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[ObservedServer]:
    """A server as the example configurations run it."""
    with ObservedServer(redis_server, options=OPTIONS) as server:
        yield server


@contextmanager
def connections(server: ObservedServer, count: int) -> Iterator[list[socket.socket]]:
    sockets = [socket.create_connection((server.host, server.port)) for _ in range(count)]
    try:
        yield sockets
    finally:
        for sock in sockets:
            sock.close()


def test_half_open_handshakes_do_not_disturb_websockets_and_are_given_up(
    server: ObservedServer,
) -> None:
    with bystander(server) as websocket, connections(server, 150) as sockets:
        for sock in sockets:
            sock.sendall(b'GET /ws/foo HTTP/1.1\r\nHost: 127.0.0.1\r\n')
        expect_service(server, websocket)
        # uWSGI's socket-timeout ends them; then handshakes are served again.
        with RawWebSocket(server.url_of(), timeout=scaled(20)) as late:
            late.close()


def test_a_handshake_of_one_byte_a_second_delays_nobody(server: ObservedServer) -> None:
    with bystander(server) as websocket, connections(server, 20) as sockets:
        request = handshake_request(server.url_of())
        for byte in range(3):
            for sock in sockets:
                sock.sendall(request[byte : byte + 1])
            expect_service(server, websocket)
            # Sooner than uWSGI's socket-timeout ends the slow ones.
            with RawWebSocket(server.url_of(), timeout=scaled(2)) as other:
                other.close()
            time.sleep(1)


def test_headers_of_64_kib_are_refused(server: ObservedServer) -> None:
    with bystander(server):
        request = handshake_request(server.url_of(), headers={'X-Padding': 'x' * 65536})
        with connections(server, 1) as [sock]:
            sock.settimeout(SOON_SECONDS)
            answer = b''
            try:
                sock.sendall(request)
                answer = sock.recv(1000)
            except ConnectionError:
                pass
            assert not answer.startswith(b'HTTP/1.1 101')


@pytest.mark.parametrize(
    ('path', 'headers'),
    [
        ('%ff%fe?subscribe-broadcast', {}),
        ('foo?subscribe-broadcast=%ff&%ff', {}),
        ('foo?subscribe-broadcast', {'Cookie': 'sessionid=\xff\xfe; \xff=1'}),
        ('foo?subscribe-session', {'Cookie': 'sessionid=\xff\xfe\x01'}),
        ('foo?subscribe-user', {'Cookie': 'sessionid=' + 'x' * 5000}),
        ('%00?subscribe-broadcast', {}),
        ('foo%0d%0aSet-Cookie:a=b?subscribe-broadcast', {}),
        ('x' * 5000 + '?subscribe-broadcast', {}),
        ('foo?' + 'subscribe-broadcast&' * 300, {}),
    ],
)
def test_odd_paths_and_cookies_are_answered_properly_and_raise_nothing(
    redis_server: RedisServer, transactional_db: None, path: str, headers: dict[str, Any]
) -> None:
    with ObservedServer(redis_server, options=OPTIONS) as server, bystander(server):
        request = handshake_request(f'{server.ws_url}/ws/foo', headers=headers)
        request = request.replace(b'/ws/foo', b'/ws/' + path.encode('latin-1'), 1)
        with connections(server, 1) as [sock]:
            sock.settimeout(SOON_SECONDS)
            sock.sendall(request)
            status = sock.recv(4096).split(b' ')[1]
        assert status in (b'101', b'400')
        assert 'Traceback' not in server.log_text()


def test_a_million_tiny_fragments_are_refused_and_cost_little(server: ObservedServer) -> None:
    with bystander(server) as websocket:
        before = server.observe()
        with RawWebSocket(server.url_of('foo', 'publish-broadcast'), timeout=30) as hostile:
            hostile.send_bytes(encode_frame(TEXT, b'a', fin=False))
            fragments = encode_frame(CONTINUATION, b'a', fin=False) * 5000
            try:
                for _ in range(200):
                    hostile.send_bytes(fragments)
            except OSError:
                # Closed in the middle of it.
                pass
            code = 1006
            try:
                while True:
                    hostile.receive_frame()
            except (ConnectionEnded, OSError) as exc:
                code = getattr(exc, 'code', 1006)
            assert code in (1006, 1008, 1009)
        expect_service(server, websocket)
        after = server.wait_for_statistics(lambda s: s['open'] == 1)
        assert set(after['closes']) & {'1008', '1009'}
        spent = server.observe()
        assert spent['cpu_seconds'] - before['cpu_seconds'] < 3
        assert spent['rss_bytes'] - before['rss_bytes'] < 20_000_000


def test_pings_by_the_thousand_are_answered_and_delay_nobody(server: ObservedServer) -> None:
    with bystander(server) as websocket:
        with RawWebSocket(server.url_of()) as hostile:
            for _ in range(20):
                hostile.send_bytes(encode_frame(PING, b'x' * 100) * 500)
            expect_service(server, websocket)
            assert hostile.receive_frame().payload == b'x' * 100


def test_a_client_that_pings_and_never_reads_is_bounded(redis_server: RedisServer) -> None:
    settings = {'WS4REDIS_MAX_QUEUE_BYTES': 100_000, 'WS4REDIS_CLOSE_TIMEOUT': 1}
    with ObservedServer(redis_server, settings) as server, bystander(server) as websocket:
        before = server.observe()['rss_bytes']
        with RawWebSocket(server.url_of(), timeout=1) as hostile:
            try:
                for _ in range(2000):
                    hostile.send_bytes(encode_frame(PING, b'x' * 125) * 100)
            except OSError:
                pass
            seen = server.observe()
            assert seen['statistics']['queued_bytes'] < 300_000
            assert seen['rss_bytes'] - before < 20_000_000
            expect_service(server, websocket)


def test_a_flood_of_messages_is_slowed_down_to_its_rate_and_not_closed(
    redis_server: RedisServer,
) -> None:
    settings = {'WS4REDIS_MAX_MESSAGES_PER_SECOND': 20}
    with ObservedServer(redis_server, settings) as server, bystander(server):
        with RawWebSocket(server.url_of('foo', 'publish-broadcast')) as hostile:
            began = time.monotonic()
            hostile.send_bytes(encode_frame(TEXT, b'flood') * 80)
            assert hostile.close()[0] == 1000
            assert time.monotonic() - began >= 2.5
        statistics = server.wait_for_statistics(lambda s: s['open'] == 1)
        assert statistics['messages_not_published'] == {}
        assert statistics['messages_published'] >= 80


def refused(url: str, **headers: str) -> int:
    with pytest.raises(HandshakeRefused) as refusal:
        RawWebSocket(url, headers=headers)
    return refusal.value.response.status


def test_more_websockets_than_permitted_are_refused_until_one_has_left(
    redis_server: RedisServer,
) -> None:
    settings = {'WS4REDIS_MAX_CONNECTIONS': 3}
    with ObservedServer(redis_server, settings) as server:
        with WebSocketCrowd([server.url_of()] * 3) as websockets:
            assert refused(server.url_of()) == 503
            websockets[0].reset()
            wait_until(lambda: server.observe()['places'] == 2)
            with RawWebSocket(server.url_of()) as next_one:
                next_one.close()
            assert server.statistics()['handshakes'] == {'101': 4, '503': 1}


def test_an_address_is_believed_only_where_a_setting_names_the_proxys_header(
    redis_server: RedisServer,
) -> None:
    settings: dict[str, Any] = {'WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS': 1}
    with ObservedServer(redis_server, settings) as server, RawWebSocket(server.url_of()):
        assert refused(server.url_of(), **{'X-Real-IP': '192.0.2.1'}) == 429
    settings['WS4REDIS_CLIENT_ADDRESS_HEADER'] = 'X-Real-IP'
    with ObservedServer(redis_server, settings) as server:
        first, second = {'X-Real-IP': '192.0.2.1'}, {'X-Real-IP': '192.0.2.2'}
        with RawWebSocket(server.url_of(), headers=first):
            with RawWebSocket(server.url_of(), headers=second):
                assert refused(server.url_of(), **first) == 429


def test_without_descriptors_handshakes_get_503_websockets_live_and_the_loop_does_not_spin(
    redis_server: RedisServer,
) -> None:
    # `--max-fd` sets the limit of open files; half of it is for websockets.
    options = ['--max-fd', '100', *OPTIONS]
    with ObservedServer(redis_server, options=options, gevent=20) as server:
        with bystander(server) as websocket:
            with WebSocketCrowd([server.url_of()] * 49):
                for _ in range(30):
                    assert refused(server.url_of()) == 503
                expect_service(server, websocket)
                before = server.observe()['cpu_seconds']
                time.sleep(1)
                assert server.observe()['cpu_seconds'] - before < 0.3
            wait_until(lambda: server.observe()['places'] == 1)
            with RawWebSocket(server.url_of()) as again:
                again.close()


def test_when_the_process_itself_runs_out_of_descriptors_websockets_live(
    redis_server: RedisServer,
) -> None:
    # A wrong limit lets the process come to the very end of its descriptors.
    settings = {'WS4REDIS_MAX_CONNECTIONS': 100_000}
    options = ['--max-fd', '60', *OPTIONS]
    with ObservedServer(redis_server, settings, options=options, gevent=20) as server:
        with bystander(server) as websocket:
            opened: list[RawWebSocket] = []
            outcome: set[object] = set()
            try:
                for _ in range(70):
                    try:
                        opened.append(RawWebSocket(server.url_of(), timeout=1))
                    except HandshakeRefused as exc:
                        outcome.add(exc.response.status)
                    except (OSError, ConnectionEnded) as exc:
                        # uWSGI could not even accept the connection.
                        outcome.add(type(exc))
                assert 20 < len(opened) < 60
                assert outcome <= {503, TimeoutError, ConnectionResetError, ConnectionEnded}
                expect_service(server, websocket)
            finally:
                for other in opened:
                    other.socket.close()
            wait_until(lambda: server.observe()['places'] == 1, timeout=scaled(20))
            with RawWebSocket(server.url_of()) as again:
                again.close()
