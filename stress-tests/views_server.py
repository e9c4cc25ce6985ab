"""What stress-tests/views.py measures: an echo view, and what it is compared with.

`/view/` echoes in a Django view, `/hub/` in the loop itself, without Django and without a greenlet.
`/greenlets/N/` makes N greenlets that wait for nothing, and answers when they do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'views_settings')

from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

from ws4redis.decorators import require_websocket
from ws4redis.servers.opening import Opening

if TYPE_CHECKING:
    from django.http import HttpRequest

    from ws4redis.hub.websocket import WebSocket
    from ws4redis.protocol.frames import Opcode


@require_websocket
def echo(request: Any) -> None:
    """Send back what comes."""
    for message in request.websocket:
        request.websocket.send(message)


def greenlets(request: HttpRequest, count: int) -> HttpResponse:
    """Make greenlets that wait until the process ends."""
    import gevent
    from gevent.event import Event

    never = Event()

    def wait() -> None:
        never.wait()

    for _ in range(count):
        gevent.spawn(wait)
    gevent.sleep(0.1)
    return HttpResponse(str(count))


urlpatterns = [path('view/', echo), path('greenlets/<int:count>/', greenlets)]


class HubEcho:
    """Send back what comes, in the loop."""

    def receive_message(self, websocket: WebSocket, opcode: Opcode, payload: bytes) -> None:
        websocket.send_message(payload, opcode)

    def websocket_drained(self, websocket: WebSocket) -> None:
        pass

    def websocket_closed(self, websocket: WebSocket, code: int, reason: str) -> None:
        pass


django = get_wsgi_application()
hub_echo = HubEcho()


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer a request by the loop alone, or by Django."""
    if environ['PATH_INFO'] != '/hub/':
        return django(environ, start_response)
    opening = Opening(environ, start_response)
    opening.make_websocket(hub_echo)
    opening.complete()
    return []
