"""Kill two processes with 20,000 clients that have tickets, and see them come back.

    python stress-tests/storm.py [--clients N] [kill] [term] [hup]

Each client speaks the client protocol, in the name of a session, on three channels with a history.
While nobody is connected messages are published, which all get when they are back. The server's
database does not exist, so that a single query would fail a handshake. A third process has 200
websockets, which are sent 20 messages a second all the time. Redis and the servers are started,
and ended, by the script; the clients come from four processes, since one may not have so many
descriptors.
"""

from __future__ import annotations

import argparse
import functools
import gc
import heapq
import json
import multiprocessing
import os
import random
import resource
import select
import selectors
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from itertools import cycle
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]
os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')

import django
import psutil
from arrivals import connect, send_request, some_source
from bench.figures import tell

from tests.programs import RedisServer
from tests.standalone.server import StandaloneServer
from tests.websocket_client import CLOSE, TEXT, encode_frame
from ws4redis.test.handshakes import handshake_request

CLIENT_PROCESSES = 4
CHANNELS = ('storm/a', 'storm/b', 'storm/c')
MISSED = 5
BYSTANDERS = 200
BYSTANDERS_PER_SECOND = 20
# As ws4redis.js has it for the first attempt, and for the next ones.
FIRST_DELAY_SECONDS = 2.0
LONGEST_DELAY_SECONDS = 30.0
PATIENCE_SECONDS = 120.0
OPENING_AT_ONCE = 200
CONNECTED_PER_TURN = 16
# Addresses that the clients of a process come from.
SOURCES = 4
SETTINGS: dict[str, Any] = {
    'WS4REDIS_FACILITIES': {'storm/*': {'HISTORY_SIZE': 100}},
    'WS4REDIS_DRAIN_SECONDS': 1.0,
    'WS4REDIS_EXPIRE': 0,
    'DATABASES': {
        'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': '/nonexistent/no.sqlite3'}
    },
}
Ending = Callable[[StandaloneServer], object]


def workers_of(server: StandaloneServer) -> list[psutil.Process]:
    return psutil.Process(server.pid).children()


def signal_workers(number: int) -> Ending:
    def end(server: StandaloneServer) -> None:
        for worker in workers_of(server):
            worker.send_signal(number)

    return end


ENDINGS: dict[str, Ending] = {
    'kill': signal_workers(signal.SIGKILL),
    'term': signal_workers(signal.SIGTERM),
    'hup': lambda server: psutil.Process(server.pid).send_signal(signal.SIGHUP),
}


# Clients


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


# Bystanders


def run_bystanders(pipe: Connection, url: str, redis_port: int) -> None:
    """Publish 20 times a second to 200 websockets, and measure how long each message takes."""
    import redis

    from tests.websocket_client import RawWebSocket

    raise_limits()
    client = redis.Redis(port=redis_port)
    websockets = [RawWebSocket(url) for _ in range(BYSTANDERS)]
    selector = selectors.EpollSelector()
    for websocket in websockets:
        selector.register(websocket.socket, selectors.EVENT_READ)
    latencies: list[float] = []
    pipe.send(None)
    due = published = time.monotonic()
    while not pipe.poll():
        now = time.monotonic()
        if now >= due:
            due = now + 1 / BYSTANDERS_PER_SECOND
            published = now
            client.publish('broadcast:beside', f'{published}')
        for key, _ in selector.select(max(0.0, due - time.monotonic())):
            key.fileobj.recv(65536)  # type: ignore[union-attr]
            latencies.append(time.monotonic() - published)
    pipe.send(sorted(latencies))


# The scenario


def raise_limits() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def requests_of(server: StandaloneServer, count: int) -> list[bytes]:
    """Return handshakes with a ticket each, and the cookie of its session."""
    from ws4redis.handshake.tokens import ticket_of
    from ws4redis.hub.identity import Identity, digest_of

    requests = []
    for number in range(count):
        session = f'{number:032d}'
        identity = Identity(
            user=f'user-{number}',
            user_id=str(number),
            session=session,
            session_digest=digest_of(session),
            knows_groups=True,
        )
        url = f'{server.ws_url}/ws/connection/websocket?ticket={ticket_of(identity)}'
        headers = {'Cookie': f'sessionid={session}', 'Sec-WebSocket-Protocol': 'centrifuge-json'}
        requests.append(handshake_request(url, headers=headers))
    return requests


def reads_of_histories(client: Any) -> int:
    stats = client.info('commandstats')
    return sum(stats.get(f'cmdstat_{name}', {}).get('calls', 0) for name in ('xrange', 'xrevrange'))


