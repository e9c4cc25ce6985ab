"""Serve a WSGI application in this process, by Django's development server in a thread.

The quickest way to try handshakes: the settings are those of the test, and coverage sees all.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler

from tests.timeouts import SOON_SECONDS
from ws4redis.servers.process import drop_hub


class Served:
    """Where an application is served."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f'http://127.0.0.1:{port}'
        self.ws_url = f'ws://127.0.0.1:{port}'


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name there)
        pass


@contextmanager
def served(application: Any) -> Iterator[Served]:
    """Serve ``application``, and drop the websockets of this process in the end."""
    # Those that an earlier test made have other settings.
    drop_hub()
    server = ThreadedWSGIServer(('127.0.0.1', 0), _QuietHandler, ipv6=False)
    server.set_app(application)
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    try:
        yield Served(server.server_address[1])
    finally:
        server.shutdown()
        thread.join(SOON_SECONDS)
        drop_hub()
        server.server_close()
