"""Public names: the websocket of a view."""

from __future__ import annotations

from ws4redis.views.websocket import ViewWebSocket

__all__ = [
    'ViewWebSocket',
]
