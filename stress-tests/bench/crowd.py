"""A hundred thousand websockets: several servers, each with a load client in its own process."""

import contextlib
import multiprocessing
import statistics
import time
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from .contenders import Contender, Setup
from .frames import upgrade_request
from .processes import ServerProcess
from .publishers import timed_message
from .stage import Theatre, Wrong
from .swarm import HandshakeRefused, Swarm, Tally

SERVERS = 6
MESSAGES = 5
WARM_UP_WEBSOCKETS = 20
OPEN_SECONDS = 120.0
REACH_SECONDS = 60.0
# Beyond what an answer itself may take.
ANSWER_SECONDS = 10.0


class LoadClient:
    """Websockets to one server, in a process of their own.

    Args:
        port: of the server.
        path: path and query of the websockets' URL.
        count: number of websockets.
        source: of which network in 127.0.0.0/8 they come.
    """

    def __init__(self, port: int, path: str, count: int, source: int) -> None:
        self.count = count
        self._connection, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context('fork').Process(
            target=_hold, args=(theirs, port, path, count, source), daemon=True
        )
        self._process.start()
        theirs.close()

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._connection.send(None)
        self._process.join(ANSWER_SECONDS)
        self._process.kill()
        self._connection.close()

    def opened(self) -> None:
        """Wait until all websockets are open.

        Raises:
            Wrong: some are not.
        """
        opened = self._answer(OPEN_SECONDS)
        if isinstance(opened, str):
            raise Wrong(opened)
        if opened != self.count:
            raise Wrong(f'only {opened} of {self.count} websockets opened in time')

    def expect(self, messages: int) -> None:
        """Begin to receive so many messages on each websocket, counted from the first one on."""
        self._connection.send(messages)

    def reached_ns(self, messages: int) -> int:
        """Return when the last of them arrived.

        Raises:
            Wrong: some did not.
        """
        received, last_ns, lost = self._answer(REACH_SECONDS)
        if lost:
            raise Wrong(f'a server closed {lost} websockets')
        if received != messages * self.count:
            raise Wrong(f'{received} messages instead of {messages * self.count}')
        return int(last_ns)

    def _answer(self, seconds: float) -> Any:
        if not self._connection.poll(seconds + ANSWER_SECONDS):
            raise Wrong(f'a load client has not answered within {seconds:g} seconds')
        try:
            return self._connection.recv()
        except EOFError:
            raise Wrong('a load client has ended; its traceback is above') from None


def _hold(connection: Connection, port: int, path: str, count: int, source: int) -> None:
    swarm = Swarm(('127.0.0.1', port), source=source)
    request = upgrade_request(path, host=f'127.0.0.1:{port}')
    try:
        opening = swarm.open([request] * count, limit_seconds=OPEN_SECONDS)
    except HandshakeRefused as exc:
        connection.send(str(exc))
        return
    connection.send(opening.opened)
    while True:
        # Pings are answered meanwhile.
        while not connection.poll():
            swarm.turn(0.05)
        messages = connection.recv()
        if messages is None:
            return
        reached = partial(_has_received, swarm.tally, messages * count)
        swarm.run(reached, limit_seconds=REACH_SECONDS)
        connection.send((swarm.tally.messages, swarm.tally.last_ns, swarm.lost))


def _has_received(tally: Tally, messages: int) -> bool:
    return tally.messages >= messages


def crowd(theatre: Theatre, contender: Contender, *, websockets: int) -> dict[str, float]:
    """Publish single messages to very many websockets, which several servers hold.

    They have histories where the contender does.
    """
    histories = contender.features.histories
    each = websockets // SERVERS
    theatre.redis.forget()
    with contextlib.ExitStack() as exits:
        servers = []
        for number in range(SERVERS):
            directory = theatre.directory / f'crowd-{number}'
            directory.mkdir(exist_ok=True)
            setup = Setup(theatre.redis, directory, histories=histories)
            servers.append(contender.start(setup))
            exits.callback(servers[-1].stop)
        for server in servers:
            server.wait_until_ready()
            _warm_up(server, contender.path('bench', 'subscribe-broadcast'))
        before = _private_bytes(servers)
        started = time.monotonic()
        clients = []
        for number, server in enumerate(servers):
            assert server.port is not None
            path = contender.path('bench', 'subscribe-broadcast')
            clients.append(LoadClient(server.port, path, each, source=number + 1))
            exits.callback(clients[-1].close)
        for client in clients:
            client.opened()
        opened_seconds = time.monotonic() - started
        spent = _cpu_seconds(servers)
        # It has no websockets; the publisher writes from its loop.
        loop = Swarm(('127.0.0.1', 0))
        exits.callback(loop.close)
        publisher = contender.publisher(loop, setup, servers[0])
        exits.callback(publisher.close)
        reached = []
        for number in range(1, MESSAGES + 1):
            for client in clients:
                client.expect(number)
            published_ns = time.monotonic_ns()
            publisher.publish([('bench', timed_message(number))])
            loop.turn(0.1)
            last_ns = max(client.reached_ns(number) for client in clients)
            reached.append((last_ns - published_ns) / 1e9)
        deliveries = MESSAGES * each * SERVERS
        return {
            'reach_seconds': statistics.median(reached),
            'server_cpu_us_per_delivery': (_cpu_seconds(servers) - spent) / deliveries * 1e6,
            'kb_per_websocket': (_private_bytes(servers) - before) / (each * SERVERS) / 1024,
            'opened_seconds': opened_seconds,
            'websockets': each * SERVERS,
        }


def _warm_up(server: ServerProcess, path: str) -> None:
    """Open a few websockets: with the first ones come imports and connections."""
    assert server.port is not None
    swarm = Swarm(('127.0.0.1', server.port))
    request = upgrade_request(path, host=f'127.0.0.1:{server.port}')
    swarm.open([request] * WARM_UP_WEBSOCKETS, limit_seconds=OPEN_SECONDS)
    swarm.close()


def _private_bytes(servers: list[ServerProcess]) -> int:
    return sum(server.private_bytes() for server in servers)


def _cpu_seconds(servers: list[ServerProcess]) -> float:
    return sum(server.cpu_seconds() for server in servers)
