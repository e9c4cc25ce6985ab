"""What answers the requests of the standalone server's native door."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.core.wsgi import get_wsgi_application

from ws4redis.applications.clients import takes_body
from ws4redis.applications.wsgi import WebSocketServer, count_refusal, error_of, response_of
from ws4redis.protocol.client.streams import MAX_BODY_BYTES
from ws4redis.servers.bodies import Response

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

    from ws4redis.handshake.machine import Proceed, Steps
    from ws4redis.protocol.http1 import RequestHead

logger = logging.getLogger('ws4redis')


class NativeApplication:
    """Give websockets to the websocket loop, or, with ``views``, to the project's views.

    Views need ``--gevent``: each runs in a greenlet, and blocks. They get the websockets that
    nobody else serves; plain HTTP is left to a server that is made for it.
    """

    def __init__(self, websockets: WebSocketServer, *, views: bool = False) -> None:
        self._websockets = websockets
        self._views = views
        self._django: WSGIApplication | None = None

    def __call__(self, environ: WSGIEnvironment) -> Steps[Response | None]:
        """Return the machine that answers a request."""
        if self._views:
            is_upgrade = environ.get('HTTP_UPGRADE', '').strip().lower() == 'websocket'
            if is_upgrade and not self._websockets.serves(environ):
                return self._view(environ)
        return self._websockets.steps(environ, None)

    def _view(self, environ: WSGIEnvironment) -> Steps[Response | None]:
        if self._django is None:
            self._django = get_wsgi_application()
        response: Response = yield InGreenlet(self._django, environ)
        return response


class InGreenlet:
    """Run a WSGI application in a greenlet, however long it takes."""

    def __init__(self, application: WSGIApplication, environ: WSGIEnvironment) -> None:
        self._application = application
        self._environ = environ

    def wait(self) -> Response:
        return self._run()

    def begin(self, proceed: Proceed) -> Callable[[], object]:
        import gevent

        # Taken out when the client has left, of which the view learns by itself.
        due = [proceed]
        gevent.spawn(self._run_and_tell, due)
        return due.clear

    def _run_and_tell(self, due: list[Proceed]) -> None:
        from ws4redis.servers.process import get_hub

        response, error = None, None
        try:
            response = self._run()
        except BaseException as exc:  # noqa: BLE001 (it is what the client is refused for)
            error = exc
        get_hub().loop.call_soon(_tell, due, response, error)

    def _run(self) -> Response:
        started: list[Any] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Callable[..., Any]:
            started[:] = [int(status[:3]), headers]
            return lambda data: None

        body = self._application(self._environ, start_response)
        try:
            content = b''.join(body)
        finally:
            close = getattr(body, 'close', None)
            if close is not None:
                close()
        status, headers = started
        # The door says by itself how long the body is, and what becomes of the connection.
        kept = [pair for pair in headers if pair[0].lower() not in ('content-length', 'connection')]
        return Response(status, kept, content)


def _tell(due: list[Any], response: Response | None, error: BaseException | None) -> None:
    if due:
        due.pop()(response, error)


def response_to(exc: BaseException, head: RequestHead) -> Response:
    """Return the response to what ended a handshake, and count it."""
    error = error_of(exc, head.path)
    count_refusal(error.status)
    return response_of(error)


def body_limit(head: RequestHead) -> int | None:
    """Return how many bytes the body of a request may have; None where nobody reads one."""
    return MAX_BODY_BYTES if head.method == 'POST' and takes_body(head.path) else None
