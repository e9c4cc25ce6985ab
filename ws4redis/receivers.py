"""Public names: the receivers of Django's signals."""

from __future__ import annotations

from ws4redis.publishing.receivers import store_groups_in_session

__all__ = [
    'store_groups_in_session',
]
