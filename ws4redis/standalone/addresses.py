"""Addresses to listen on, and sockets that do."""

from __future__ import annotations

import errno
import socket
import stat
from dataclasses import dataclass, replace
from pathlib import Path

DEFAULT_HOST = '127.0.0.1'
DEFAULT_PORT = 8888
# The kernel takes no more than net.core.somaxconn of it.
BACKLOG = 65535
LARGEST_PORT = 65535


@dataclass(frozen=True)
class Address:
    """Where to listen: a host and a port, or the path of a Unix socket."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    path: str = ''

    @property
    def family(self) -> socket.AddressFamily:
        if self.path:
            return socket.AF_UNIX
        return socket.AF_INET6 if ':' in self.host else socket.AF_INET

    @property
    def is_local(self) -> bool:
        """Whether no other machine can reach it."""
        return bool(self.path) or self.host == '::1' or self.host.startswith('127.')

    def __str__(self) -> str:
        if self.path:
            return f'unix:{self.path}'
        return f'[{self.host}]:{self.port}' if ':' in self.host else f'{self.host}:{self.port}'

    def url(self, *, tls: bool, port: int = 0) -> str:
        """Return what a user would write; ``port`` replaces a port that the system chose."""
        if self.path:
            return str(self)
        place = replace(self, port=port or self.port)
        return f'{"wss" if tls else "ws"}://{place}/'


def parse_address(text: str) -> Address:
    """Read ``8888``, ``0.0.0.0:8888``, ``[::1]:8888``, ``localhost:8888`` or ``unix:/run/ws.sock``.

    Raise ``ValueError`` with a sentence for the user.
    """
    if text.startswith('unix:'):
        path = text.removeprefix('unix:').removeprefix('//')
        if not path:
            raise ValueError(f'{text!r} names no path: write unix:/run/websockets.sock')
        return Address(host='', port=0, path=path)
    host, _, port = text.rpartition(':')
    if not port.isdecimal() or int(port) > LARGEST_PORT:
        raise ValueError(
            f'{text!r} is no address: write a port, an address and a port as in 0.0.0.0:8888 or '
            '[::1]:8888, or unix:/run/websockets.sock'
        )
    host = host.removeprefix('[').removesuffix(']')
    if host == 'localhost':
        host = DEFAULT_HOST
    return Address(host=host or DEFAULT_HOST, port=int(port))


def listen(address: Address) -> socket.socket:
    """Return a socket that listens; raise ``OSError`` when the address is taken."""
    if address.path:
        _remove_stale(address.path)
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        if address.path:
            sock.bind(address.path)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Connections inherit it. Frames are small and wait for nothing.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
        sock.settimeout(0)
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    """Remove the Unix socket that a server left behind; one that is in use stays."""
    file = Path(path)
    try:
        if not stat.S_ISSOCK(file.stat().st_mode):
            raise OSError(errno.EEXIST, f'{path} exists, and is no socket')
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            file.unlink()
        else:
            raise OSError(errno.EADDRINUSE, 'another server listens there')
