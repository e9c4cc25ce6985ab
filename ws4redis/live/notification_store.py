"""Where notifications wait until they are read.

By default that is Redis: a short stream for each user, which needs no model. A project that keeps
them in a table names a class of its own in ``WS4REDIS_NOTIFICATION_STORE``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, Protocol, cast

from ws4redis.broker.channels import quote_name
from ws4redis.broker.connections import get_client
from ws4redis.conf import conf
from ws4redis.publishing.identity import name_of_user
from ws4redis.settings.hooks import load

#: How many unread notifications of a user are kept, and for how long after the newest.
MAX_UNREAD = 100
KEEP_SECONDS = 30 * 24 * 3600

Notification = dict[str, Any]


class NotificationStore(Protocol):
    """Keep unread notifications; ``user`` is what the project called ``notify()`` with."""

    def add(self, user: Any, notification: Notification) -> tuple[str, int]:
        """Keep a notification; return its id, and how many are unread now."""

    def unread(self, user: Any) -> list[Notification]:
        """Return the unread notifications, newest first, each with its ``id``."""

    def count(self, user: Any) -> int:
        """Return how many are unread."""

    def mark_read(self, user: Any, ids: Sequence[str] | None) -> int:
        """Forget some notifications, None: all; return how many are unread now."""


class RedisNotifications:
    """Keep the newest unread notifications of each user in a stream of Redis."""

    def add(self, user: Any, notification: Notification) -> tuple[str, int]:
        key = _key_of(user)
        with get_client().pipeline(transaction=True) as pipeline:
            pipeline.xadd(
                key, {'data': json.dumps(notification)}, maxlen=MAX_UNREAD, approximate=False
            )
            pipeline.xlen(key)
            pipeline.expire(key, KEEP_SECONDS)
            name, unread, _ = pipeline.execute()
        return name.decode(), unread

    def unread(self, user: Any) -> list[Notification]:
        entries = cast('list[Any]', get_client().xrevrange(_key_of(user), count=MAX_UNREAD))
        return [{**json.loads(fields[b'data']), 'id': name.decode()} for name, fields in entries]

    def count(self, user: Any) -> int:
        return get_client().xlen(_key_of(user))

    def mark_read(self, user: Any, ids: Sequence[str] | None) -> int:
        key = _key_of(user)
        with get_client().pipeline(transaction=True) as pipeline:
            if ids is None:
                pipeline.delete(key)
            elif ids:
                pipeline.xdel(key, *ids)
            pipeline.xlen(key)
            return cast('int', pipeline.execute()[-1])


class MemoryNotifications:
    """Keep notifications in this process, for tests."""

    def __init__(self) -> None:
        self._ids = count(1)
        self._of_user: dict[str, dict[str, Notification]] = {}

    def clear(self) -> None:
        """Forget the notifications of everybody."""
        self._of_user.clear()

    def _of(self, user: Any) -> dict[str, Notification]:
        return self._of_user.setdefault(user_name(user), {})

    def add(self, user: Any, notification: Notification) -> tuple[str, int]:
        mine = self._of(user)
        name = f'{next(self._ids)}-0'
        mine[name] = {**notification, 'id': name}
        while len(mine) > MAX_UNREAD:
            del mine[next(iter(mine))]
        return name, len(mine)

    def unread(self, user: Any) -> list[Notification]:
        return list(reversed(self._of(user).values()))

    def count(self, user: Any) -> int:
        return len(self._of(user))

    def mark_read(self, user: Any, ids: Sequence[str] | None) -> int:
        mine = self._of(user)
        for name in list(mine) if ids is None else ids:
            mine.pop(name, None)
        return len(mine)


def user_name(user: Any) -> str:
    """Return the name of a user, who may be given by it; ``ValueError`` for nobody."""
    name = user if isinstance(user, str) else name_of_user(user)
    if not isinstance(name, str) or not name:
        raise ValueError(f'only users can be notified, not {user!r}')
    return name


def _key_of(user: Any) -> str:
    return f'{conf.key_prefix}ws4redis:notifications:{quote_name(user_name(user))}'


class _Current:
    # Of the whole process, as the broker is.
    in_tests: NotificationStore | None = None


def current_store() -> NotificationStore:
    """Return the store that the settings name; that of a test where one is in its place."""
    if _Current.in_tests is not None:
        return _Current.in_tests
    store = load('WS4REDIS_NOTIFICATION_STORE', conf.WS4REDIS_NOTIFICATION_STORE)
    return cast('NotificationStore', store())


@contextmanager
def use_store(store: NotificationStore) -> Iterator[None]:
    """Let another store take the place of the settings' within the ``with`` block."""
    before, _Current.in_tests = _Current.in_tests, store
    try:
        yield
    finally:
        _Current.in_tests = before
