#!/usr/bin/env python
"""Measure what the client protocol costs, beside plain websockets, in one process of uWSGI.

Starts Redis and uWSGI by itself. Measures the memory of a connection with three subscriptions, how
long 20,000 subscriptions take, and the fan-out to 1,000 subscribers: a burst, and the CPU time of
the server at a steady rate. Then it runs `logout.py` and `presence.py`. Fails where a figure is
worse than it may be.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]

import psutil
import redis
from bench.figures import tell

from tests.programs import RedisServer, UwsgiServer
from tests.websocket_client import encode_frame

MAX_BYTES_PER_CONNECTION = 2560
MAX_SUBSCRIBING_SECONDS = 4.0
MIN_BURST_RATIO = 0.8
MAX_CPU_RATIO = 1.1

HANDSHAKE_SECONDS = 11
PATH = '/ws/connection/websocket'
TEXT = 1
MESSAGE_BYTES = 100
# Of a frame that holds more than 125 bytes.
LONG_HEADER_BYTES = 4
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
    rounds: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--connections', type=int, default=2000)
    parser.add_argument('--seconds', type=float, default=4.0, help='of steady fan-out')
    parser.add_argument('--messages', type=int, default=2000, help='of a burst')
    parser.add_argument('--rate', type=int, default=20, help='messages a second')
    parser.add_argument('--rounds', type=int, default=5, help='of bursts and steady fan-out')
    limits = Limits(**vars(parser.parse_args()))
    with RedisServer() as redis_server:
        is_good = subscriptions(redis_server, limits)
        is_good &= fan_outs(redis_server, limits)
    # What else comes with the protocol, each measured in a process of its own.
    for script in ('logout.py', 'presence.py'):
        is_good &= subprocess.call([sys.executable, HERE / script]) == 0
    return 0 if is_good else 1


class Crowd:
    """Open websockets that send what they are told, and of which only the bytes are counted."""

    def __init__(self, port: int, path: str, number: int) -> None:
        self.sockets = [_opened(port, path) for _ in range(number)]
        self._poller = select.epoll()
        self.received = 0
        for sock in self.sockets:
            self._poller.register(sock.fileno(), select.EPOLLIN)
        self._buffer = bytearray(1 << 20)
        self._by_fd = {sock.fileno(): sock for sock in self.sockets}

    def send(self, *messages: object) -> None:
        frame = encode_frame(TEXT, '\n'.join(map(json.dumps, messages)).encode())
        for sock in self.sockets:
            sock.sendall(frame)

    def read(self, seconds: float) -> bool:
        """Read what has come within some seconds; tell whether that was anything."""
        ready = self._poller.poll(seconds)
        for fd, _ in ready:
            self.received += self._by_fd[fd].recv_into(self._buffer)
        return bool(ready)

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
            for _ in range(4):
                clients = stack.enter_context(crowd(server.port, PATH, number))
                clients.send(*_subscribing('room', 3))
                clients.settle()
                # Until then each has a timer that waits for its connect.
                time.sleep(HANDSHAKE_SECONDS)
                memory.append(worker.memory_info().rss)
            per_connection = (memory[-1] - memory[0]) / number / (len(memory) - 1)
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
    tell({'a connection with 3 subscriptions, KB': per_connection / 1024})
    tell({f'{number * 10:,} subscriptions on {number:,} connections, s': seconds})
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
    """Publish to plain websockets, and to subscribers through the protocol, in turns.

    A push is longer than the frame of a plain message, so a third kind tells how much of the
    difference that is: plain websockets that are sent frames as long as pushes.
    """
    number = min(1000, limits.connections)
    with started(redis_server) as (server, worker), ExitStack() as stack:
        publisher = stack.enter_context(redis_server.client())

        def audience(facility: str, path: str = '', size: int = MESSAGE_BYTES) -> Audience:
            path = path or f'/ws/{facility}?subscribe-broadcast'
            clients = stack.enter_context(crowd(server.port, path, number))
            if path == PATH:
                clients.send({'id': 2, 'subscribe': {'channel': facility}})
            clients.settle()
            return Audience(worker, publisher, clients, f'broadcast:{facility}', size)

        plain = audience('plain')
        protocol = audience('fan', PATH)
        longer = protocol.frame_bytes - LONG_HEADER_BYTES
        as_long = audience('long', size=longer)
        kinds = {'plain': plain, f'plain, {longer} bytes': as_long, 'protocol': protocol}
        bursts: dict[str, list[float]] = {kind: [] for kind in kinds}
        loads: dict[str, list[float]] = {kind: [] for kind in kinds}
        # In turns, so that what else the machine does concerns all of them.
        for _ in range(limits.rounds):
            for kind, crowded in kinds.items():
                bursts[kind].append(crowded.burst(limits.messages))
                loads[kind].append(crowded.steady_load(limits.seconds, limits.rate))
    burst = {kind: statistics.median(values) for kind, values in bursts.items()}
    load = {kind: statistics.median(values) for kind, values in loads.items()}
    for kind, crowded in kinds.items():
        print(
            f'{kind}, frames of {crowded.frame_bytes} bytes: burst {burst[kind]:,.0f} '
            f'deliveries/s, {load[kind]:.2f} µs of CPU each, steady'
        )
    burst_ratio = burst['protocol'] / burst['plain']
    load_ratio = load['protocol'] / load['plain']
    tell({'client protocol: burst × plain websockets': burst_ratio})
    tell({'client protocol: steady CPU × plain websockets': load_ratio})
    print(f'protocol to plain: burst {burst_ratio:.2f} x, steady {load_ratio:.2f} x')
    return burst_ratio >= MIN_BURST_RATIO and load_ratio <= MAX_CPU_RATIO


class Audience:
    """Subscribers of one channel, and how long the server takes to reach them all."""

    def __init__(
        self,
        worker: psutil.Process,
        publisher: redis.Redis,
        clients: Crowd,
        channel: str,
        message_bytes: int,
    ) -> None:
        self._worker = worker
        self._publisher = publisher
        self._clients = clients
        self._channel = channel
        self._message_bytes = message_bytes
        self._number = len(clients.sockets)
        self.frame_bytes = self._size_of_frame()

    def burst(self, messages: int) -> float:
        """Publish as fast as Redis takes it; return deliveries per second."""
        self._clients.received = 0
        pipeline = self._publisher.pipeline(transaction=False)
        for count in range(messages):
            pipeline.publish(self._channel, self._message(count))
        began = time.monotonic()
        pipeline.execute()
        if not self._clients.wait_for(messages * self._number * self.frame_bytes, 60):
            raise SystemExit(f'{self._channel}: messages are missing')
        return messages * self._number / (time.monotonic() - began)

    def steady_load(self, seconds: float, rate: int) -> float:
        """Publish at a rate; return the µs of the server's CPU time for each delivery."""
        self._clients.received = 0
        began = sum(self._worker.cpu_times()[:2])
        messages = int(seconds * rate)
        for count in range(messages):
            self._publisher.publish(self._channel, self._message(count))
            self._clients.wait_for((count + 1) * self._number * self.frame_bytes, 5)
            time.sleep(1 / rate)
        spent = sum(self._worker.cpu_times()[:2]) - began
        return spent / (messages * self._number) * 1e6

    def _message(self, count: int) -> str:
        return f'{count:0{self._message_bytes}}'

    def _size_of_frame(self) -> int:
        self._clients.received = 0
        self._publisher.publish(self._channel, self._message(0))
        self._clients.settle()
        size, rest = divmod(self._clients.received, self._number)
        assert rest == 0, 'not all have got the same'
        return size


if __name__ == '__main__':
    os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')
    sys.exit(main())
