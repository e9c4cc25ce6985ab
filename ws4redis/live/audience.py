"""Whom live things are shown to: everybody, unless somebody is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from ws4redis.publishing.publisher import RedisPublisher

if TYPE_CHECKING:
    from django.http import HttpRequest


class To(TypedDict, total=False):
    """An audience as ``RedisPublisher`` takes it; none means the broadcast."""

    broadcast: bool
    groups: list[Any] | tuple[Any, ...]
    users: list[Any] | tuple[Any, ...]
    sessions: list[Any] | tuple[Any, ...]
    request: HttpRequest | None


def publisher_to(facility: Any, audience: To) -> RedisPublisher:
    """Return a publisher for an audience; without one it is everybody.

    An empty list of users is an audience, of nobody: what was meant for few never goes to all.
    """
    if not isinstance(facility, str) or not facility:
        raise ValueError(f'facility must be a string that is not empty, not {facility!r}')
    named = {'broadcast', 'groups', 'users', 'sessions'} & audience.keys()
    chosen: To = audience if named else {**audience, 'broadcast': True}
    return RedisPublisher(facility=facility, **chosen)
