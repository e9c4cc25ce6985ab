"""Slow and dead clients: their output is bounded, then they are closed; nobody else waits."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest

from tests.faults.observed import ObservedServer
from tests.hub.rig import Clock, Home
from tests.programs import RedisServer
from tests.timeouts import SOON_SECONDS, scaled, wait_until
from tests.websocket_client import (
    CLOSE,
    PING,
    ConnectionEnded,
    RawWebSocket,
    WebSocketCrowd,
    close_payload,
    encode_frame,
)
from ws4redis.hub.keepalive import Pings
from ws4redis.hub.options import HubOptions
from ws4redis.hub.websocket import Paused, Phase

QUEUE_BYTES = 200_000
# Of CPU, in a second in which nothing happens: a loop that spins would take all of it.
MAX_IDLE_SECONDS = 0.5
RESET = struct.pack('ii', 1, 0)


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[ObservedServer]:
    """A server with small bounds and short times."""
    settings = {
        'WS4REDIS_MAX_QUEUE_BYTES': QUEUE_BYTES,
        'WS4REDIS_CLOSE_TIMEOUT': 1,
        'WS4REDIS_PING_INTERVAL': scaled(0.5),
        'WS4REDIS_PING_TIMEOUT': scaled(0.5),
    }
    with ObservedServer(redis_server, settings) as server:
        yield server


def publish(server: ObservedServer, count: int, size: int = 20_000) -> None:
    assert server.redis_server is not None
    with server.redis_server.client() as client:
        for number in range(count):
            client.publish('broadcast:foo', b'%04d' % number + b'x' * size)


def test_a_client_that_reads_too_slowly_gets_1013_and_others_everything(
    server: ObservedServer,
) -> None:
    with WebSocketCrowd([server.url_of()] * 5) as others:
        with RawWebSocket(server.url_of()) as slow:
            server.wait_for_bus()
            # Far more than the sockets take; the others read all of it meanwhile.
            for number in range(40):
                publish(server, 20)
                others.receive(20 * (number + 1))
            slow_messages = 0
            with pytest.raises(ConnectionEnded) as ended:
                while True:
                    # Whole messages, in their order, up to the close frame.
                    assert str(slow.receive())[:4] == f'{slow_messages % 20:04}'
                    slow_messages += 1
            # Having read, it may still be closed with its frame; else it was reset meanwhile.
            assert ended.value.code in (1013, 1006)
        assert others.number_open == 5
        statistics = server.wait_for_statistics(lambda s: s['open'] == 5)
        assert statistics['closes'] == {'1013': 1}
        assert set(statistics['messages_not_delivered']) == {'1013'}
        assert statistics['queued_bytes'] == 0


def test_a_client_that_takes_no_close_frame_is_reset(server: ObservedServer) -> None:
    with RawWebSocket(server.url_of()) as stalled:
        server.wait_for_bus()
        publish(server, 400)
        server.wait_for_log('cannot keep up')
        started = time.monotonic()
        server.wait_for_statistics(lambda s: s['open'] == 0)
        assert time.monotonic() - started < SOON_SECONDS
        with pytest.raises(ConnectionResetError):
            while stalled.socket.recv(1_000_000):
                pass


def test_memory_for_a_client_that_does_not_read_is_bounded(redis_server: RedisServer) -> None:
    settings = {'WS4REDIS_MAX_QUEUE_BYTES': QUEUE_BYTES}
    with ObservedServer(redis_server, settings) as server, RawWebSocket(server.url_of()):
        server.wait_for_bus()
        most = 0
        for _ in range(1000):
            publish(server, 1)
            most = max(most, server.statistics()['queued_bytes'])
            if 'cannot keep up' in server.log_text():
                break
        # What comes behind the bound is the close frame.
        assert 0 < most <= QUEUE_BYTES + 100


def test_a_client_that_answers_no_ping_is_closed(server: ObservedServer) -> None:
    with RawWebSocket(server.url_of()) as silent:
        assert silent.receive_frame().opcode == PING
        frame = silent.receive_frame()
        while frame.opcode == PING:
            frame = silent.receive_frame()
        assert (frame.opcode, frame.close_code) == (CLOSE, 1011)
        assert frame.close_reason == 'no answer to a ping'
    server.wait_for_statistics(lambda s: s['closes'] == {'1011': 1})


def test_a_client_that_answers_pings_stays(server: ObservedServer) -> None:
    with WebSocketCrowd([server.url_of()] * 3) as websockets:
        websockets.receive_for(scaled(2.5))
        assert websockets.number_open == 3


def test_a_peer_that_half_closes_while_output_waits_gets_it_and_the_loop_does_not_spin(
    redis_server: RedisServer,
) -> None:
    settings = {'WS4REDIS_CLOSE_TIMEOUT': 5, 'WS4REDIS_MAX_QUEUE_BYTES': 100_000_000}
    with ObservedServer(redis_server, settings) as server:
        with RawWebSocket(server.url_of()) as peer:
            server.wait_for_bus()
            publish(server, 500, 20_000)
            server.wait_for_statistics(lambda s: s['redis_messages'] == 500 and s['queues'])
            peer.send_bytes(encode_frame(CLOSE, close_payload(1000)))
            peer.socket.shutdown(socket.SHUT_WR)
            before = server.observe()['cpu_seconds']
            time.sleep(1)
            assert server.observe()['cpu_seconds'] - before < MAX_IDLE_SECONDS
            messages = 0
            with pytest.raises(ConnectionEnded) as ended:
                while True:
                    peer.receive()
                    messages += 1
            assert (messages, ended.value.code) == (500, 1000)
        server.wait_for_statistics(lambda s: s['closes'] == {'1000': 1} and not s['open'])


def test_a_paused_sender_that_vanishes_is_noticed_and_the_loop_does_not_spin() -> None:
    with RedisServer() as redis_server, ObservedServer(redis_server) as server:
        url = server.url_of('foo', 'publish-broadcast')
        with RawWebSocket(url) as crashing, RawWebSocket(url) as leaving:
            server.wait_for_bus()
            redis_server.kill()
            server.wait_for_log('cannot connect')
            for websocket in (crashing, leaving):
                websocket.send('held back')
            server.wait_for_statistics(lambda s: s['unpublished_messages'] == 2)
            crashing.reset()
            leaving.socket.shutdown(socket.SHUT_WR)
            server.wait_for_statistics(lambda s: s['open'] == 1)
            before = server.observe()['cpu_seconds']
            time.sleep(1)
            assert server.observe()['cpu_seconds'] - before < MAX_IDLE_SECONDS
            # What they sent is published all the same.
            redis_server.start()
            server.wait_for_statistics(lambda s: s['messages_published'] == 2 and not s['open'])


def test_pings_of_a_hundred_thousand_websockets_cost_next_to_nothing() -> None:
    clock = Clock()
    with Home(clock=clock, options=HubOptions(ping_interval_seconds=None)) as hub:
        peer = hub.peer()
        peer.websocket.pinged_in_round = -1
        # The same object under many descriptors: what is measured is the wheel.
        for fd in range(1000, 101_000):
            hub.loop.handlers[fd] = peer.websocket
        hub.highest_fd = 101_000
        pings = Pings(hub, interval_seconds=20.0, timeout_seconds=20.0)
        assert len(hub.loop.timers) < 10
        started = time.process_time()
        for slot in range(32):
            pings._wheel.visit_slot(slot, pings._ping)
        spent = time.process_time() - started
        for fd in range(1000, 101_000):
            del hub.loop.handlers[fd]
    # All that 20 seconds bring.
    assert spent < scaled(0.4)


def test_a_socket_whose_peer_has_gone_ends_its_websocket_in_every_phase() -> None:
    with Home() as hub:
        for phase in ('open', 'closing', 'paused'):
            peer = hub.peer(tcp=True)
            if phase == 'closing':
                peer.websocket.close(1000)
            if phase == 'paused':
                peer.websocket.pause_reading(Paused.REDIS)
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            peer.socket.close()
            hub.turn_until(lambda peer=peer: peer.websocket.phase is Phase.CLOSED)  # type: ignore[misc]
        assert hub.open_count == 0
        polls = [hub.loop.poller.poll(0) for _ in range(3)]
        assert polls == [[], [], []]


def test_a_halted_client_does_not_delay_the_others(server: ObservedServer) -> None:
    # All of it fits into the queue of the one that reads nothing.
    with RawWebSocket(server.url_of()), WebSocketCrowd([server.url_of()] * 5) as others:
        server.wait_for_bus()
        for number in range(10):
            started = time.monotonic()
            publish(server, 1, 10)
            others.receive(number + 1)
            assert time.monotonic() - started < scaled(1)
    wait_until(lambda: server.statistics()['open'] == 0)
