"""The kernel's queue of connections that wait to be accepted."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

# Of a socket that listens, tcpi_unacked says how many wait, and tcpi_sacked how many may (Linux,
# tcp_get_info): the fifth and sixth numbers behind eight bytes.
_WAITING_AND_LIMIT = struct.Struct('=24x2I')
_TCP_INFO: int | None = getattr(socket, 'TCP_INFO', None) if sys.platform == 'linux' else None


def is_half_full(listener: Any) -> bool:
    """Tell whether a TCP socket's queue is half full; False where the platform does not tell."""
    if _TCP_INFO is None or listener.family == socket.AF_UNIX:
        return False
    info = listener.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _WAITING_AND_LIMIT.size)
    waiting, limit = _WAITING_AND_LIMIT.unpack(info)
    return bool(waiting * 2 >= limit)
