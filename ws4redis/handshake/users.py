"""Users of many sessions, read by one query.

Only what Django's ``ModelBackend`` would look up is: any other backend, and any manager with ideas
of its own, is asked for each user. Whether a session vouches for its user is found out when the
user is looked at, by what Django compares; wherever that says no, Django itself is asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
    load_backend,
)
from django.core.exceptions import ValidationError
from django.db.models import Manager, QuerySet
from django.utils.crypto import constant_time_compare

if TYPE_CHECKING:
    from collections.abc import Mapping

# What looks a user up, and so must be Django's own.
_METHODS = ('get', 'filter', 'all')


@dataclass(frozen=True, slots=True)
class ReadUser:
    """A user who was read for a session, as that names him."""

    user_id: str
    backend: str
    user: Any


def read_users(sessions: Sequence[Mapping[str, Any] | None]) -> list[ReadUser | None]:
    """Read the users of sessions by one query; each session gets an instance of its own. May block.

    ``None`` where a user has to be asked for as ever.
    """
    backends: dict[str, Any] = {}
    logins = [None if data is None else _login_of(data, backends) for data in sessions]
    keys = {primary_key for primary_key, _, _ in filter(None, logins)}
    rows = _rows_of(keys) if keys else {}
    given: set[Any] = set()
    return [None if login is None else _found(rows, given, backends, *login) for login in logins]


def _login_of(data: Mapping[str, Any], backends: dict[str, Any]) -> tuple[Any, str, str] | None:
    """Return the primary key, the backend and the key as text of who is logged in, if plain."""
    user_id, backend = data.get(SESSION_KEY), data.get(BACKEND_SESSION_KEY)
    if not isinstance(user_id, str) or not isinstance(backend, str):
        return None
    if backend not in backends:
        backends[backend] = _plain_backend(backend)
    if backends[backend] is None:
        return None
    field: Any = get_user_model()._meta.pk
    try:
        return field.to_python(user_id), backend, user_id
    except ValidationError:
        return None


def _plain_backend(path: str) -> Any:
    """Return a backend if it looks users up by their primary keys alone, as Django's does."""
    if path not in settings.AUTHENTICATION_BACKENDS or not apps.is_installed('django.contrib.auth'):
        return None
    # It imports models.
    from django.contrib.auth.backends import ModelBackend

    backend = load_backend(path)
    is_plain = getattr(backend.get_user, '__func__', None) is ModelBackend.get_user
    return backend if is_plain and isinstance(backend, ModelBackend) else None


def _rows_of(keys: set[Any]) -> dict[Any, Any]:
    manager: Any = get_user_model()._default_manager
    rows = manager.all()
    if not all(
        getattr(type(manager), name, None) is getattr(Manager, name)
        and getattr(type(rows), name, None) is getattr(QuerySet, name)
        for name in _METHODS
    ):
        return {}
    return {row.pk: row for row in rows.filter(pk__in=keys)}


def _found(
    rows: dict[Any, Any],
    given: set[Any],
    backends: dict[str, Any],
    primary_key: Any,
    backend: str,
    user_id: str,
) -> ReadUser | None:
    user = rows.get(primary_key)
    if user is None or not backends[backend].user_can_authenticate(user):
        return None
    if primary_key in given:
        # Whoever looks at it may change it.
        user = deepcopy(user)
    given.add(primary_key)
    return ReadUser(user_id, backend, user)


def vouched_user(read: ReadUser | None, session: Any) -> Any:
    """Return the user who was read if the session vouches for him as Django demands it, or None."""
    if (
        read is None
        or session.get(SESSION_KEY) != read.user_id
        or session.get(BACKEND_SESSION_KEY) != read.backend
        or read.backend not in settings.AUTHENTICATION_BACKENDS
    ):
        return None
    known = session.get(HASH_SESSION_KEY)
    auth_hash = getattr(read.user, 'get_session_auth_hash', None)
    if not known or auth_hash is None or not constant_time_compare(known, auth_hash()):
        # By a former SECRET_KEY, perhaps. Or the session has to end.
        return None
    return read.user
