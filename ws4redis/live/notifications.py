"""Notifications of a user: a toast at once, a badge with what is unread, wherever the user is.

They go to the user's own channel of one facility. The notification itself is not kept there, so
that no page shows it twice; the number of unread ones is, for the pages that open later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ws4redis.live.notification_store import (
    KEEP_SECONDS,
    Notification,
    current_store,
    user_name,
)
from ws4redis.publishing.commit import on_database_commit
from ws4redis.publishing.publisher import RedisPublisher, json_text

FACILITY: Final = 'notifications'
LEVELS: Final = ('info', 'success', 'warning', 'error')


def notify(
    user: Any,
    text: str,
    *,
    title: str = '',
    url: str = '',
    level: str = 'info',
    data: dict[str, Any] | None = None,
    on_commit: bool = True,
    using: str | None = None,
) -> None:
    """Notify a user, given as an object or by name, on all pages that are open.

    ``text`` is plain text; ``url`` is where it leads, ``level`` one of info, success, warning and
    error, and ``data`` whatever else your scripts want to know, as JSON has it. It is sent when the
    transaction of the database ``using`` commits, without ``on_commit`` at once. It stays unread
    until ``mark_read()``.

    Raise ``ValueError`` when nobody is meant, or for another level; at once redis-py's
    ``ConnectionError`` when Redis cannot be reached, after a commit that is logged.
    """
    if level not in LEVELS:
        raise ValueError(f'level must be one of {", ".join(LEVELS)}, not {level!r}')
    user_name(user)
    notification: Notification = {
        'text': str(text),
        'title': str(title),
        'url': str(url),
        'level': level,
        'data': data or {},
    }
    # Fails where it was written, not when the transaction commits.
    json_text(notification)
    if on_commit:
        on_database_commit(lambda: _send(user, notification), using=using)
    else:
        _send(user, notification)


def unread_count(user: Any) -> int:
    """Return how many notifications of a user are unread."""
    return current_store().count(user)


def unread_notifications(user: Any) -> list[Notification]:
    """Return a user's unread notifications, newest first: dictionaries as ``notify`` made them.

    Each has an ``id`` as well, for :func:`mark_read`.
    """
    return current_store().unread(user)


def mark_read(user: Any, ids: Sequence[str] | None = None) -> int:
    """Mark notifications as read, by their ids, or all; return how many are unread now.

    The badges of all of the user's pages follow.
    """
    if isinstance(ids, str):
        raise ValueError('ids must be a list of ids, not one of them')
    unread = current_store().mark_read(user, ids)
    _publish_count(_publisher_to(user), unread)
    return unread


def _send(user: Any, notification: Notification) -> None:
    name, unread = current_store().add(user, notification)
    publisher = _publisher_to(user)
    message = {'type': 'notification', 'id': name, **notification}
    publisher.publish_json(message, expire=0, on_commit=False)
    _publish_count(publisher, unread)


def _publish_count(publisher: RedisPublisher, unread: int) -> None:
    message = {'type': 'unread', 'unread': unread}
    publisher.publish_json(message, expire=KEEP_SECONDS, on_commit=False)


def _publisher_to(user: Any) -> RedisPublisher:
    return RedisPublisher(facility=FACILITY, users=[user])
