#!/usr/bin/env python3
"""Measure handlers: echoes through threads, greenlets and processes, and scaling by processes.

    python stress-tests/handlers.py [--seconds 5] [--websockets 200]

It starts a Redis and the standalone server, with the server on one core and the client on another.
Every websocket has one message under way: it sends the next when the echo has arrived. On a machine
that is busy with other things the server gets less than a core: then the last column counts. It
takes about ``seconds`` for each line of the table, and the start of its server.
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]

from bench.figures import tell

from tests.free_ports import free_port
from tests.programs import RedisServer
from tests.timeouts import wait_until
from tests.websocket_client import TEXT, RawWebSocket, encode_frame
from ws4redis.handlers.multiprocess.names import ALIVE_INTERVAL_SECONDS

PAYLOAD = b'x' * 32
REQUEST = encode_frame(TEXT, PAYLOAD)
ECHO_BYTES = 2 + len(PAYLOAD)
WARM_UP_SECONDS = 1.0


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    name: str
    mode: str
    namespace: str = 'echo'
    threads: int = 16
    processes: int = 0

    @property
    def options(self) -> tuple[str, ...]:
        """Options of `run_wsserver`."""
        if not self.processes:
            return (self.mode,)
        return (self.mode, '--handler-processes', str(self.processes))


@dataclass(frozen=True)
class Result:
    """What was measured in a case."""

    name: str
    messages_per_second: float
    median_ms: float
    server_cpu: float

    @property
    def messages_per_cpu_second(self) -> float:
        """What one core would do that had nothing else to do."""
        return self.messages_per_second / max(self.server_cpu, 0.001)


THREADED, GEVENT, MULTIPROCESS = '--threaded', '--gevent', '--multiprocess'

CASES = (
    Case('threaded: echo', THREADED),
    Case('gevent: echo', GEVENT),
    Case('multiprocess: echo, 1 process', MULTIPROCESS, processes=1),
    Case('threaded: 1 ms of computing', THREADED, 'busy'),
    Case('threaded: 1 ms of waiting', THREADED, 'waiting'),
    Case('threaded: 1 ms of waiting beside a busy loop', THREADED, 'waiting-beside-busy-loop'),
    Case('multiprocess: 1 ms of computing, 1 process', MULTIPROCESS, 'busy', processes=1),
    Case('multiprocess: 1 ms of computing, 2 processes', MULTIPROCESS, 'busy', processes=2),
    # With one thread to each process, waiting shows how it scales where cores are scarce.
    Case('multiprocess: 1 ms of waiting, 1 process', MULTIPROCESS, 'waiting', 1, processes=1),
    Case('multiprocess: 1 ms of waiting, 2 processes', MULTIPROCESS, 'waiting', 1, processes=2),
    Case('multiprocess: 1 ms of waiting, 16 threads', MULTIPROCESS, 'waiting', processes=1),
)


def main() -> None:
    """Measure the cases, and print a table."""
    options = parse_arguments()
    with RedisServer() as redis_server:
        for case in CASES:
            if options.only in case.name:
                with server(case, redis_server, pin=options.pin) as (port, process):
                    print_result(measure(case, port, process.pid, options))


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=5.0, help='for each case (default: 5)')
    parser.add_argument('--websockets', type=int, default=200)
    parser.add_argument('--quick', action='store_true', help='half a second for each case')
    parser.add_argument('--only', default='', metavar='TEXT', help='cases whose name holds this')
    parser.add_argument(
        '--no-pin', dest='pin', action='store_false', help='let the server use all cores'
    )
    options = parser.parse_args()
    if options.quick:
        options.seconds = 0.5
    return options


@contextmanager
def server(
    case: Case, redis_server: RedisServer, *, pin: bool
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run the standalone server for a case."""
    port = free_port()
    # One core for the server, except where several processes are to show what they gain.
    pins = pin and not case.processes
    command = [sys.executable, '-m', 'django', 'run_wsserver', str(port), *case.options]
    before = os.sched_getaffinity(0)
    if pins:
        # A child has the affinity of its parent.
        os.sched_setaffinity(0, {min(before)})
    process = subprocess.Popen(
        [*command, '--websocket-url', r'/socket/(?P<namespace>[\w-]+)'],
        env=os.environ
        | {
            'PYTHONPATH': os.pathsep.join((str(ROOT), str(HERE))),
            'DJANGO_SETTINGS_MODULE': 'handlers_settings',
            'WS4REDIS_STRESS_REDIS_PORT': str(redis_server.port),
            'WS4REDIS_STRESS_THREADS': str(case.threads),
        },
        stdout=subprocess.PIPE,
    )
    os.sched_setaffinity(0, before - {min(before)} if pins and len(before) > 1 else before)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert b'serves websockets' in line, line
        # A websocket that opens before a worker is there goes to another one.
        with redis_server.client() as client:
            wait_until(lambda: client.hlen('ws_push:workers') == case.processes)
        if case.processes:
            # The server looks for them at this interval.
            time.sleep(2 * ALIVE_INTERVAL_SECONDS)
        yield port, process
    finally:
        os.sched_setaffinity(0, before)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        with redis_server.client() as client:
            client.flushall()


def measure(case: Case, port: int, pid: int, options: argparse.Namespace) -> Result:
    """Let websockets send and await echoes for a while."""
    url = f'ws://127.0.0.1:{port}/socket/{case.namespace}'
    websockets = [RawWebSocket(url, timeout=30) for _ in range(options.websockets)]
    try:
        pump(websockets, WARM_UP_SECONDS)
        cpu_before = cpu_seconds(pid)
        started = time.perf_counter()
        count, latencies = pump(websockets, options.seconds)
        elapsed = time.perf_counter() - started
        return Result(
            case.name,
            count / elapsed,
            statistics.median(latencies) * 1000,
            (cpu_seconds(pid) - cpu_before) / elapsed,
        )
    finally:
        for websocket in websockets:
            websocket.socket.close()


def pump(websockets: Sequence[RawWebSocket], seconds: float) -> tuple[int, list[float]]:
    """Keep one message of each websocket under way; return how many came back, and delays."""
    selector = selectors.DefaultSelector()
    sent_at: dict[socket.socket, float] = {}
    for websocket in websockets:
        websocket.socket.settimeout(30)
        selector.register(websocket.socket, selectors.EVENT_READ)
        websocket.socket.sendall(REQUEST)
        sent_at[websocket.socket] = time.perf_counter()
    count, latencies = 0, []
    deadline = time.perf_counter() + seconds
    while sent_at:
        ready = selector.select(5)
        assert ready, 'the echoes stopped'
        now = time.perf_counter()
        for key, _ in ready:
            sock: socket.socket = key.fileobj  # type: ignore[assignment]
            data = sock.recv(4096)
            assert len(data) == ECHO_BYTES, data
            latencies.append(now - sent_at[sock])
            if now < deadline:
                count += 1
                sock.sendall(REQUEST)
                sent_at[sock] = now
            else:
                # What is under way comes home before the next measurement.
                del sent_at[sock]
                selector.unregister(sock)
    selector.close()
    return count, latencies


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its children so far."""
    import psutil

    root = psutil.Process(pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def print_result(result: Result) -> None:
    tell({f'{result.name}: messages per CPU second': result.messages_per_cpu_second})
    print(
        f'{result.name:45} {result.messages_per_second:9,.0f}/s  median {result.median_ms:7.2f} ms'
        f'  server CPU {result.server_cpu:4.0%}  {result.messages_per_cpu_second:9,.0f} per CPU s',
        flush=True,
    )


if __name__ == '__main__':
    main()
