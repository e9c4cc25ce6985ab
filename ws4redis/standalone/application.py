"""The WSGI application of the standalone server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from django.core.wsgi import get_wsgi_application

from ws4redis.applications.wsgi import WebSocketServer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class ViewServer:
    """Give the websockets that nobody else serves to the project's views.

    Only with ``--gevent``: a view blocks, and elsewhere it would block the one thread of the
    server. Plain HTTP is left to a server that is made for it.

    ``view_begins`` is called in a view's greenlet, which from then on is no handshake any more,
    and may last for as long as its websocket.
    """

    def __init__(self, websockets: WebSocketServer, *, view_begins: Callable[[], object]) -> None:
        self._websockets = websockets
        self._view_begins = view_begins
        self._django: WSGIApplication | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        is_upgrade = environ.get('HTTP_UPGRADE', '').strip().lower() == 'websocket'
        if not is_upgrade or self._websockets.serves(environ):
            return self._websockets(environ, start_response)
        if self._django is None:
            self._django = get_wsgi_application()
        self._view_begins()
        return self._django(environ, start_response)
