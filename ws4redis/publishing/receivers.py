"""The receivers of Django's signals; ``apps.py`` connects them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ws4redis.publishing.identity import MEMBEROF_SESSION_KEY, group_names

if TYPE_CHECKING:
    from django.http import HttpRequest

logger = logging.getLogger('ws4redis')


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
    if session is None or user is None:
        return
    try:
        session[MEMBEROF_SESSION_KEY] = group_names(user)
    except Exception:
        # A login must not fail for this: the groups are looked up again when the user connects.
        logger.exception('the groups of %r were not stored in the session', user)
