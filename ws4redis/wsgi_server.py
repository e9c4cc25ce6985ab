"""Public names: the WSGI application of the websocket loop, as 0.6 called it."""

from __future__ import annotations

from ws4redis.applications.wsgi import WebSocketServer

WebsocketWSGIServer = WebSocketServer

__all__ = ['WebSocketServer', 'WebsocketWSGIServer']