def server_of(redis_server: RedisServer, *options: str, **more: Any) -> StandaloneServer:
    settings = {**SETTINGS, **more}
    return StandaloneServer(*options, redis_server=redis_server, django_settings=settings)


def storm(name: str, count: int) -> None:
    with ExitStack() as stack:
        redis_server = stack.enter_context(RedisServer())
        client = stack.enter_context(redis_server.client())
        server = stack.enter_context(server_of(redis_server, '--workers', '2'))
        # Its websockets answer no pings.
        beside = stack.enter_context(server_of(redis_server, WS4REDIS_PING_INTERVAL=None))
        requests = requests_of(server, count)
        url = f'{beside.ws_url}/ws/beside?subscribe-broadcast'
        ours = start(stack, run_bystanders, url, redis_server.port)
        ours.recv()
        pipes = []
        for place in range(CLIENT_PROCESSES):
            mine = requests[place::CLIENT_PROCESSES]
            pipes.append(start(stack, run_clients, (server.host, server.port), mine))
        began = time.monotonic()
        await_all(pipes)
        print(f'{name}: {count} clients in two processes after {time.monotonic() - began:.1f} s')
        reads = reads_of_histories(client)
        ended = time.monotonic()
        ENDINGS[name](server)
        publish(redis_server)
        reports = await_all(pipes)
        back = sorted(each for report in reports for each in report['back'])
        lost = sorted(each for report in reports for each in report['lost'])
        missed = [each for report in reports for each in report['missed']]
        refused = dict(sum((report['refused'] for report in reports), Counter()))
        cpu = sum(sum(worker.cpu_times()[:2]) for worker in workers_of(server))
        clients_cpu = sum(report['cpu'] for report in reports)
        spread = [len(worker.net_connections('tcp')) for worker in workers_of(server)]
        ours.send(None)
        latencies = ours.recv()
        median, p99 = (latencies[int(len(latencies) * part)] * 1e3 for part in (0.5, 0.99))
        tell(
            {
                f's from the {name} to the last one back': back[-1] - ended,
                's from the first to the last one back': back[-1] - back[0],
                'clients that got all that they missed': missed.count(MISSED * len(CHANNELS)),
                'reads of histories': reads_of_histories(client) - reads,
                'µs of CPU of the new processes for a client': cpu / count * 1e6,
                'p99 beside, ms': p99,
            }
        )
        print(
            f'  lost within {lost[-1] - ended:.2f} s; first back after {back[0] - ended:.2f} s, '
            f'last after {back[-1] - ended:.2f} s ({back[-1] - back[0]:.2f} s from first to last)\n'
            f'  {len(back)} came back, refused {refused}, '
            f'{missed.count(MISSED * len(CHANNELS))} got all that they missed\n'
            f'  {reads_of_histories(client) - reads} reads of histories, no database\n'
            f'  {cpu:.1f} s of CPU in the new processes ({cpu / count * 1e6:.0f} µs a client), '
            f'connections {spread}; {clients_cpu:.1f} s in the clients, whose cores they share\n'
            f'  beside: {len(latencies)} messages, median {median:.1f} ms, p99 {p99:.1f} ms, '
            f'at most {latencies[-1] * 1e3:.1f} ms',
            flush=True,
        )


def publish(redis_server: RedisServer) -> None:
    """Publish what the clients miss."""
    from django.test import override_settings

    from ws4redis.publisher import RedisPublisher

    facilities = SETTINGS['WS4REDIS_FACILITIES']
    connection = {'port': redis_server.port}
    with override_settings(WS4REDIS_CONNECTION=connection, WS4REDIS_FACILITIES=facilities):
        for channel in CHANNELS:
            publisher = RedisPublisher(facility=channel, broadcast=True)
            for number in range(MISSED):
                publisher.publish_message(str(number))


def start(stack: ExitStack, function: Callable[..., object], *arguments: Any) -> Connection:
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context('fork')
    process = context.Process(target=function, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    stack.callback(process.kill)
    return ours


def await_all(pipes: list[Connection]) -> list[dict[str, Any]]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    reports = []
    for pipe in pipes:
        if not pipe.poll(max(0.0, deadline - time.monotonic())):
            raise SystemExit(f'not all clients were back within {PATIENCE_SECONDS:g} seconds')
        reports.append(pipe.recv())
    return reports


def main() -> None:
    """Run the storms that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--clients', type=int, default=20_000)
    parser.add_argument('names', nargs='*', choices=[*ENDINGS, []], default=list(ENDINGS))
    options = parser.parse_args()
    raise_limits()
    django.setup()
    for name in options.names or ENDINGS:
        storm(name, options.clients)


if __name__ == '__main__':
    main()
