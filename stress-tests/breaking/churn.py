"""Open and end websockets in every way there is, thousands of times, and look for what is left."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.faults.observed import ObservedServer
from tests.programs import RedisServer
from tests.timeouts import wait_until
from tests.websocket_client import CLOSE, PING, TEXT, close_payload, encode_frame, handshake_request

AT_ONCE = 50
ANSWER_SECONDS = 20
_RESET = struct.pack('ii', 1, 0)
_KEY = 'dGhlIHNhbXBsZSBub25jZQ=='

End = Callable[[socket.socket], None]


def close_cleanly(sock: socket.socket) -> None:
    """Close as a browser does."""
    sock.sendall(encode_frame(CLOSE, close_payload(1000)))
    while sock.recv(65536):
        pass


def vanish(sock: socket.socket) -> None:
    """End the TCP connection without a close frame."""


def reset(sock: socket.socket) -> None:
    """Crash."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def half_close(sock: socket.socket) -> None:
    """Send a close frame, then no more, but read on."""
    sock.sendall(encode_frame(CLOSE, close_payload(1001)))
    sock.shutdown(socket.SHUT_WR)
    while sock.recv(65536):
        pass


def violate(sock: socket.socket) -> None:
    """Send what is no frame, and leave when the server has had enough."""
    sock.sendall(b'\xff' * 64)
    while sock.recv(65536):
        pass


def send_and_reset(sock: socket.socket) -> None:
    """Send messages, a ping and half a frame, then crash."""
    frames = encode_frame(TEXT, b'x' * 50) * 3 + encode_frame(PING, b'y')
    sock.sendall(frames + encode_frame(TEXT, b'z' * 200)[:100])
    reset(sock)


ENDS: list[End] = [close_cleanly, vanish, reset, half_close, violate, send_and_reset]


@dataclass
class Footprint:
    """What a worker holds."""

    descriptors: int
    channels: int
    subscriptions: int
    websocket_objects: int
    objects: int
    timers: int
    places: int
    rss_bytes: int


@dataclass
class Churn:
    """Connections that came and went."""

    connections: int = 0
    refused: int = 0
    by_end: dict[str, int] = field(default_factory=dict)


def churn(server: ObservedServer, count: int, counted: Churn, chance: random.Random) -> None:
    """Open and end ``count`` connections; a tenth of them never become websockets."""
    for first in range(0, count, AT_ONCE):
        batch = min(AT_ONCE, count - first)
        sockets = [socket.create_connection((server.host, server.port)) for _ in range(batch)]
        waiting: list[tuple[socket.socket, End]] = []
        for number, sock in enumerate(sockets):
            sock.settimeout(ANSWER_SECONDS)
            counted.connections += 1
            kind = chance.random()
            request = _request(server, first + number)
            if kind < 0.05:
                # Half of a handshake, then nothing or a reset.
                sock.sendall(request[: chance.randrange(1, len(request) - 1)])
                if chance.random() < 0.5:
                    reset(sock)
                sock.close()
                counted.refused += 1
            elif kind < 0.1:
                sock.sendall(
                    request.replace(b'Sec-WebSocket-Version: 13', b'Sec-WebSocket-Version: 1')
                )
                waiting.append((sock, vanish))
                counted.refused += 1
            elif kind < 0.12:
                # The whole handshake, and away before it is answered.
                sock.sendall(request)
                reset(sock)
                sock.close()
                counted.refused += 1
            else:
                sock.sendall(request)
                waiting.append((sock, chance.choice(ENDS)))
        for sock, end in waiting:
            counted.by_end[end.__name__] = counted.by_end.get(end.__name__, 0) + 1
            try:
                sock.recv(65536)
                end(sock)
            except ConnectionError:
                pass
            finally:
                sock.close()


def _request(server: ObservedServer, number: int) -> bytes:
    # Every fifth connection has a channel of its own.
    facility = f'own{number}' if number % 5 == 0 else 'shared'
    url = server.url_of(facility, 'subscribe-broadcast&publish-broadcast')
    return handshake_request(url, key=_KEY)


def footprint(server: ObservedServer, redis_server: RedisServer) -> Footprint:
    """Return what the worker holds, when what is under way has ended."""
    wait_until(
        lambda: not server.statistics().get('open') and not server.statistics().get('channels'),
        timeout=30,
        message='websockets or channels are left',
    )
    time.sleep(0.2)
    seen: dict[str, Any] = server.observe(with_objects=True)
    with redis_server.client() as client:
        # But for the control channel, to which each process listens for itself.
        subscriptions = len(set(client.pubsub_channels()) - {b'ws4redis:control'})
    return Footprint(
        descriptors=seen['descriptors'],
        channels=seen['statistics'].get('channels', 0),
        subscriptions=subscriptions,
        websocket_objects=seen['websocket_objects'],
        objects=seen['objects'],
        timers=seen['timers'],
        places=seen['places'],
        rss_bytes=seen['rss_bytes'],
    )


def slow_readers(server: ObservedServer, redis_server: RedisServer, count: int) -> None:
    """Open websockets that do not read while messages come, until they are closed or crash."""
    sockets = []
    for number in range(count):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((server.host, server.port))
        sock.settimeout(ANSWER_SECONDS)
        sock.sendall(handshake_request(server.url_of('slow'), key=_KEY))
        sock.recv(1024)
        sockets.append((number, sock))
    with redis_server.client() as client:
        for _ in range(60):
            client.publish('broadcast:slow', b'x' * 100_000)
    for number, sock in sockets:
        if number % 2:
            reset(sock)
        sock.close()
