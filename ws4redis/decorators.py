"""Public names: decorators for views that accept websockets."""

from __future__ import annotations

from ws4redis.views.decorators import accept_websocket, require_websocket

__all__ = [
    'accept_websocket',
    'require_websocket',
]
