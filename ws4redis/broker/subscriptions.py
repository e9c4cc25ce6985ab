"""Which channels somebody is subscribed to, as Redis knows it; all of it blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import redis

from ws4redis.broker.connections import get_cluster
from ws4redis.broker.publication import Command


def subscribed_channels(client: redis.Redis, pattern: str) -> list[str]:
    """Return the channels with subscribers whose names match, in their order."""
    found: set[bytes] = set()
    for reply in _ask(client, 'CHANNELS', pattern):
        found.update(reply)
    return sorted(name.decode(errors='surrogateescape') for name in found)


def numbers_of_subscribers(client: redis.Redis, channels: Sequence[str]) -> dict[str, int]:
    """Return how many connections are subscribed to each of some channels."""
    numbers: Counter[str] = Counter(dict.fromkeys(channels, 0))
    if channels:
        names = [channel.encode(errors='surrogateescape') for channel in channels]
        for reply in _ask(client, 'NUMSUB', *names):
            # Names and numbers take turns.
            for channel, number in zip(channels, reply[1::2], strict=True):
                numbers[channel] += int(number)
    return dict(numbers)


def _ask(client: redis.Redis, what: str, *arguments: str | bytes) -> list[Any]:
    """Return the reply of Redis; in a Cluster, where subscriptions are sharded, of each master."""
    cluster = get_cluster()
    if cluster is not None:
        command: Command = (b'PUBSUB', f'SHARD{what}', *arguments)
        return cluster.execute_on_masters(command)
    # Bytes are the name of no command that redis-py knows, and would parse.
    reply = client.execute_command(b'PUBSUB', what, *arguments)  # type: ignore[no-untyped-call]
    return [reply]
