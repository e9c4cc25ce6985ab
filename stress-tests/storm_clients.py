"""Clients of a storm: each speaks the client protocol, and comes back whenever it is cut off."""

from __future__ import annotations

import functools
import gc
import heapq
import json
import random
import resource
import select
import socket
import time
from collections import Counter
from itertools import cycle
from multiprocessing.connection import Connection
from typing import Any

from arrivals import connect, send_request, some_source

from tests.websocket_client import CLOSE, TEXT, encode_frame

CHANNELS = ('storm/a', 'storm/b', 'storm/c')
# As ws4redis.js has it for the first attempt, and for the next ones.
FIRST_DELAY_SECONDS = 2.0
LONGEST_DELAY_SECONDS = 30.0
OPENING_AT_ONCE = 200
CONNECTED_PER_TURN = 16
# Addresses that the clients of a process come from.
SOURCES = 4


def raise_limits() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Client:
    """One client, which comes back whenever it is cut off."""

    __slots__ = ('_data', '_failures', '_is_open', '_process', '_subscribed', 'is_back', 'missed',
                 'positions', 'request', 'sock', 'source')  # fmt: skip

    def __init__(self, process: ClientProcess, request: bytes, source: str) -> None:
        self._process = process
        self.request = request
        self.source = source
        self.positions: dict[str, tuple[str, int]] = {}
        self.sock: socket.socket | None = None
        self.is_back = False
        # How much it has got of what was published since it came for the first time.
        self.missed = 0
        self._failures = 0
        self._data = b''
        self._is_open = False
        self._subscribed = 0

    def connect(self) -> None:
        self.sock = connect(self._process.address, self.source)
        self._data = b''
        self._subscribed = 0
        try:
            is_sent = send_request(self.sock, self.request)
        except OSError:
            # The poller tells of it.
            is_sent = False
        self._process.watch(self, is_sent=is_sent)

    def ready(self, events: int) -> None:
        assert self.sock is not None
        try:
            if events & select.EPOLLOUT:
                if send_request(self.sock, self.request):
                    self._process.epoll.modify(self.sock, select.EPOLLIN)
                return
            data = self.sock.recv(65536)
        except OSError:
            data = b''
        if not data:
            self.lost()
            return
        self._data += data
        self._take()

    def lost(self) -> None:
        process = self._process
        assert self.sock is not None
        # The poller forgets what is closed.
        del process.by_descriptor[self.sock.fileno()]
        self.sock.close()
        self.sock = None
        if self._is_open:
            self._is_open = False
            process.refused['cut off'] += 1
        process.note_lost(self)
        longest = min(FIRST_DELAY_SECONDS * 2**self._failures, LONGEST_DELAY_SECONDS)
        self._failures += 1
        due = time.monotonic() + longest * random.uniform(0.25, 1)
        heapq.heappush(process.waiting, (due, id(self), self))

    def _take(self) -> None:
        if self._data.startswith(b'HTTP/'):
            head, end, rest = self._data.partition(b'\r\n\r\n')
            if not end:
                return
            if not head.startswith(b'HTTP/1.1 101'):
                self._process.refused[head[9:12].decode()] += 1
                self.lost()
                return
            self._data = rest
            self._is_open = True
            self._say_hello()
        while len(self._data) >= 2:
            length, start = self._data[1], 2
            if length == 126:
                length, start = int.from_bytes(self._data[2:4], 'big'), 4
            if len(self._data) < start + length:
                return
            opcode, payload = self._data[0] & 15, self._data[start : start + length]
            self._data = self._data[start + length :]
            if opcode == CLOSE:
                # The server waits for an answer to it, or for the end.
                self.lost()
                return
            if opcode == TEXT:
                for line in payload.split(b'\n'):
                    self._take_reply(reply_in(line))

    def _say_hello(self) -> None:
        assert self.sock is not None
        self.sock.send(hello(tuple(self.positions.items())))

    def _take_reply(self, reply: dict[str, Any]) -> None:
        if 'error' in reply:
            raise SystemExit(f'a command failed: {reply}')
        if 'subscribe' in reply:
            told = reply['subscribe']
            if told.get('was_recovering') and not told.get('recovered'):
                raise SystemExit(f'a position was not recovered: {reply}')
            channel = CHANNELS[reply['id'] - 2]
            self.positions[channel] = told['epoch'], told['offset']
            self.missed += len(told.get('publications', ()))
            # Their answers come in any order.
            self._subscribed += 1
            if self._subscribed == len(CHANNELS):
                self.is_back = True
                self._failures = 0
                self._is_open = False
                self._process.note_back(self)
        elif 'pub' in reply.get('push', ()):
            # Whoever is back before all is published, or was not yet cut off.
            channel, offset = reply['push']['channel'], reply['push']['pub']['offset']
            self.positions[channel] = self.positions[channel][0], offset
            self.missed += 1
        elif not reply:
            assert self.sock is not None
            self.sock.send(encode_frame(TEXT, b'{}'))


