#!/usr/bin/env python
"""Measure what a history costs, beside the same without one, in one run.

Its fan-out is measured by ``benchmark.py``.

Prints what must be reached beside what was, and fails where it was not.
"""

from __future__ import annotations

import gc
import os
import resource
import selectors
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT)]
os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')

import django

django.setup()

from bench.figures import tell
from django.test import override_settings

from tests.faults.observed import ObservedServer
from tests.hub.rig import Home, bus_link_of
from tests.programs import RedisServer
from ws4redis.history import get_position
from ws4redis.hub.channel import Joined, Request
from ws4redis.hub.options import HubOptions
from ws4redis.publisher import RedisPublisher
from ws4redis.servers.process import connect_to_redis
from ws4redis.settings.facilities import FacilityOptions
from ws4redis.test.handshakes import handshake_request, new_key

FACILITIES = {'history*': {'HISTORY_SIZE': 1000}}
OPTIONS = FacilityOptions(history_size=1000)
PAYLOAD = b'x' * 100
FRAME_BYTES = 102
RETURNING = 10_000
VERIFIED = 10_000
MISSED = 20
SETTINGS = {
    'WS4REDIS_FACILITIES': FACILITIES,
    'WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS': None,
    'WS4REDIS_COMPRESSION': False,
    # Nobody answers.
    'WS4REDIS_PING_INTERVAL': None,
}


class Listeners:
    """Websockets of which only the bytes are counted, so that the server is what costs."""

    def __init__(self, server: ObservedServer, path: str, count: int) -> None:
        self.received = 0
        self._url = f'ws://{server.host}:{server.port}/ws/{path}'
        self._address = (server.host, server.port)
        self._selector = selectors.DefaultSelector()
        self.sockets: list[socket.socket] = []
        for start in range(0, count, 50):
            self._open(min(50, count - start))

    def _open(self, count: int) -> None:
        opening = [socket.create_connection(self._address, timeout=30) for _ in range(count)]
        for sock in opening:
            sock.sendall(handshake_request(self._url, key=new_key()))
        for sock in opening:
            data = b''
            while b'\r\n\r\n' not in data:
                data += sock.recv(4096)
            assert b' 101 ' in data, data
            self.received += len(data.partition(b'\r\n\r\n')[2])
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ)
            self.sockets.append(sock)

    def wait_for(self, size: int) -> None:
        """Read until so many bytes have come in all."""
        deadline = time.monotonic() + 60
        while self.received < size:
            assert time.monotonic() < deadline, f'{self.received} of {size} bytes came'
            for key, _ in self._selector.select(1):
                assert isinstance(key.fileobj, socket.socket)
                self.received += len(key.fileobj.recv(1 << 20))

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        self._selector.close()


def rss_bytes(pid: int) -> int:
    return int(Path(f'/proc/{pid}/statm').read_text().split()[1]) * resource.getpagesize()


@contextmanager
def listening(server: ObservedServer, path: str, count: int) -> Iterator[Listeners]:
    listeners = Listeners(server, path, count)
    try:
        yield listeners
    finally:
        listeners.close()


def publishing_seconds(facility: str, rounds: int = 300) -> float:
    """Return the median time that a view waits for one publication."""
    publisher = RedisPublisher(facility=facility, broadcast=True)
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        publisher.publish_message(PAYLOAD)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def memory_bytes(server: ObservedServer, facility: str, count: int = 4000) -> float:
    """Return the memory of one websocket."""
    [pid] = server.worker_pids()
    before = rss_bytes(pid)
    with listening(server, f'{facility}?subscribe-broadcast', count):
        return (rss_bytes(pid) - before) / count


class SteadyChannel(threading.Thread):
    """Publish the time on a channel, and note how late it comes."""

    def __init__(self, server: ObservedServer, redis_server: RedisServer) -> None:
        super().__init__(daemon=True)
        self.delays: list[float] = []
        self._listeners = Listeners(server, 'steady?subscribe-broadcast', 1)
        self._redis_server = redis_server
        self._stopped = threading.Event()

    def run(self) -> None:
        [sock] = self._listeners.sockets
        sock.settimeout(10)
        with self._redis_server.client() as client:
            while not self._stopped.is_set():
                begin = time.perf_counter()
                client.publish('broadcast:steady', b'now')
                sock.recv(100)
                self.delays.append(time.perf_counter() - begin)
                time.sleep(0.002)

    def stop(self) -> float:
        """Return the delay at the 99th percentile."""
        self._stopped.set()
        self.join(10)
        self._listeners.close()
        return statistics.quantiles(self.delays, n=100)[98]


