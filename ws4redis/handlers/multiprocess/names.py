"""The names of the keys in Redis."""

from __future__ import annotations

import os
import re
import secrets
import socket
from dataclasses import dataclass

from ws4redis.conf import conf

# How long a worker is thought alive without a sign of life, and how often it gives one.
ALIVE_MS = 3500
ALIVE_INTERVAL_SECONDS = 0.7
# The streams of servers and workers that vanish without a word vanish after this.
SERVER_STREAM_MS = 6000
WORKER_STREAM_MS = 60000


def new_id() -> str:
    """Return an identifier of this process that tells an administrator which one it is."""
    host = re.sub(r'[^\w.-]', '_', socket.gethostname())
    return f'{host}.{os.getpid()}.{secrets.token_hex(3)}'


@dataclass(frozen=True)
class KeyNames:
    """The keys of one pair of ``--push-socket`` and ``--sub-socket``."""

    push: str = 'ws_push'
    sub: str = 'ws_sub'

    def _key(self, *parts: str) -> str:
        prefix = conf.WS4REDIS_PREFIX
        return ':'.join((prefix, *parts) if prefix else parts)

    @property
    def workers(self) -> str:
        """Name the set of workers, dead ones among them for a while."""
        return self._key(self.push, 'workers')

    def alive(self, worker: str) -> str:
        """Name the sign of life of a worker; its value is the number of its websockets."""
        return self._key(self.push, 'alive', worker)

    def events(self, worker: str) -> str:
        """Name the stream of events for a worker; the group that reads it has the same name."""
        return self._key(self.push, 'events', worker)

    def answers(self, server: str) -> str:
        """Name the stream of answers for a server."""
        return self._key(self.sub, server)
