"""Running a project's code outside Django's request cycle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.db import close_old_connections

T = TypeVar('T')


def with_database(function: Callable[..., T], *args: Any) -> T:
    """Call a function that may use the database, and treat its connections as a request would.

    Those that broke or are past ``CONN_MAX_AGE`` are closed before and afterwards.
    """
    close_old_connections()
    try:
        return function(*args)
    finally:
        close_old_connections()
