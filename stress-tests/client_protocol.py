#!/usr/bin/env python
"""Measure what the client protocol costs, beside plain websockets, in one process of uWSGI.

Starts Redis and uWSGI by itself. Measures the memory of a connection with three subscriptions, how
long 20,000 subscriptions take, and the fan-out to 1,000 subscribers: a burst, and the CPU time of
the server at a steady rate. Fails where a figure is worse than it may be.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT)]

import psutil
import redis

from tests.programs import RedisServer, UwsgiServer
from tests.websocket_client import encode_frame

MAX_BYTES_PER_CONNECTION = 2560
MAX_SUBSCRIBING_SECONDS = 4.0
MIN_BURST_RATIO = 0.8
MAX_CPU_RATIO = 1.1

HANDSHAKE_SECONDS = 11
PATH = '/ws/connection/websocket'
TEXT = 1
SETTINGS = {
    'WS4REDIS_EXPIRE': None,
    'WS4REDIS_COMPRESSION': False,
    'WS4REDIS_MAX_CONNECTIONS': 10_000,
    # The clients of this script answer none.
    'WS4REDIS_PING_INTERVAL': None,
}


@dataclass
class Limits:
    connections: int
    seconds: float
    messages: int
    rate: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--connections', type=int, default=2000)
    parser.add_argument('--seconds', type=float, default=10.0, help='of steady fan-out')
    parser.add_argument('--messages', type=int, default=200, help='of a burst')
    parser.add_argument('--rate', type=int, default=20, help='messages a second')
    options = parser.parse_args()
    limits = Limits(options.connections, options.seconds, options.messages, options.rate)
    with RedisServer() as redis_server:
        is_good = subscriptions(redis_server, limits)
        return 0 if fan_outs(redis_server, limits) and is_good else 1


class Crowd:
    """Open websockets that send what they are told, and of which only the bytes are counted."""

    def __init__(self, port: int, path: str, number: int) -> None:
        self.sockets = [_opened(port, path) for _ in range(number)]
        self._poller = select.epoll()
        self.received = 0
        for sock in self.sockets:
            self._poller.register(sock.fileno(), select.EPOLLIN)
        self._by_fd = {sock.fileno(): sock for sock in self.sockets}

    def send(self, *messages: object) -> None:
        frame = encode_frame(TEXT, '\n'.join(map(json.dumps, messages)).encode())
        for sock in self.sockets:
            sock.sendall(frame)

    def read(self, seconds: float) -> bytes:
        """Read what has come within some seconds, and return one of the pieces."""
        piece = b''
        for fd, _ in self._poller.poll(seconds):
            piece = self._by_fd[fd].recv(1 << 20)
            self.received += len(piece)
        return piece

    def settle(self) -> None:
        """Read until nothing more comes."""
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < 0.5:
            if self.read(0.1):
                quiet_since = time.monotonic()

    def wait_for(self, received: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.received < received and time.monotonic() < deadline:
            self.read(0.2)
        return self.received >= received

    def close(self) -> None:
        self._poller.close()
        for sock in self.sockets:
            sock.close()


def _opened(port: int, path: str) -> socket.socket:
    sock = socket.create_connection(('127.0.0.1', port), timeout=30)
    request = (
        f'GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n'
        'Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n'
        'Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n'
    )
    sock.sendall(request.encode())
    head = b''
    while b'\r\n\r\n' not in head:
        # Byte by byte at the end, so that no frame is taken with it.
        head += sock.recv(1)
    if b' 101 ' not in head.split(b'\r\n', 1)[0]:
        raise SystemExit(f'a handshake was refused: {head!r}')
    if path == PATH:
        sock.sendall(encode_frame(TEXT, b'{"id":1,"connect":{}}'))
    return sock


@contextmanager
def crowd(port: int, path: str, number: int) -> Iterator[Crowd]:
    opened = Crowd(port, path, number)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def started(redis_server: RedisServer) -> Iterator[tuple[UwsgiServer, psutil.Process]]:
    with UwsgiServer(redis_server=redis_server, django_settings=SETTINGS) as server:
        worker = psutil.Process(server.worker_pids()[0])
        # What a first connection imports and makes is no connection's cost.
        with crowd(server.port, PATH, 50) as first:
            first.send({'id': 2, 'subscribe': {'channel': 'warm'}})
            first.settle()
        yield server, worker


def subscriptions(redis_server: RedisServer, limits: Limits) -> bool:
    number = limits.connections
    with started(redis_server) as (server, worker):
        # The first thousands fill what Python and the C library keep in reserve.
        with ExitStack() as stack:
            memory = []
            for _ in range(2):
                clients = stack.enter_context(crowd(server.port, PATH, number))
                clients.send(*_subscribing('room', 3))
                clients.settle()
                # Until then each has a timer that waits for its connect.
                time.sleep(HANDSHAKE_SECONDS)
                memory.append(worker.memory_info().rss)
            per_connection = (memory[1] - memory[0]) / number
    with started(redis_server) as (server, worker), crowd(server.port, PATH, number) as clients:
        clients.settle()
        reply = _size_of_replies('many', 10)
        clients.received = 0
        cpu = sum(worker.cpu_times()[:2])
        began = time.monotonic()
        clients.send(*_subscribing('many', 10))
        is_done = clients.wait_for(number * reply, 60)
        seconds = time.monotonic() - began
        cpu = sum(worker.cpu_times()[:2]) - cpu
    print(f'a connection with 3 subscriptions: {per_connection:,.0f} bytes')
    print(f'{number * 10:,} subscriptions: {seconds:.2f} s, of which {cpu:.2f} s of CPU')
    return (
        per_connection <= MAX_BYTES_PER_CONNECTION
        and is_done
        and seconds <= MAX_SUBSCRIBING_SECONDS * number / 2000
    )


def _subscribing(name: str, channels: int) -> list[object]:
    return [
        {'id': number + 2, 'subscribe': {'channel': f'{name}/{number}'}}
        for number in range(channels)
    ]


def _size_of_replies(name: str, channels: int) -> int:
    """Return the least that the replies take: their texts, without frames around them."""
    replies = [{'id': number + 2, 'subscribe': {}} for number in range(channels)]
    return sum(len(json.dumps(reply, separators=(',', ':'))) for reply in replies)


def fan_outs(redis_server: RedisServer, limits: Limits) -> bool:
    number = min(1000, limits.connections)
    bursts: dict[str, list[float]] = {'plain': [], 'protocol': []}
    loads: dict[str, list[float]] = {'plain': [], 'protocol': []}
    # In turns, so that what else the machine does concerns both.
    for _ in range(3):
        for kind, measured in bursts.items():
            burst, load = _fan_out(redis_server, kind, number, limits)
            measured.append(burst)
            loads[kind].append(load)
    best = {kind: max(values) for kind, values in bursts.items()}
    least = {kind: min(values) for kind, values in loads.items()}
    burst_ratio = best['protocol'] / best['plain']
    load_ratio = least['protocol'] / least['plain']
    for kind in bursts:
        print(f'{kind}: burst {best[kind]:,.0f} deliveries/s, {least[kind]:.2f} µs each, steady')
    print(f'burst {burst_ratio:.2f} x, steady {load_ratio:.2f} x')
    return burst_ratio >= MIN_BURST_RATIO and load_ratio <= MAX_CPU_RATIO


def _fan_out(
    redis_server: RedisServer, kind: str, number: int, limits: Limits
) -> tuple[float, float]:
    path = '/ws/fan?subscribe-broadcast' if kind == 'plain' else PATH
    with (
        started(redis_server) as (server, worker),
        crowd(server.port, path, number) as clients,
        redis_server.client() as publisher,
    ):
        if kind != 'plain':
            clients.send({'id': 2, 'subscribe': {'channel': 'fan'}})
        clients.settle()
        size = _size_of_frame(clients, publisher, number)
        clients.received = 0
        began = time.monotonic()
        pipeline = publisher.pipeline(transaction=False)
        for count in range(limits.messages):
            pipeline.publish('broadcast:fan', f'{count:0100}')
        pipeline.execute()
        if not clients.wait_for(limits.messages * number * size, 60):
            raise SystemExit(f'{kind}: messages are missing')
        burst = limits.messages * number / (time.monotonic() - began)
        clients.settle()
        clients.received = 0
        cpu = sum(worker.cpu_times()[:2])
        steady = int(limits.seconds * limits.rate)
        for count in range(steady):
            publisher.publish('broadcast:fan', f'{count:0100}')
            clients.wait_for((count + 1) * number * size, 5)
            time.sleep(1 / limits.rate)
        load = (sum(worker.cpu_times()[:2]) - cpu) / (steady * number) * 1e6
    return burst, load


def _size_of_frame(clients: Crowd, publisher: redis.Redis, number: int) -> int:
    clients.received = 0
    publisher.publish('broadcast:fan', f'{0:0100}')
    clients.settle()
    size, rest = divmod(clients.received, number)
    assert rest == 0, 'not all have got the same'
    return size


if __name__ == '__main__':
    os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')
    sys.exit(main())
