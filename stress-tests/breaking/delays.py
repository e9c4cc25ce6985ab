"""What one stalled client, slow callback or flood of handshakes costs everybody else."""

from __future__ import annotations

import multiprocessing
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from breaking.listeners import Listeners, percentile
from breaking.restarts import Publisher
from tests.faults.observed import ObservedServer
from tests.programs import RedisServer
from tests.websocket_client import RawWebSocket, handshake_request, new_key

LISTENERS = 50
RATE = 40
# A round is some time without and some time with the disturbance. Whatever else the machine does
# falls into some rounds only, hence the median of the rounds.
ROUNDS = 5
FLOOD_CONNECTIONS = 200


@dataclass
class Delay:
    """The delay of messages while something was wrong, compared with before."""

    what: str
    rounds: list[tuple[float, float]]

    @property
    def added(self) -> float:
        """What was added at the 99th percentile, in seconds: the median of the rounds."""
        return max(0.0, median(during - before for before, during in self.rounds))

    @property
    def before(self) -> float:
        """The delay at the 99th percentile without the disturbance."""
        return median(before for before, _ in self.rounds)

    @property
    def during(self) -> float:
        """The delay at the 99th percentile with the disturbance."""
        return median(during for _, during in self.rounds)


def measure_delays(*, seconds: float, mode: dict[str, Any]) -> list[Delay]:
    """Measure under each disturbance for some seconds."""
    settings = {
        'WS4REDIS_PROCESS_REQUEST': 'tests.faults.callbacks.sleep_two_seconds',
        'WS4REDIS_WORKER_THREADS': 16,
    }
    delays = []
    disturbances: dict[str, Callable[[ObservedServer], Any]] = {
        'one stalled client': stalled_client,
        '2-second callbacks': slow_callbacks,
        '2-second callbacks that compute': busy_callbacks,
        'a flood of handshakes': flood,
    }
    with RedisServer() as redis_server, ObservedServer(redis_server, settings, **mode) as server:
        url = server.url_of('measured', 'subscribe-broadcast&quick')
        listeners = Listeners([url] * LISTENERS)
        server.wait_for_bus()
        publisher = Publisher(redis_server, 'broadcast:measured', rate=RATE)
        try:
            for what, disturbance in disturbances.items():
                rounds = []
                for _ in range(ROUNDS):
                    before = _measure(listeners, seconds)
                    with disturbance(server):
                        during = _measure(listeners, seconds)
                    rounds.append((percentile(before, 0.99), percentile(during, 0.99)))
                delays.append(Delay(what, rounds))
        finally:
            publisher.stop()
            listeners.close()
    return delays


def _measure(listeners: Listeners, seconds: float) -> list[float]:
    time.sleep(0.3)
    listeners.take_delays()
    time.sleep(seconds)
    return listeners.take_delays()


@contextmanager
def stalled_client(server: ObservedServer) -> Iterator[None]:
    """Do not read, while more is published than its socket takes and its queue may hold."""
    with RawWebSocket(server.url_of('stalled', 'subscribe-broadcast&quick')) as stalled:
        stop = threading.Event()

        def publish() -> None:
            assert server.redis_server is not None
            with server.redis_server.client() as client:
                while not stop.is_set():
                    client.publish('broadcast:stalled', b'x' * 50_000)
                    time.sleep(0.01)

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        stalled.reset()


@contextmanager
def slow_callbacks(server: ObservedServer) -> Iterator[None]:
    """Open websockets whose callback sleeps: more of them than there are threads."""
    with _connections(server, handshake_request(server.url_of('slow'), key=new_key()), 40):
        yield


@contextmanager
def busy_callbacks(server: ObservedServer) -> Iterator[None]:
    """Open a websocket whose callback needs the processor, and Python's lock, all the time."""
    url = server.url_of('slow', 'subscribe-broadcast&busy')
    with _connections(server, handshake_request(url, key=new_key()), 1):
        yield


@contextmanager
def _connections(server: ObservedServer, request: bytes, count: int) -> Iterator[None]:
    sockets = [socket.create_connection((server.host, server.port)) for _ in range(count)]
    try:
        for sock in sockets:
            sock.sendall(request)
        yield
    finally:
        for sock in sockets:
            sock.close()


@contextmanager
def flood(server: ObservedServer) -> Iterator[None]:
    """Open and close websockets as fast as the server takes them, from another process."""
    context = multiprocessing.get_context('fork')
    process = context.Process(
        target=_flood,
        args=(server.host, server.port, server.url_of('flood', 'subscribe-broadcast&quick')),
        daemon=True,
    )
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _flood(host: str, port: int, url: str) -> None:
    request = handshake_request(url, key=new_key())
    while True:
        sockets = [socket.create_connection((host, port)) for _ in range(FLOOD_CONNECTIONS)]
        for sock in sockets:
            sock.sendall(request)
        for sock in sockets:
            sock.recv(4096)
            sock.close()
