"""The receivers of Django's signals; ``apps.py`` connects them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ws4redis.publishing.store import MEMBEROF_SESSION_KEY, group_names

if TYPE_CHECKING:
    from django.http import HttpRequest


def store_groups_in_session(
    sender: object,
    user: Any,
    request: HttpRequest | None,
    **kwargs: object,
) -> None:
    """Store the names of a user's groups in the session, when the user logs in.

    Thus the websocket loop needs no database to subscribe to the channels of these groups. A later
    change of groups takes effect at the next login, or when this function is called again.
    """
    session: Any = getattr(request, 'session', None)
    if session is not None and user is not None:
        session[MEMBEROF_SESSION_KEY] = group_names(user)