@functools.lru_cache(maxsize=10_000)
def reply_in(line: bytes) -> dict[str, Any]:
    """Return a reply or push; many clients get the same."""
    reply: dict[str, Any] = json.loads(line)
    return reply


@functools.cache
def hello(positions: tuple[tuple[str, tuple[str, int]], ...]) -> bytes:
    """Return what a client sends that has come so far; many have come as far as others."""
    known = dict(positions)
    commands: list[dict[str, Any]] = [{'id': 1, 'connect': {}}]
    for number, channel in enumerate(CHANNELS):
        request: dict[str, Any] = {'channel': channel}
        if channel in known:
            epoch, offset = known[channel]
            request |= {'recover': True, 'epoch': epoch, 'offset': offset}
        commands.append({'id': number + 2, 'subscribe': request})
    return encode_frame(TEXT, '\n'.join(map(json.dumps, commands)).encode())


class ClientProcess:
    """Many clients in a process of their own; answers each line of its parent with its account."""

    def __init__(self, pipe: Connection, address: tuple[str, int], requests: list[bytes]) -> None:
        self._pipe = pipe
        self.address = address
        self.epoll = select.epoll()
        self.by_descriptor: dict[int, Client] = {}
        sources = [some_source() for _ in range(SOURCES)]
        self.clients = [
            Client(self, request, source)
            for request, source in zip(requests, cycle(sources), strict=False)
        ]
        # Those who are to open for the first time, and those who come back, by the time they do.
        self.newcomers: list[Client] = list(self.clients)
        self.waiting: list[tuple[float, int, Client]] = []
        self.back = self.opening = 0
        self.refused: Counter[str] = Counter()
        self.cpu = time.process_time()
        self.back_times: list[float] = []
        self.lost_times: list[float] = []

    def watch(self, client: Client, *, is_sent: bool) -> None:
        assert client.sock is not None
        self.by_descriptor[client.sock.fileno()] = client
        self.epoll.register(client.sock, select.EPOLLIN if is_sent else select.EPOLLOUT)

    def note_back(self, client: Client) -> None:
        self.back += 1
        self.opening -= 1
        self.back_times.append(time.monotonic())

    def note_lost(self, client: Client) -> None:
        if client.is_back:
            client.is_back = False
            self.back -= 1
            self.lost_times.append(time.monotonic())
        else:
            self.opening -= 1

    def run(self) -> None:
        told = False
        while True:
            self._connect_due()
            ready = self.epoll.poll(self._seconds_to_wait())
            for fd, events in ready:
                self.by_descriptor[fd].ready(events)
            if self.back == len(self.clients) and not told:
                told = True
                self._pipe.send(
                    {
                        'back': self.back_times,
                        'lost': self.lost_times,
                        'missed': [client.missed for client in self.clients],
                        'refused': self.refused,
                        'cpu': time.process_time() - self.cpu,
                    }
                )
                self.cpu = time.process_time()
                self.back_times, self.lost_times = [], []
            if not ready and self._pipe.poll() and self._pipe.recv() is None:
                return
            if self.back < len(self.clients):
                told = False

    def _seconds_to_wait(self) -> float:
        if not self.waiting:
            return 0.02
        return min(0.02, max(0.0, self.waiting[0][0] - time.monotonic()))

    def _connect_due(self) -> None:
        while self.newcomers and self.opening < OPENING_AT_ONCE:
            self._connect(self.newcomers.pop())
        # Each sends its request before many others connect.
        for _ in range(CONNECTED_PER_TURN):
            if not self.waiting or self.waiting[0][0] > time.monotonic():
                break
            self._connect(heapq.heappop(self.waiting)[2])

    def _connect(self, client: Client) -> None:
        self.opening += 1
        client.connect()


def run_clients(pipe: Connection, address: tuple[str, int], requests: list[bytes]) -> None:
    raise_limits()
    # Thousands of objects, none of which is garbage.
    gc.disable()
    ClientProcess(pipe, address, requests).run()
