"""What the supervisor tells the processes that it starts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Self

THREADED = 'threaded'
GEVENT = 'gevent'
MULTIPROCESS = 'multiprocess'

DEFAULT_PUSH_SOCKET = 'ws_push'
DEFAULT_SUB_SOCKET = 'ws_sub'


@dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """Options of a process that serves, runs handlers, or shows the metrics (``role``)."""

    role: str = 'server'
    mode: str = THREADED
    websocket_url: str = '/socket'
    certfile: str | None = None
    keyfile: str | None = None
    push_socket: str = DEFAULT_PUSH_SOCKET
    sub_socket: str = DEFAULT_SUB_SOCKET
    proxy_protocol: bool = False
    log_requests: bool = False
    listener: int = -1
    lifeline: int = -1
    ready: int = -1

    def to_json(self) -> str:
        """Return the options as one argument of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what :meth:`to_json` wrote."""
        return cls(**json.loads(text))
