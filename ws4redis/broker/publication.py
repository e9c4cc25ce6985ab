"""The Redis commands that one publication consists of, as plain tuples.

They are built here and nowhere else: the publisher hands them to redis-py, the websocket loop
writes them to a connection of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

Command: TypeAlias = tuple[bytes | str | int, ...]
# Tells whether a message may be kept under a key for some seconds.
MayKeep: TypeAlias = Callable[[bytes, bytes, int], bool]


def publication_commands(
    channels: Iterable[str | bytes],
    message: bytes,
    expire: int | None,
    *,
    may_keep: MayKeep | None = None,
    publish: bytes = b'PUBLISH',
) -> list[Command]:
    """Return the commands that publish a message on some channels, and keep it under each.

    ``expire`` is the number of seconds for which it is kept; None and 0: not kept.

    A message is kept before it is published: whoever subscribes between the two gets it twice
    rather than never. To exclude that too, send the commands as :func:`in_transaction` has them.
    Where ``may_keep`` forbids to keep it, what the key held is dropped: it is out of date.
    ``publish`` is ``SPUBLISH`` in a Cluster.
    """
    commands: list[Command] = []
    for channel in channels:
        key = channel.encode() if isinstance(channel, str) else channel
        if expire and (may_keep is None or may_keep(key, message, expire)):
            commands.append((b'SET', key, message, b'EX', expire))
        elif expire:
            # Only if there is such a key; DEL would be one more right that Redis has to give.
            commands.append((b'SET', key, message, b'PX', 1, b'XX'))
        commands.append((publish, key, message))
    return commands


def in_transaction(commands: Sequence[Command]) -> list[Command]:
    """Return the commands as Redis is to run them with no other in between.

    Every command has one reply; the last, that of ``EXEC``, holds those of the commands proper.
    """
    if len(commands) < 2:
        return list(commands)
    return [(b'MULTI',), *commands, (b'EXEC',)]
