"""Who looks at the live page: users, each under a key that expires.

All keys hash to the slot of the snapshots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

import redis

from ws4redis.broker.publication import Command
from ws4redis.broker.snapshots import index_key

#: For so long a user is told what goes on since the page was asked for it.
WATCH_SECONDS: Final = 90


def _watchers_key() -> str:
    return f'{index_key()}:watchers'


def _watcher_key(user: str) -> str:
    return f'{_watchers_key()}:{user}'


def watchers_command() -> Command:
    """Return the command that finds who may be watching."""
    return (b'SMEMBERS', _watchers_key().encode())


def watch(client: redis.Redis, user: str) -> None:
    """Let a user be told what goes on for a while; raise redis-py's errors."""
    client.set(_watcher_key(user), '1', ex=WATCH_SECONDS)
    client.sadd(_watchers_key(), user)
    client.expire(_watchers_key(), WATCH_SECONDS)


def read_watchers(client: redis.Redis) -> list[str]:
    """Return who watches, and forget who does no more; raise redis-py's errors."""
    members = cast('set[bytes]', client.smembers(_watchers_key()))
    users = sorted(name.decode(errors='surrogateescape') for name in members)
    if not users:
        return []
    marks = cast('Sequence[bytes | None]', client.mget([_watcher_key(user) for user in users]))
    if gone := [user for user, mark in zip(users, marks, strict=True) if mark is None]:
        client.srem(_watchers_key(), *gone)
    return [user for user, mark in zip(users, marks, strict=True) if mark is not None]


def take_turn(client: redis.Redis, process: str, seconds: float) -> bool:
    """Tell whether it is up to this process to tell them; then no other does for some seconds."""
    key = f'{index_key()}:turn'
    return bool(client.set(key, process, nx=True, px=max(1, int(seconds * 1000))))
