"""Public names: the middleware that gives each request its websocket."""

from __future__ import annotations

from ws4redis.views.middleware import WebSocketMiddleware

__all__ = [
    'WebSocketMiddleware',
]
