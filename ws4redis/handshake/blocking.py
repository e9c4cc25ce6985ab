"""Running a project's code outside Django's request cycle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.db import close_old_connections, connections

from ws4redis.loop.workers import is_looked_after

T = TypeVar('T')


def with_database(function: Callable[..., T], *args: Any) -> T:
    """Call a function that may use the database, and treat its connections as a request would.

    Those that broke or are past ``CONN_MAX_AGE`` are closed before and afterwards. Threads of our
    pools keep theirs for as long as there is something to do: to connect anew for each handshake
    would take more time than all that it asks.
    """
    if is_looked_after():
        _close_unusable()
        return function(*args)
    close_old_connections()
    try:
        return function(*args)
    finally:
        close_old_connections()


def _close_unusable() -> None:
    """Close connections that another call has left broken, or in a transaction."""
    for connection in connections.all(initialized_only=True):
        if connection.errors_occurred or (
            connection.connection is not None
            and connection.get_autocommit() != connection.settings_dict['AUTOCOMMIT']
        ):
            connection.close_if_unusable_or_obsolete()
