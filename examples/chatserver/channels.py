"""What the browser may do with its websocket."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.http import HttpRequest

FOR_EVERYONE = frozenset({'subscribe-broadcast', 'publish-broadcast'})
FOR_USERS = frozenset({'subscribe-user', 'subscribe-group'})


def allowed_channels(request: HttpRequest, channels: Iterable[str]) -> list[str]:
    """Let everyone use the broadcast, and users listen to what is sent to them.

    Nobody may publish to users and groups through a websocket: those messages pass through a view,
    which checks them and writes the sender's name.
    """
    allowed = FOR_EVERYONE | FOR_USERS if request.user.is_authenticated else FOR_EVERYONE
    return [channel for channel in channels if channel in allowed]
