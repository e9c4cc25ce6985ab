"""From a request to an identity: in whose name a connection is opened."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import redis
from django.contrib.auth import SESSION_KEY

from ws4redis.hub.identity import ANONYMOUS, Identity, digest_of
from ws4redis.publishing.broker import current_broker
from ws4redis.publishing.identity import (
    MEMBEROF_SESSION_KEY,
    group_names,
    groups_of,
    id_of_user,
    name_of_user,
    regrouped_key,
    sessions_of,
    stamp_of,
    user_of,
)

if TYPE_CHECKING:
    from django.http import HttpRequest

logger = logging.getLogger('ws4redis')


def identity_of(request: HttpRequest, *, with_groups: bool = False) -> Identity:
    """Return in whose name a request comes. May block: session and user are looked up."""
    if with_groups:
        refresh_groups(request)
    user = user_of(request)
    session_key = next(iter(sessions_of(request)), None)
    if user is None and session_key is None:
        return ANONYMOUS
    user_id = id_of_user(user)
    is_vouched = user_id is not None and _user_id_in_session(request) == user_id
    return Identity(
        user=name_of_user(user),
        user_id=user_id,
        session=session_key,
        session_digest=digest_of(session_key),
        groups=tuple(groups_of(request)) if with_groups else (),
        knows_groups=with_groups and user is not None,
        is_staff=getattr(user, 'is_staff', False) is True,
        # The session tells by itself whether the password has changed.
        stamp=None if is_vouched else stamp_of(user),
    )


def identity_to_keep(request: HttpRequest) -> Identity:
    """Return the identity for code that may look at the request's user as long as it runs.

    May block. Where it cannot be looked up, since the database is away, say, the key of the session
    is taken as the client names it; that code will learn of it when it asks itself.
    """
    try:
        return identity_of(request)
    except Exception:
        logger.exception('whose request this is could not be found out: %s', request.path)
    key = getattr(getattr(request, 'session', None), 'session_key', None)
    return Identity(session=key, session_digest=digest_of(key)) if key else ANONYMOUS


def refresh_groups(request: HttpRequest) -> None:
    """Let a session know the groups of now where they have changed since the login. May block.

    The database is asked then. The session is not saved.
    """
    lazy: Any = request
    session: Any = getattr(request, 'session', None)
    if hasattr(request, 'ws4redis_refreshed') or not hasattr(session, '__setitem__'):
        return
    lazy.ws4redis_refreshed = True
    user = user_of(request)
    name = name_of_user(user)
    if name is not None and MEMBEROF_SESSION_KEY in session:
        try:
            (is_regrouped,) = current_broker().fetch([regrouped_key(name)])
        except redis.RedisError:
            # The database knows in any case.
            is_regrouped = b'1'
        if is_regrouped is not None:
            session[MEMBEROF_SESSION_KEY] = group_names(user)


def _user_id_in_session(request: HttpRequest) -> str | None:
    get = getattr(getattr(request, 'session', None), 'get', None)
    return get(SESSION_KEY) if callable(get) else None
