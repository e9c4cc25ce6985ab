"""From a request to an identity: in whose name a connection is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ws4redis.hub.identity import ANONYMOUS, Identity
from ws4redis.publishing.identity import groups_of, name_of_user, sessions_of, user_of

if TYPE_CHECKING:
    from django.http import HttpRequest


def identity_of(request: HttpRequest, *, with_groups: bool = False) -> Identity:
    """Return in whose name a request comes. May block: session and user are looked up."""
    user = user_of(request)
    session_key = next(iter(sessions_of(request)), None)
    if user is None and session_key is None:
        return ANONYMOUS
    return Identity(
        user=name_of_user(user),
        session=session_key,
        groups=tuple(groups_of(request)) if with_groups else (),
        is_staff=getattr(user, 'is_staff', False) is True,
    )
