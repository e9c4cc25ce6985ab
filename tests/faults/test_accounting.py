"""Accounting: what is counted adds up, and what was not delivered is explained by a close."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

from tests.faults.observed import ObservedServer
from tests.programs import RedisServer
from tests.timeouts import wait_until
from tests.websocket_client import HandshakeRefused, RawWebSocket, WebSocketCrowd
from ws4redis.servers.statistics import as_line, get_statistics

BOTH = 'subscribe-broadcast&publish-broadcast&echo'
# What point 7 of the documentation promises.
NAMES = {
    'backlog_bytes',
    'bytes_received',
    'bytes_sent',
    'channels',
    'closes',
    'handshakes',
    'messages_not_delivered',
    'messages_not_published',
    'messages_published',
    'messages_received',
    'messages_sent',
    'open',
    'queued_bytes',
    'queued_bytes_max',
    'queues_memory_bytes',
    'redis_connected',
    'redis_messages',
    'redis_reconnects',
    'unpublished_bytes',
    'unpublished_messages',
}


def test_a_process_without_websockets_has_no_statistics(redis_server: RedisServer) -> None:
    assert get_statistics() == {}


def test_what_happened_is_counted(redis_server: RedisServer) -> None:
    settings = {'WS4REDIS_MAX_CONNECTIONS': 3}
    with ObservedServer(redis_server, settings) as server:
        assert server.statistics() == {}
        with WebSocketCrowd([server.url_of('foo', BOTH)] * 3) as websockets:
            for _ in range(2):
                try:
                    RawWebSocket(server.url_of())
                except HandshakeRefused:
                    pass
            websockets[0].send('hello')
            websockets.receive(1)
            statistics = server.wait_for_statistics(
                lambda s: s['messages_published'] == 1 and s['messages_sent'] == 3
            )
            assert set(statistics) >= NAMES
            assert statistics['open'] == 3
            assert statistics['handshakes'] == {'101': 3, '503': 2}
            assert statistics['closes'] == {}
            assert statistics['channels'] == 1
            assert statistics['messages_received'] == 1
            assert statistics['redis_messages'] == 1
            # A frame of a client has 6 bytes in front of its payload, one of ours 2.
            assert statistics['bytes_received'] == 11
            assert statistics['bytes_sent'] == 3 * 7
            websockets[0].send_close(1000)
            websockets[1].send_close(1001)
            websockets[2].reset()
            statistics = server.wait_for_statistics(lambda s: s['open'] == 0)
            assert statistics['closes'] == {'1000': 1, '1001': 1, '1006': 1}
            assert statistics['channels'] == 0


def test_the_numbers_add_up_after_load_with_all_kinds_of_ends(redis_server: RedisServer) -> None:
    settings = {
        'WS4REDIS_MAX_QUEUE_BYTES': 100_000,
        'WS4REDIS_CLOSE_TIMEOUT': 1,
    }
    with ObservedServer(redis_server, settings) as server:
        url = server.url_of('foo', 'subscribe-broadcast')
        with WebSocketCrowd([url] * 10) as readers, WebSocketCrowd([url] * 4) as stalled:
            server.wait_for_bus()
            with redis_server.client() as client:
                for number in range(300):
                    client.publish('broadcast:foo', b'x' * 20_000)
                    if number % 20 == 0:
                        readers.receive(number + 1)
                    if number == 100:
                        stalled[0].reset()
            readers.receive(300)
            with RawWebSocket(server.url_of('up', 'publish-broadcast')) as sending:
                for _ in range(200):
                    sending.send('message')
                assert sending.close()[0] == 1000
            statistics = server.wait_for_statistics(
                lambda s: s['open'] == 10 and not s['unpublished_messages']
            )
        expect_sums(statistics)
        # Each of the 14 was to get 300 messages, until it was closed.
        assert statistics['messages_sent'] >= 10 * 300
        assert statistics['messages_published'] == 200
        final = server.wait_for_statistics(lambda s: s['open'] == 0)
        expect_sums(final)
        assert sum(final['closes'].values()) == final['handshakes']['101']


def expect_sums(statistics: dict[str, Any]) -> None:
    closed = sum(statistics['closes'].values())
    assert statistics['open'] == statistics['handshakes']['101'] - closed
    assert statistics['messages_received'] == (
        statistics['messages_published']
        + statistics['unpublished_messages']
        + sum(statistics['messages_not_published'].values())
    )
    for name in ('messages_not_delivered', 'messages_not_published'):
        # Explained by a websocket that was closed with that code.
        assert set(statistics[name]) <= set(statistics['closes'])


def test_statistics_may_be_read_in_any_thread_while_websockets_come_and_go(
    redis_server: RedisServer,
) -> None:
    with ObservedServer(redis_server, gevent=None, threads=8) as server:
        stop = threading.Event()
        failures: list[BaseException] = []

        def observe() -> None:
            while not stop.is_set():
                try:
                    server.observe()
                except BaseException as exc:
                    failures.append(exc)
                    return

        threads = [threading.Thread(target=observe) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(10):
            with WebSocketCrowd([server.url_of(f'{number}')] * 20):
                pass
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        wait_until(lambda: server.statistics()['open'] == 0)


def test_statistics_are_logged_at_the_interval_of_the_setting(redis_server: RedisServer) -> None:
    settings = {'WS4REDIS_STATISTICS_INTERVAL': 0.2}
    with ObservedServer(redis_server, settings) as server:
        with RawWebSocket(server.url_of()) as websocket:
            started = time.monotonic()
            server.wait_for_log(r'statistics: pid=\d+ open=1 ', count=3)
            assert time.monotonic() - started >= 0.4
            websocket.close(1001)
        line = server.wait_for_log(r'statistics: .* open=0 ')
        assert 'closes.1001=1' in line
        assert 'handshakes.101=1' in line
        words = line.split('statistics: ')[1].split()
        assert not [word for word in words if not re.fullmatch(r'[^\s=]+=[\d.]+', word)]


def test_by_default_no_statistics_are_logged(redis_server: RedisServer) -> None:
    with ObservedServer(redis_server) as server:
        with RawWebSocket(server.url_of()) as websocket:
            websocket.close()
        assert 'statistics' not in server.log_text()


def test_a_line_of_statistics_is_made_of_words() -> None:
    statistics = {
        'open': 5,
        'closes': {1001: 2, 1000: 3},
        'lag': 0.25,
        'connected': True,
        'redis_links': {'pub/sub': False},
        'facility_messages': {'a b=*': 7},
    }
    assert as_line(statistics) == (
        'open=5 closes.1000=3 closes.1001=2 lag=0.250 connected=1 redis_links.pub/sub=0 '
        'facility_messages.a_b_*=7'
    )
