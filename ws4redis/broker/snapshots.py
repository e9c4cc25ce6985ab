"""What each process tells the others: a snapshot under a key that expires.

A process that dies without a word is forgotten with its key. A set names the processes, so that
nobody has to search the keys of a whole Redis; who finds a name without a snapshot takes it out.
All keys hash to one slot.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from typing import Any, cast

import redis

from ws4redis.broker.publication import Command
from ws4redis.conf import conf

#: How many intervals a snapshot may be missing before its process counts as dead.
MISSED_SNAPSHOTS = 3
INDEX_SECONDS = 24 * 3600

Snapshot = dict[str, Any]


def name_of_process() -> str:
    """Return a name for this process that no other has had."""
    return f'{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}'


def index_key() -> str:
    return f'{conf.key_prefix}ws4redis:{{processes}}'


def snapshot_key(process: str) -> str:
    return f'{index_key()}:{process}'


def probe_channel(process: str) -> str:
    """Return the channel on which a process measures how long a publication takes."""
    return f'{snapshot_key(process)}:probe'


def snapshot_commands(process: str, snapshot: Mapping[str, Any], seconds: float) -> list[Command]:
    """Return the commands that tell a snapshot, the next of which comes in some seconds."""
    value = json.dumps(snapshot, separators=(',', ':')).encode()
    expire_ms = str(int(seconds * MISSED_SNAPSHOTS * 1000)).encode()
    index = index_key().encode()
    return [
        (b'SET', snapshot_key(process).encode(), value, b'PX', expire_ms),
        (b'SADD', index, process.encode()),
        (b'EXPIRE', index, str(INDEX_SECONDS).encode()),
    ]


def goodbye_commands(process: str) -> list[Command]:
    """Return the commands that take a process back that ends."""
    return [
        (b'DEL', snapshot_key(process).encode()),
        (b'SREM', index_key().encode(), process.encode()),
    ]


def read_snapshots(client: redis.Redis) -> list[Snapshot]:
    """Return the snapshots of all processes that live, by name; two round trips, or three.

    Raise redis-py's errors. What is no snapshot of ours is left out.
    """
    index = index_key()
    names = sorted(name.decode() for name in cast('set[bytes]', client.smembers(index)))
    if not names:
        return []
    values = cast('Sequence[bytes | None]', client.mget([snapshot_key(name) for name in names]))
    found = [(name, value) for name, value in zip(names, values, strict=True) if value is not None]
    if gone := [name for name, value in zip(names, values, strict=True) if value is None]:
        client.srem(index, *gone)
    return [snapshot for name, value in found if (snapshot := _parsed(name, value)) is not None]


def _parsed(name: str, value: bytes) -> Snapshot | None:
    try:
        snapshot = json.loads(value)
    except ValueError:
        return None
    if not isinstance(snapshot, dict) or not isinstance(snapshot.get('statistics'), dict):
        return None
    return {**snapshot, 'process': name}
