"""The channels that an assertion is about."""

from __future__ import annotations

from typing import Any, TypedDict

from ws4redis.publishing.publisher import RedisPublisher


class Audience(TypedDict, total=False):
    """The audience, as ``RedisPublisher`` takes it."""

    broadcast: bool
    groups: list[Any] | tuple[Any, ...]
    users: list[Any] | tuple[Any, ...]
    sessions: list[Any] | tuple[Any, ...]


def channels_of(facility: str, audience: Audience) -> set[str]:
    """Return the names of the channels of an audience, prefix included."""
    channels = {str(name) for name in RedisPublisher(facility=facility, **audience)._publishers}
    assert channels, 'An audience is missing: broadcast, groups, users or sessions.'
    return channels
