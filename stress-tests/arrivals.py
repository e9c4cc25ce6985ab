"""Clients that open websockets at the least cost that a loop in Python has.

They share the machine with the server that is measured, so what they take it cannot have.
"""

from __future__ import annotations

import errno
import os
import random
import select
import socket
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.swarm import IP_BIND_ADDRESS_NO_PORT

IN_FLIGHT = 64
PATIENCE_SECONDS = 60.0
READ_BYTES = 65536
_NOT_YET = frozenset({errno.EAGAIN, errno.EINPROGRESS, errno.ENOTCONN})


class Greeting(NamedTuple):
    """What a client says once its handshake is answered, and what is answered to that, how often.

    Both are matched as bytes: to parse them would cost more than to send them.
    """

    frame: bytes
    reply: bytes
    replies: int


class Arrival(NamedTuple):
    """How a number of clients came in."""

    sockets: list[socket.socket]
    seconds: float
    client_seconds: float


def some_source() -> str:
    """Return an address that clients come from.

    An address has some 28,000 ports, those of closed connections among them. The last free ones are
    slow to find: then the kernel takes longer for the client than the server does.
    """
    return f'127.{random.randint(1, 254)}.{random.randint(0, 255)}.{random.randint(1, 254)}'


def connect(address: tuple[str, int], source: str) -> socket.socket:
    """Begin a connection; within a host the kernel has most often made it on return."""
    sock = socket.socket()
    sock.setblocking(False)
    # The port is chosen on connecting, when the kernel knows that it need not be unique.
    sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((source, 0))
    error = sock.connect_ex(address)
    if error not in (0, errno.EINPROGRESS):
        raise OSError(error, os.strerror(error))
    return sock


def send_request(sock: socket.socket, request: bytes) -> bool:
    """Send the request of a client; tell whether the connection took it."""
    try:
        sock.send(request)
    except OSError as exc:
        if exc.errno in _NOT_YET:
            return False
        raise
    return True


def arrive(
    address: tuple[str, int], requests: Sequence[bytes], greeting: Greeting | None = None
) -> Arrival:
    """Open a websocket for each request, a window of them at a time.

    Raise ``SystemExit`` when one is refused, or not open in time.
    """
    began, began_cpu = time.monotonic(), time.process_time()
    sockets = list(_opened(address, requests, greeting, began + PATIENCE_SECONDS))
    return Arrival(sockets, time.monotonic() - began, time.process_time() - began_cpu)


def _opened(
    address: tuple[str, int],
    requests: Sequence[bytes],
    greeting: Greeting | None,
    deadline: float,
) -> Iterator[socket.socket]:
    epoll = select.epoll()
    source = some_source()
    unsent: dict[int, tuple[socket.socket, bytes]] = {}
    unanswered: dict[int, socket.socket] = {}
    ungreeted: dict[int, tuple[socket.socket, bytes]] = {}
    coming = iter(requests)
    left = len(requests)
    while left:
        while len(unsent) + len(unanswered) + len(ungreeted) < IN_FLIGHT:
            request = next(coming, None)
            if request is None:
                break
            sock = connect(address, source)
            if send_request(sock, request):
                unanswered[sock.fileno()] = sock
                epoll.register(sock, select.EPOLLIN)
            else:
                unsent[sock.fileno()] = sock, request
                epoll.register(sock, select.EPOLLOUT)
        if time.monotonic() > deadline:
            raise SystemExit(f'{left} websockets did not open in {PATIENCE_SECONDS:g} seconds')
        for fd, _ in epoll.poll(1.0):
            if fd in unsent:
                sock, request = unsent[fd]
                if send_request(sock, request):
                    del unsent[fd]
                    unanswered[fd] = sock
                    epoll.modify(fd, select.EPOLLIN)
                continue
            if fd in unanswered:
                sock = unanswered.pop(fd)
                data = sock.recv(READ_BYTES)
                if not data.startswith(b'HTTP/1.1 101'):
                    raise SystemExit(f'a handshake was refused: {data[:300]!r}')
                if greeting is not None:
                    ungreeted[fd] = sock, b''
                    sock.send(greeting.frame)
                    continue
            else:
                assert greeting is not None
                sock, data = ungreeted[fd]
                data += sock.recv(READ_BYTES)
                if data.count(greeting.reply) < greeting.replies:
                    ungreeted[fd] = sock, data
                    continue
                del ungreeted[fd]
            epoll.unregister(fd)
            left -= 1
            yield sock
    epoll.close()
