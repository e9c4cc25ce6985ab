"""Public names: the WSGI applications for uWSGI."""

from __future__ import annotations

from ws4redis.applications.uwsgi import (
    uWSGIBothLoops,
    uWSGIWebSocketServer,
    uWSGIWebsocketServer,
)

__all__ = ['uWSGIBothLoops', 'uWSGIWebSocketServer', 'uWSGIWebsocketServer']