def resume_figures(server: ObservedServer, redis_server: RedisServer) -> tuple[int, float]:
    """Let ten thousand come back who missed some; return the reads, and a bystander's delay."""
    publisher = RedisPublisher(facility='history-resume', broadcast=True)
    publisher.publish_message('0', expire=0)
    since = get_position('history-resume')
    for _ in range(MISSED):
        publisher.publish_message(PAYLOAD, expire=0)
    before = server.statistics()['history_reads']
    steady = SteadyChannel(server, redis_server)
    steady.start()
    path = f'history-resume?subscribe-broadcast&since={since}'
    with listening(server, path, RETURNING) as listeners:
        listeners.wait_for(RETURNING * MISSED * FRAME_BYTES)
        assert listeners.received == RETURNING * MISSED * FRAME_BYTES
        delay = steady.stop()
    return server.statistics()['history_reads'] - before, delay


def longest_turn_seconds(redis_server: RedisServer) -> float:
    """Let a process verify ten thousand channels after it was cut off; time its turns, in CPU."""
    options = HubOptions(ping_interval_seconds=None, facility_of_channel=lambda _: OPTIONS)
    with Home(connect=connect_to_redis, options=options) as hub:
        hub.turn_until(lambda: bus_link_of(hub).is_connected)
        peers = [hub.peer() for _ in range(100)]
        joined: list[Joined] = []
        for number in range(VERIFIED):
            name = f'broadcast:history{number}'
            hub.bus.join(peers[number % 100].websocket, name, Request(joined.append))
        hub.turn_until(lambda: len(joined) == VERIFIED)
        bus_link_of(hub).lost('for the measurement')
        longest = 0.0
        # It is switched on again when all is verified.
        hub.turn_until(lambda: not gc.isenabled())
        while not gc.isenabled():
            timeout = hub.loop.timeout()
            begin = time.thread_time()
            hub.loop.turn(0.01 if timeout is None else min(timeout, 0.01))
            longest = max(longest, time.thread_time() - begin)
        return longest


def main() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * RETURNING + 1000)), hard))
    missed = 0

    def show(what: str, wanted: str, got: str, *, is_reached: bool) -> None:
        nonlocal missed
        missed += not is_reached
        verdict = 'reached' if is_reached else 'MISSED '
        print(f'{verdict}  {what}\n         wanted {wanted}, got {got}', flush=True)

    def median(measure: Callable[[], float]) -> float:
        return statistics.median(measure() for _ in range(3))

    with (
        RedisServer() as redis_server,
        override_settings(
            WS4REDIS_CONNECTION=redis_server.connection, WS4REDIS_FACILITIES=FACILITIES
        ),
        ObservedServer(redis_server, SETTINGS, options=['--disable-logging']) as server,
    ):
        plain, history = ([], [])
        for _ in range(3):
            plain.append(publishing_seconds('plain'))
            history.append(publishing_seconds('history'))
        ratio = min(history) / min(plain)
        tell({'publishing with a history: time × plain': ratio})
        show(
            'publishing with a history, against plain',
            '≤ 1.5 ×',
            f'{ratio:.2f} × ({min(plain) * 1e6:.0f} → {min(history) * 1e6:.0f} µs)',
            is_reached=ratio <= 1.5,
        )
        memory_bytes(server, 'plain')
        more = memory_bytes(server, 'history') - memory_bytes(server, 'plain')
        tell({'memory of a websocket for a history, bytes': more})
        show(
            'memory for a history',
            '≤ 100 bytes a websocket',
            f'{more:.0f}',
            is_reached=more <= 100,
        )
        reads, delay = resume_figures(server, redis_server)
        tell({f'{RETURNING:,} come back to a channel who missed {MISSED} messages: reads': reads})
        tell({'beside them: p99 of a steady channel, ms': delay * 1000})
        show(
            f'{RETURNING} come back to one channel who missed {MISSED} messages each: reads',
            '≤ 3',
            str(reads),
            is_reached=reads <= 3,
        )
        show(
            'p99 of a steady channel beside them',
            '< 50 ms',
            f'{delay * 1000:.1f} ms',
            is_reached=delay < 0.05,
        )
        longest = longest_turn_seconds(redis_server)
        tell({f'longest turn while {VERIFIED:,} channels are verified, ms': longest * 1000})
        show(
            f'longest turn of the loop while {VERIFIED:,} channels are verified',
            '≤ 20 ms',
            f'{longest * 1000:.1f} ms',
            is_reached=longest <= 0.02,
        )
    print('All reached.' if not missed else f'{missed} missed.')
    return 1 if missed else 0


if __name__ == '__main__':
    sys.exit(main())
