"""The names of the keys in Redis."""

from __future__ import annotations

import os
import re
import secrets
import socket
from dataclasses import dataclass

from ws4redis.conf import conf

# How often a worker gives a sign of life.
ALIVE_INTERVAL_SECONDS = 0.7
# What servers and workers that vanish without a word leave behind vanishes after this.
SERVER_STREAM_MS = 6000
WORKER_MS = 60000


def new_id() -> str:
    """Return an identifier of this process that tells an administrator which one it is."""
    host = re.sub(r'[^\w.-]', '_', socket.gethostname())
    return f'{host}.{os.getpid()}.{secrets.token_hex(3)}'


def make_sign(load: int, number: int) -> str:
    """Return a sign of life: how many websockets a worker has, and a number that no other has.

    A worker that is about to stop, and takes no more websockets, says so by a negative load.
    """
    return f'{load} {number}'


def parse_sign(sign: bytes) -> int:
    """Return the load that a sign of life tells."""
    return int(sign.split()[0])


@dataclass(frozen=True)
class KeyNames:
    """The keys of one pair of ``--push-socket`` and ``--sub-socket``."""

    push: str = 'ws_push'
    sub: str = 'ws_sub'

    def _key(self, *parts: str) -> str:
        prefix = conf.WS4REDIS_PREFIX
        if conf.uses_cluster:
            # One pipe and one stream reader lead to one node, so all keys are to be there.
            parts = (f'{{{prefix or "ws4redis"}-handlers}}', *parts)
        return ':'.join((prefix, *parts) if prefix else parts)

    @property
    def workers(self) -> str:
        """Name the hash of workers with their signs of life, dead ones among them for a while."""
        return self._key(self.push, 'workers')

    def events(self, worker: str) -> str:
        """Name the stream of events for a worker; the group that reads it has the same name."""
        return self._key(self.push, 'events', worker)

    def answers(self, server: str) -> str:
        """Name the stream of answers for a server."""
        return self._key(self.sub, server)
