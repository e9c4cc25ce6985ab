"""Public names: read histories and positions."""

from __future__ import annotations

from ws4redis.publishing.history import (
    History,
    Message,
    aget_position,
    ahistory,
    get_position,
    history,
)

__all__ = ['History', 'Message', 'aget_position', 'ahistory', 'get_position', 'history']
