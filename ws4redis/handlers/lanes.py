"""Lanes: the events of one websocket on their way to its handler, in order and one at a time.

A lane is with the runner while it holds anything, and only once. So the events of one websocket
keep their order and never overlap, whichever thread takes them, and what waits in the runner is
bounded by the number of websockets. Whoever fills a lane learns when it is full, and when it is
empty again.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from ws4redis.exceptions import ConnectionClosed
from ws4redis.handlers.runners import Runner
from ws4redis.handlers.session import HandlerSession
from ws4redis.hub.statistics import Statistics
from ws4redis.loop.native import original
from ws4redis.protocol.frames import CloseCode, Opcode

if TYPE_CHECKING:
    from ws4redis.loop.drivers import Event

logger = logging.getLogger('ws4redis')

MAX_WAITING_MESSAGES = 32
MAX_WAITING_BYTES = 256 * 1024
# After this many events in a row it is the others' turn.
EVENTS_PER_TURN = 16


class Lanes:
    """What all lanes of a process share."""

    def __init__(self, runner: Runner, statistics: Statistics) -> None:
        self.runner = runner
        self.statistics = statistics
        # Short sections only: one lock for all costs less than one for each websocket.
        self.lock = original('_thread', 'allocate_lock')()
        self._busy = 0
        self._idle: Event | None = None

    def lane_filled(self) -> None:
        """Count a lane that goes to the runner. Called with the lock."""
        self._busy += 1

    def lane_emptied(self) -> None:
        """Count a lane that leaves the runner. Called with the lock."""
        self._busy -= 1
        if not self._busy and self._idle is not None:
            self._idle.set()

    def finish(self, timeout_seconds: float) -> None:
        """Wait until handlers have seen all events, then stop the runner."""
        idle = self.runner.event()
        with self.lock:
            self._idle = idle
            if not self._busy:
                idle.set()
        if not idle.wait(timeout_seconds):
            logger.error('%d handlers did not finish in time', self._busy)
        self.runner.stop()


class HandlerLane:
    """The events of one websocket, and its handler.

    Subclasses are the handler's connection: they implement :meth:`send`, :meth:`close` and
    :meth:`lane_has_room`.
    """

    __slots__ = (
        '_closed_event',
        '_events',
        '_failed',
        '_full',
        '_lanes',
        '_scheduled',
        '_scheduled_at',
        '_waiting_bytes',
        'closed_with',
        'session',
    )

    def __init__(self, lanes: Lanes) -> None:
        self.session: HandlerSession | None = None
        # The close code and the reason, once the websocket is closed.
        self.closed_with: tuple[int, str] | None = None
        self._lanes = lanes
        # Made when the first event comes: most websockets are idle.
        self._events: deque[tuple[Opcode, Any]] | None = None
        self._waiting_bytes = 0
        self._scheduled = False
        self._scheduled_at = 0.0
        self._full = False
        self._failed = False
        self._closed_event: Event | None = None

    # For subclasses

    def lane_has_room(self) -> None:
        """Take note that the lane, which was full, is empty. Called by the runner."""

    def send(self, payload: bytes, opcode: Opcode) -> None:
        raise NotImplementedError

    def close(self, code: int, reason: str) -> None:
        raise NotImplementedError

    # Filling

    def put_message(self, opcode: Opcode, payload: bytes) -> bool:
        """Add a message; tell whether the lane has become full by it."""
        return self._put(opcode, payload, len(payload))

    def put_close(self, code: int, reason: str) -> None:
        """Add the end, after which nothing comes."""
        self.closed_with = (code, reason)
        with self._lanes.lock:
            event = self._closed_event
        if event is not None:
            event.set()
        self._put(Opcode.CLOSE, code, 0)

    def _put(self, opcode: Opcode, what: Any, size: int) -> bool:
        lanes = self._lanes
        with lanes.lock:
            lanes.statistics.handler_events_waiting += 1
            if self._events is None:
                self._events = deque()
            self._events.append((opcode, what))
            self._waiting_bytes += size
            becomes_full = not self._full and (
                len(self._events) >= MAX_WAITING_MESSAGES
                or self._waiting_bytes >= MAX_WAITING_BYTES
            )
            if becomes_full:
                self._full = True
            if self._scheduled:
                return becomes_full
            self._scheduled = True
            lanes.lane_filled()
        self._schedule()
        return becomes_full

    def _schedule(self) -> None:
        self._scheduled_at = time.monotonic()
        self._lanes.runner.submit(self._run)

    # Emptying: called by the runner

    def _run(self) -> None:
        lanes = self._lanes
        statistics = lanes.statistics
        statistics.handler_lag_seconds = time.monotonic() - self._scheduled_at
        events = self._events
        assert events is not None
        for _ in range(EVENTS_PER_TURN):
            opcode, what = events.popleft()
            size = 0
            if opcode is Opcode.CLOSE:
                self._end(what)
            else:
                size = len(what)
                self._receive(opcode, what)
            with lanes.lock:
                self._waiting_bytes -= size
                statistics.handler_events_waiting -= 1
                statistics.handler_events += 1
                if not events:
                    self._scheduled = False
                    was_full, self._full = self._full, False
                    lanes.lane_emptied()
                    break
        else:
            self._schedule()
            return
        if was_full:
            self.lane_has_room()

    def _receive(self, opcode: Opcode, payload: bytes) -> None:
        if self._failed:
            return
        assert self.session is not None
        try:
            self.session.receive(opcode, payload)
        except BaseException as exc:  # (whatever it is, the thread goes on)
            if isinstance(exc, ConnectionClosed) and self.closed_with is not None:
                # It sent to a client that had left. It still gets the messages that came before.
                logger.debug('%r sent to a websocket that is closed', self.session.handler)
                return
            logger.exception('%r failed', self.session.handler)
            self._failed = True
            self.close(CloseCode.INTERNAL_ERROR, '')

    def _end(self, code: int) -> None:
        # The session goes, and with it the handler and the request, once it has ended.
        session, self.session = self.session, None
        if session is not None:
            try:
                session.end(code)
            except BaseException:  # (whatever it is, the thread goes on)
                logger.exception('on_close() of %r failed', session.handler)
        self.ended()

    def ended(self) -> None:
        """Take note that the handler has seen the end. Called by the runner."""

    # For the handler, in any thread

    def wait_closed(self, timeout_seconds: float | None) -> bool:
        """Wait until the websocket is closed, and tell whether it is."""
        with self._lanes.lock:
            if self._closed_event is None:
                self._closed_event = self._lanes.runner.event()
            event = self._closed_event
        if self.closed_with is not None:
            return True
        return event.wait(timeout_seconds)
