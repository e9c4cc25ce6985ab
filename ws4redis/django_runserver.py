"""Public names: the WSGI application for `manage.py runserver`."""

from __future__ import annotations

from ws4redis.applications.runserver import DevelopmentServer, application
from ws4redis.applications.wsgi import WebSocketServer

# As 0.6 called it.
WebsocketRunServer = WebSocketServer

__all__ = [
    'DevelopmentServer',
    'WebsocketRunServer',
    'application',
]
