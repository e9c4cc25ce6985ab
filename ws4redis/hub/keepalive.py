"""Pings and heartbeats: a timer wheel whose spokes are the descriptors themselves.

A wheel of N slots turns once per interval; in slot k come the websockets with the descriptors k,
k + N, k + 2N and so on. So the wheel holds nothing: opening and closing a websocket does not touch
it, and a turn of it costs one look-up per websocket. The work of an interval is spread over its
slots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ws4redis.hub.websocket import Phase, WebSocket
from ws4redis.protocol.frames import CloseCode

if TYPE_CHECKING:
    from ws4redis.hub.hub import Hub

SLOTS = 32


class Wheel:
    """Call a function for each open websocket once per interval."""

    def __init__(
        self, hub: Hub, interval_seconds: float, visit: Callable[[WebSocket], object]
    ) -> None:
        self._hub = hub
        self._tick_seconds = interval_seconds / SLOTS
        self._visit = visit
        self._slot = 0
        self.after_slot: Callable[[int], object] | None = None

    def start(self) -> None:
        self._hub.loop.call_later(self._tick_seconds, self._tick)

    def _tick(self) -> None:
        self._hub.loop.call_later(self._tick_seconds, self._tick)
        self._slot = (self._slot + 1) % SLOTS
        self.visit_slot(self._slot, self._visit)
        if self.after_slot is not None:
            self.after_slot(self._slot)

    def visit_slot(self, slot: int, visit: Callable[[WebSocket], object]) -> None:
        handlers = self._hub.loop.handlers
        for fd in range(slot, self._hub.highest_fd + 1, SLOTS):
            websocket = handlers.get(fd)
            if isinstance(websocket, WebSocket) and websocket.phase is Phase.OPEN:
                visit(websocket)


class Pings:
    """Ping each websocket once per interval, and close those that do not answer in time."""

    def __init__(self, hub: Hub, interval_seconds: float, timeout_seconds: float) -> None:
        self._hub = hub
        self._timeout_seconds = timeout_seconds
        self._round = 1
        self._wheel = Wheel(hub, interval_seconds, self._ping)
        self._wheel.after_slot = self._expect_pongs

    def start(self) -> None:
        self._wheel.start()

    def _ping(self, websocket: WebSocket) -> None:
        self._hub.intake.forget_rested(websocket)
        if not websocket.pinged_in_round:
            websocket.pinged_in_round = self._round
            websocket.send_ping()

    def _expect_pongs(self, slot: int) -> None:
        # One timer per slot, not one per websocket.
        loop = self._hub.loop
        loop.call_later(self._timeout_seconds, self._check_slot, slot, self._round)
        self._round += 1

    def _check_slot(self, slot: int, pinged_in_round: int) -> None:
        def check(websocket: WebSocket) -> None:
            if websocket.pinged_in_round != pinged_in_round:
                return
            if websocket.paused:
                # It may have answered without its answer being read yet, so ask again later.
                websocket.pinged_in_round = 0
            else:
                websocket.close(CloseCode.INTERNAL_ERROR, 'no answer to a ping')

        self._wheel.visit_slot(slot, check)


class Heartbeats:
    """Send the heartbeat message to websockets that want it and were idle for an interval."""

    def __init__(self, hub: Hub, message: bytes, interval_seconds: float) -> None:
        self._hub = hub
        self._message = message
        self._interval_seconds = interval_seconds
        self._wheel = Wheel(hub, interval_seconds, self._beat)

    def start(self) -> None:
        self._wheel.start()

    def _beat(self, websocket: WebSocket) -> None:
        quiet_since = self._hub.loop.timers.clock() - self._interval_seconds
        if websocket.idle_since > quiet_since:
            return
        # Noted per channel, so that heartbeats add no cost to each delivery.
        own = websocket.own
        has_skipped = own is not None and own.has_skipped
        if has_skipped or all(
            channel.delivered_at <= quiet_since for channel in websocket.channels
        ):
            if own is not None:
                own.has_skipped = False
            websocket.send(websocket.wire.encode_message(self._message))
