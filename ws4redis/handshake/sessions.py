"""Sessions of many handshakes, read in one round trip, and their users in another.

In a storm each handshake would ask the session store and the database by itself. Where Django's own
engines are used, the sessions that are waited for are read together, each of them once, and after
them the users who are logged in; then a handshake finds both read. Nothing depends on it: who is
not helped here reads its session and its user as ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.utils import timezone

from ws4redis.conf import conf
from ws4redis.handshake.users import ReadUser, read_users

if TYPE_CHECKING:
    from django.http import HttpRequest


logger = logging.getLogger('ws4redis')

LONGEST_KEY = 64
# As an attribute of a request.
READ_SESSION = '_ws4redis_read_session'

# What Django's stores find a session by.
_METHODS = ('load', 'cache_key', '_get_session_from_db')

ReadMany = Callable[[Any, list[str]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Read:
    """What was read for one handshake, which nobody else has."""

    key: str
    # ``None`` without such a session.
    data: dict[str, Any] | None
    user: ReadUser | None = None

    @property
    def is_complete(self) -> bool:
        """Tell whether nobody needs to be asked who it is."""
        return self.user is not None or not self.data or SESSION_KEY not in self.data


def _from_cache(store: Any, keys: list[str]) -> dict[str, Any]:
    prefix = store.cache_key_prefix
    found = store._cache.get_many([prefix + key for key in keys])
    return {key: found.get(prefix + key) for key in keys}


def _from_database(store: Any, keys: list[str]) -> dict[str, Any]:
    rows = store.get_model_class().objects.filter(
        session_key__in=keys, expire_date__gt=timezone.now()
    )
    found = {row.session_key: store.decode(row.session_data) for row in rows}
    return {key: found.get(key) for key in keys}


def _from_cache_before_database(store: Any, keys: list[str]) -> dict[str, Any]:
    found = _from_cache(store, keys)
    # What the cache has lost each reads by itself, and so puts it there.
    return {key: data for key, data in found.items() if data is not None}


_READERS: dict[str, ReadMany] = {
    'cache': _from_cache,
    'db': _from_database,
    'cached_db': _from_cache_before_database,
}


@cache
def _reader_of(engine: str) -> tuple[Any, ReadMany] | None:
    """Return the class of an engine's sessions and what reads many of them, if it is Django's."""
    store_class = import_module(engine).SessionStore
    for name, read_many in _READERS.items():
        stock = import_module(f'django.contrib.sessions.backends.{name}').SessionStore
        if issubclass(store_class, stock) and all(
            getattr(store_class, name, None) is getattr(stock, name, None) for name in _METHODS
        ):
            return store_class, read_many
    return None


def can_read_many(request: HttpRequest) -> bool:
    """Tell whether the session of a handshake may be read together with others."""
    key = request.COOKIES.get(settings.SESSION_COOKIE_NAME, '')
    return (
        conf.WS4REDIS_PROCESS_REQUEST is None
        # What is no key of Django's might make the store refuse all that are asked for with it.
        and key.isascii()
        and key.isalnum()
        and len(key) <= LONGEST_KEY
        and _reader_of(settings.SESSION_ENGINE) is not None
    )


def session_of(request: HttpRequest, session_key: str | None) -> Any:
    """Return the session of a request, with its data if they were read already."""
    engine: Any = import_module(settings.SESSION_ENGINE)
    store = engine.SessionStore(session_key)
    read = read_for(request)
    # The store has its own idea of which keys are valid.
    if read is not None and read.key == store.session_key:
        if read.data is None:
            # As its load() does where there is no such session.
            store._session_key = None
        store._session_cache = read.data or {}
    return store


def read_for(request: HttpRequest) -> Read | None:
    """Return what was read for a request, if anything was."""
    return getattr(request, READ_SESSION, None)


def read_sessions(wanted: list[str]) -> list[Read | None]:
    """Read sessions and their users; return what there is for each that is wanted."""
    found = _read_many(dict.fromkeys(wanted))
    # Several may want the same session, and change it.
    given: set[str] = set()
    sessions = []
    for key in wanted:
        data = found.get(key)
        sessions.append(deepcopy(data) if key in given else data)
        given.add(key)
    try:
        users = read_users(sessions)
    except Exception as exc:  # noqa: BLE001 (as with sessions)
        logger.debug('users could not be read together: %s', exc)
        users = [None] * len(sessions)
    return [
        Read(key, data, user) if key in found else None
        for key, data, user in zip(wanted, sessions, users, strict=True)
    ]


def _read_many(keys: Iterable[str]) -> dict[str, Any]:
    reader = _reader_of(settings.SESSION_ENGINE)
    if reader is None:
        return {}
    store_class, read_many = reader
    found = read_many(store_class(), list(keys))
    # Whatever else lies in a cache under such a key, its store is to say what it makes of that.
    return {key: data for key, data in found.items() if data is None or isinstance(data, dict)}
