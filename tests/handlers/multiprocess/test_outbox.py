"""What a websocket has sent and its remote handler has not seen yet is bounded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from ws4redis.handlers.multiprocess.outbox import (
    MAX_UNSEEN_BYTES,
    MAX_UNSEEN_MESSAGES,
    Outbox,
)
from ws4redis.hub.websocket import WebSocket
from ws4redis.protocol.frames import Opcode


class WatchedWebSocket:
    """Notes whether it is read."""

    is_read = True

    def pause_reading(self, why: object) -> None:
        self.is_read = False

    def resume_reading(self, why: object) -> None:
        self.is_read = True


def outbox() -> tuple[Outbox, WatchedWebSocket, WebSocket]:
    hub = SimpleNamespace(
        options=SimpleNamespace(heartbeat=b'--heartbeat--'),
        loop=SimpleNamespace(timers=SimpleNamespace(clock=lambda: 0.0)),
        statistics=SimpleNamespace(
            handler_events_waiting=0, handler_events=0, handler_lag_seconds=0.0
        ),
    )
    backend: Any = SimpleNamespace(hub=hub, is_connected=True, send=lambda *_: None)
    watched = WatchedWebSocket()
    websocket = cast('WebSocket', watched)
    box = Outbox(backend, 1)
    box.websocket = websocket
    return box, watched, websocket


def test_many_small_messages_wait_until_half_of_them_were_seen() -> None:
    box, watched, websocket = outbox()
    for _ in range(MAX_UNSEEN_MESSAGES):
        assert watched.is_read
        box.receive_message(websocket, Opcode.TEXT, b'x')
    assert not watched.is_read
    box.seen(MAX_UNSEEN_MESSAGES // 2 - 1)
    assert not watched.is_read
    box.seen(MAX_UNSEEN_MESSAGES // 2)
    assert watched.is_read


def test_a_few_large_messages_wait_until_half_of_their_bytes_were_seen() -> None:
    box, watched, websocket = outbox()
    for _ in range(4):
        assert watched.is_read
        box.receive_message(websocket, Opcode.BINARY, b'x' * (MAX_UNSEEN_BYTES // 4))
    assert not watched.is_read
    box.seen(1)
    assert not watched.is_read
    box.seen(2)
    assert watched.is_read
