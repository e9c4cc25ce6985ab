"""Floods: what clients may send that costs a server much. Each runs in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.faults.observed import ObservedServer
from tests.websocket_client import (
    BINARY,
    CONTINUATION,
    PING,
    TEXT,
    ConnectionEnded,
    RawWebSocket,
    encode_frame,
    handshake_request,
    new_key,
)

CLIENTS = 20
SUBSCRIBERS = 50
STALLED = 300
MEBIBYTE = 1024 * 1024

Attack = Callable[[ObservedServer], None]


@contextmanager
def flood(server: ObservedServer, attack: Attack) -> Iterator[None]:
    """Let another process attack the server."""
    process = multiprocessing.get_context('fork').Process(target=attack, args=(server,))
    process.daemon = True
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def malformed_extensions(server: ObservedServer) -> None:
    """Ask for extensions that end in a bare line feed, one handshake after another."""
    request = handshake_request(server.url_of('attacked'), key=new_key())
    request = request.replace(b'\r\n\r\n', b'\r\nSec-WebSocket-Extensions: \n\r\n\r\n')
    while True:
        with suppress(OSError), socket.create_connection((server.host, server.port), 2) as sock:
            sock.sendall(request)
            sock.recv(4096)


def empty_messages(server: ObservedServer) -> None:
    """Publish empty messages, of which one read holds ten thousand."""
    _send(server, encode_frame(TEXT, b'') * 10_000)


def pings(server: ObservedServer) -> None:
    """Send pings."""
    _send(server, encode_frame(PING, b'') * 10_000)


def empty_fragments(server: ObservedServer) -> None:
    """Send messages in very many pieces, over and over."""
    pieces = encode_frame(CONTINUATION, b'', fin=False) * 10_000
    _send(server, encode_frame(TEXT, b'', fin=False) + pieces + encode_frame(CONTINUATION, b''))


def large_messages(server: ObservedServer) -> None:
    """Publish the largest messages there may be to many who read."""
    url = server.url_of('attacked')
    readers = [RawWebSocket(url) for _ in range(SUBSCRIBERS)]
    message = encode_frame(BINARY, os.urandom(MEBIBYTE - 100))
    _send(server, message, clients=1, reading=[reader.socket for reader in readers])


def stalled_subscribers(server: ObservedServer) -> None:
    """Publish to very many who do not read."""
    stalled = [RawWebSocket(server.url_of('attacked')) for _ in range(STALLED)]
    _send(server, encode_frame(BINARY, os.urandom(60_000)), clients=4)
    del stalled


def many_facilities(server: ObservedServer) -> None:
    """Let Redis keep messages on more and more facilities with long names."""
    number = 0
    while True:
        number += 1
        with suppress(OSError, ConnectionEnded):
            websocket = RawWebSocket(server.url_of(f'{"x" * 500}{number}', 'publish-broadcast'))
            websocket.send(b'x' * 100_000)
            websocket.socket.close()


def _send(
    server: ObservedServer,
    data: bytes,
    *,
    clients: int = CLIENTS,
    reading: list[socket.socket] | None = None,
) -> None:
    """Send the same data without end from some clients, reading all that comes."""
    url = server.url_of('attacked', 'publish-broadcast')
    senders = {RawWebSocket(url).socket: memoryview(data) for _ in range(clients)}
    sockets = [*senders, *(reading or ())]
    for sock in sockets:
        sock.setblocking(False)
    while senders:
        readable, writable, _ = select.select(sockets, list(senders), [])
        for sock in writable:
            try:
                rest = senders[sock][sock.send(senders[sock]) :]
                senders[sock] = rest or memoryview(data)
            except BlockingIOError:
                pass
            except OSError:
                del senders[sock]
        for sock in readable:
            try:
                is_over = not sock.recv(MEBIBYTE)
            except BlockingIOError:
                continue
            except OSError:
                is_over = True
            if is_over:
                sockets.remove(sock)
                senders.pop(sock, None)


FLOODS: dict[str, Attack] = {
    'malformed extensions': malformed_extensions,
    'empty messages': empty_messages,
    'empty fragments': empty_fragments,
    'pings': pings,
    'messages of 1 MiB': large_messages,
    'subscribers that do not read': stalled_subscribers,
    'messages to keep': many_facilities,
}
