"""Who a request comes from: the user, the groups, the session.

Of users nothing is assumed but what Django's documentation promises of a custom user model, and not
that either of one that is no model, such as the user of a token.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured

from ws4redis.conf import conf

if TYPE_CHECKING:
    from django.http import HttpRequest

MEMBEROF_SESSION_KEY = 'ws4redis:memberof'


# Names of things


def name_of_user(user: Any) -> str | None:
    """Return the name that a user's channels bear, None if it has none."""
    get_username = getattr(user, 'get_username', None)
    name = get_username() if callable(get_username) else getattr(user, 'username', None)
    return None if name is None or name == '' else str(name)


def id_of_user(user: Any) -> str | None:
    """Return the primary key of a user of ``AUTH_USER_MODEL`` as text; None for any other."""
    try:
        is_ours = isinstance(user, get_user_model())
    except ImproperlyConfigured:
        # A project without users: its AUTH_USER_MODEL is not installed.
        return None
    return key_of_user(user) if is_ours and not _is_unsaved(user) else None


def _is_unsaved(user: Any) -> bool:
    """Tell whether a user is a model's instance that is in no database, as a token may name one."""
    return getattr(user, 'pk', False) is None


def stamp_of(user: Any) -> str | None:
    """Return what changes when a user's password does; None for users who have none."""
    auth_hash = None if _is_unsaved(user) else getattr(user, 'get_session_auth_hash', None)
    return _stamp(auth_hash()) if callable(auth_hash) else None


def is_stamp_of(stamp: str, user: Any) -> bool:
    """Tell whether a stamp is that of a user now, also one of before ``SECRET_KEY`` changed."""
    return any(hmac.compare_digest(stamp, _stamp(auth_hash)) for auth_hash in auth_hashes(user))


def auth_hashes(user: Any) -> list[str]:
    """Return the hashes by which sessions of a user are known to be of the same password."""
    if not callable(getattr(user, 'get_session_auth_hash', None)):
        return []
    fallbacks = getattr(user, 'get_session_auth_fallback_hash', None)
    return [user.get_session_auth_hash(), *(fallbacks() if callable(fallbacks) else ())]


def _stamp(auth_hash: str) -> str:
    return hmac.new(b'ws4redis.stamp', auth_hash.encode(), sha256).hexdigest()[:24]


def name_of_group(group: object) -> str | None:
    """Return a group's name, None if it has none."""
    name = group if isinstance(group, str) else getattr(group, 'name', None)
    return name if isinstance(name, str) else None


def name_of_session(session: object) -> object:
    """Return a session's key, None if it has none."""
    return getattr(session, 'session_key', None)


# Those of a request


def user_of(request: HttpRequest) -> Any:
    """Return the user who is logged in, or None."""
    user = getattr(request, 'user', None)
    is_authenticated = getattr(user, 'is_authenticated', False)
    if callable(is_authenticated):
        # As in classes of before Django 1.10, where it is true as such for everybody.
        is_authenticated = is_authenticated()
    return user if is_authenticated else None


def users_of(request: HttpRequest) -> list[str]:
    """Return the name of the user who is logged in, if any."""
    name = name_of_user(user_of(request))
    return [] if name is None else [name]


def groups_of(request: HttpRequest) -> list[str]:
    """Return the names of the groups of the user who is logged in.

    They come from the session when that is the session of this user's login, else from the
    database. So a change of groups counts from the next login on.
    """
    user = user_of(request)
    if user is None:
        return []
    session: Any = getattr(request, 'session', None)
    key = key_of_user(user)
    if session is not None and key is not None and session.get(SESSION_KEY) == key:
        kept = session.get(MEMBEROF_SESSION_KEY)
        if kept is not None:
            return list(kept)
    return group_names(user)


def regrouped_key(user: str) -> str:
    """Return the key in Redis that is there while sessions may know a user's former groups."""
    return f'{conf.key_prefix}ws4redis:regrouped:{user}'


def group_names(user: Any) -> list[str]:
    """Return the names of a user's groups, from the database if that is where they are.

    ``user.groups`` may be a relation, a list of names or of objects with a name, or missing. What
    has no name is no group.
    """
    groups = None if _is_unsaved(user) else getattr(user, 'groups', None)
    if hasattr(groups, 'all'):
        return _names_in_relation(groups)
    if not isinstance(groups, list | tuple | set | frozenset):
        return []
    return sorted(_names_of(groups))


def _names_in_relation(groups: Any) -> list[str]:
    try:
        groups.model._meta.get_field('name')
    except (AttributeError, FieldDoesNotExist):
        # Perhaps a property has that name.
        return sorted(_names_of(groups.all()))
    names: Iterable[str] = groups.order_by('name').values_list('name', flat=True)
    return list(names)


def _names_of(groups: Iterable[object]) -> set[str]:
    return {name for name in map(name_of_group, groups) if name is not None}


def key_of_user(user: Any) -> str | None:
    """Return a user's primary key as ``django.contrib.auth.login`` stores it in the session."""
    primary_key = getattr(getattr(user, '_meta', None), 'pk', None)
    return None if primary_key is None else str(primary_key.value_to_string(user))


def sessions_of(request: HttpRequest) -> list[str]:
    """Return the key of the request's session, if it has one."""
    session: Any = getattr(request, 'session', None)
    if isinstance(session, SessionBase):
        drop_unknown_key(session)
    key = getattr(session, 'session_key', None)
    return [key] if key else []


def drop_unknown_key(session: SessionBase) -> None:
    """Let a session have no key if its store does not know the one that the client named.

    Else a client could name any key it likes in its cookie.
    """
    if session.session_key is None:
        return
    was_modified = session.modified
    # Asked for anything, a store drops the key of a session that does not exist.
    session.get(SESSION_KEY)
    if session.modified and not was_modified:
        # The store of signed cookies begins a session instead, and leaves the key as it was. So
        # this does what the other stores do.
        session._session_key = None
