"""Views in the standalone server."""

from __future__ import annotations

from typing import Any

import gevent.socket
import pytest
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path
from gevent.event import Event

from tests.free_ports import free_port
from tests.timeouts import SOON_SECONDS
from ws4redis.handlers.routes import HandlerRoutes
from ws4redis.handlers.server import HandlerServer
from ws4redis.standalone import worker
from ws4redis.standalone.addresses import Address, listen

running = 0
all_run = Event()
may_end = Event()


def lasts(request: Any) -> HttpResponse:
    """Run until the test says so, as a view does whose websocket is open."""
    global running
    running += 1
    if running == 3:
        all_run.set()
    may_end.wait(SOON_SECONDS)
    return HttpResponse()


urlpatterns = [path('lasts/', lasts)]


@override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[])
def test_open_views_take_no_place_of_those_that_are_at_their_handshake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, 'MAX_HANDSHAKES', 1)
    port = free_port()
    server = worker.Worker(
        listen(Address(port=port)), HandlerServer(HandlerRoutes([])), views=True
    )._server
    server.start()
    clients = []
    try:
        for _ in range(3):
            client = gevent.socket.create_connection(('127.0.0.1', port), SOON_SECONDS)
            clients.append(client)
            client.sendall(b'GET /lasts/ HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\r\n')
        assert all_run.wait(SOON_SECONDS)
        may_end.set()
        for client in clients:
            assert client.recv(12) == b'HTTP/1.1 200'
    finally:
        may_end.set()
        for client in clients:
            client.close()
        server.stop()
