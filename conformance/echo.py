"""A WSGI application that echoes, on the real loop: for uWSGI and for runserver.

Handshakes take the way of every websocket; only what is received goes back to its sender, with the
opcode that it came with, instead of to Redis.
"""

from __future__ import annotations

import os

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'conformance.settings')

from conformance.settings import WS4REDIS_MAX_MESSAGE_SIZE
from ws4redis.handshake.machine import Steps
from ws4redis.handshake.policy import Admission
from ws4redis.hub.websocket import Paused, WebSocket
from ws4redis.protocol.frames import Opcode
from ws4redis.servers.opening import Opening
from ws4redis.uwsgi_runserver import uWSGIWebSocketServer


class EchoReceiver:
    """Send each message back. A client that does not read is not read either."""

    def receive_message(self, websocket: WebSocket, opcode: Opcode, payload: bytes) -> None:
        websocket.send_message(payload, opcode)
        if websocket.queued_bytes > WS4REDIS_MAX_MESSAGE_SIZE:
            websocket.pause_reading(Paused.RECEIVER)

    def websocket_drained(self, websocket: WebSocket) -> None:
        websocket.resume_reading(Paused.RECEIVER)

    def websocket_closed(self, websocket: WebSocket, code: int, reason: str) -> None:
        pass


class EchoServer(uWSGIWebSocketServer):
    """Connect websockets with an echo."""

    _echo = EchoReceiver()

    def _connect(self, opening: Opening, admission: Admission) -> Steps[None]:
        opening.make_websocket(self._echo)
        # A machine, though it waits for nothing.
        yield from ()


application = EchoServer()
