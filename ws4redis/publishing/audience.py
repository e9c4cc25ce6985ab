"""Whose channels are meant, where something is read rather than published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from ws4redis.publishing.store import RedisStore

if TYPE_CHECKING:
    from django.http import HttpRequest


class AudienceOptions(TypedDict, total=False):
    """Whose channels are meant, as for ``RedisPublisher``; without any, those of the broadcast."""

    broadcast: bool
    users: list[Any] | tuple[Any, ...]
    groups: list[Any] | tuple[Any, ...]
    sessions: list[Any] | tuple[Any, ...]
    request: HttpRequest | None


def channels_of(facility: str, audience: AudienceOptions) -> list[str]:
    """Return the full names of an audience's channels. May block, for ``SELF``.

    Raise ``ValueError`` as ``RedisPublisher`` does.
    """
    options: Mapping[str, Any] = {**audience}
    if not any(options.get(name) for name in ('broadcast', 'users', 'groups', 'sessions')):
        options = {**options, 'broadcast': True}
    return RedisStore()._get_message_channels(facility=facility, **options)
