"""The names of what belongs to a channel in Redis, beside its plain name.

All of them hash to the slot of the plain name, so that a script may use them together in a Cluster
(Redis Cluster specification, "Hash tags").
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

from redis.crc import key_slot

SLOTS = 16384


class ChannelKeys(NamedTuple):
    """Keys and channels of one channel; ``plain`` is its name, and the key of the kept message."""

    plain: bytes
    stream: bytes
    position: bytes
    events: bytes
    once: bytes
    members: bytes
    holders: bytes
    presence: bytes


@lru_cache(maxsize=4096)
def keys_of(channel: bytes, prefix: str = '') -> ChannelKeys:
    """Return the keys of a channel; ``prefix`` is that of the settings, with its colon.

    An idempotency key is appended to ``once``.
    """
    befores = _befores(prefix)
    if channel and b'{' not in channel and b'}' not in channel and '{' not in prefix:
        # What is in the braces is all that counts.
        tag = b'{' + channel + b'}'
        return ChannelKeys(channel, *[before + tag for before in befores])
    return ChannelKeys(channel, *[_beside(channel, before) for before in befores])


@lru_cache(maxsize=16)
def _befores(prefix: str) -> tuple[bytes, ...]:
    return tuple(f'{prefix}ws4redis:{kind}:'.encode() for kind in ChannelKeys._fields[1:])


def _beside(channel: bytes, before: bytes) -> bytes:
    tagged = before + b'{' + channel + b'}'
    slot = key_slot(channel)
    # A name that holds braces may have a hash tag of its own, or break the one around it.
    for name in (tagged, before + channel):
        if key_slot(name) == slot:
            return name
    return b'{' + _tag_of(slot) + b'}' + before + channel


@cache
def _tags() -> dict[int, bytes]:
    tags: dict[int, bytes] = {}
    number = 0
    while len(tags) < SLOTS:
        tag = str(number).encode()
        tags.setdefault(key_slot(tag), tag)
        number += 1
    return tags


def _tag_of(slot: int) -> bytes:
    """Return a short text that hashes to a slot."""
    return _tags()[slot]
