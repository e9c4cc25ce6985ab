"""Find TCP ports that stay free until a server takes them.

Binding port 0 and closing the socket again is not enough: before the server starts, the kernel may
give that port to one of the thousands of outgoing connections of another test. So ports are taken
from below the range of outgoing connections, and each is reserved, against other test runs on this
machine too, by an abstract Unix socket, which vanishes with its process.
"""

from __future__ import annotations

import random
import socket
import sys
from pathlib import Path

_LOWEST = 15000
_reservations: list[socket.socket] = []


def _highest() -> int:
    try:
        outgoing = Path('/proc/sys/net/ipv4/ip_local_port_range').read_text(encoding='ascii')
        return min(int(outgoing.split()[0]), 32768)
    except (OSError, ValueError):
        return 32768


def _reserve(port: int) -> bool:
    if not sys.platform.startswith('linux'):
        return True
    reservation = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        reservation.bind(f'\0ws4redis-test-port-{port}')
    except OSError:
        reservation.close()
        return False
    _reservations.append(reservation)
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: connections in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(('127.0.0.1', port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a TCP port of the loopback that stays ours as long as this process lives."""
    ports = range(_LOWEST, _highest())
    if len(ports) < 1000:
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            return int(probe.getsockname()[1])
    for port in random.sample(ports, 200):
        if _reserve(port):
            if _is_free(port):
                return port
            _reservations.pop().close()
    raise RuntimeError('found no free port')
