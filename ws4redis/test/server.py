"""The server of a test case: Django's own for live tests, with the websocket loop beside it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from django.core.servers.basehttp import ThreadedWSGIServer
from django.test.testcases import LiveServerThread

from ws4redis.applications.wsgi import CombinedServer

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class WebSocketTestServer(ThreadedWSGIServer):
    """Serve Django and websockets, and know how many requests are running."""

    # Many websockets open at once.
    request_queue_size = 512

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._running = 0
        self._changed = threading.Condition()
        super().__init__(*args, **kwargs)

    def set_app(self, application: WSGIApplication | None) -> None:
        """Put the websocket loop in front of Django."""
        super().set_app(CombinedServer(application))

    def serve_forever(self, poll_interval: float = 0.05) -> None:
        """Serve until it is shut down, which is noticed within ``poll_interval`` seconds.

        By default that is half a second, and each class of tests would wait for it at its end.
        """
        super().serve_forever(poll_interval)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._running += 1
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def wait_until_idle(self, timeout: float) -> bool:
        """Wait until no request runs, at most ``timeout`` seconds; tell whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout)


class WebSocketServerThread(LiveServerThread):
    """Run the server of a test case."""

    server_class = WebSocketTestServer
    httpd: WebSocketTestServer
