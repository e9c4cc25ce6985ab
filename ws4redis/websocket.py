"""What 0.6 had under this name is gone: say what to use instead."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name == 'WebSocket':
        raise ImportError(
            'ws4redis.websocket.WebSocket is gone: the websocket loop holds all websockets. To '
            'talk to one, use ws4redis.handlers.WebSocketHandler, or request.websocket in a view '
            '(ws4redis.decorators). See "Upgrade from older packages" in the documentation.'
        )
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
