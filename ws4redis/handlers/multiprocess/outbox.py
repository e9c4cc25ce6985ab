"""The websocket server's end: from the loop to the stream of a worker, and back."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from ws4redis.handlers.multiprocess.events import Kind, pack_code
from ws4redis.hub.receiver import ConnectionKind
from ws4redis.hub.websocket import Paused, WebSocket
from ws4redis.protocol.frames import CloseCode, Opcode

if TYPE_CHECKING:
    from collections.abc import Callable

    from ws4redis.handlers.multiprocess.backend import RemoteBackend
    from ws4redis.handlers.multiprocess.roster import RemoteWorker

MAX_UNSEEN_MESSAGES = 32
MAX_UNSEEN_BYTES = 256 * 1024


class Unseen(NamedTuple):
    """An event of which the worker has not said yet that its handler has seen it."""

    number: int
    kind: Kind
    payload: bytes
    since: float


class Refusal(NamedTuple):
    """The answer of a handler that does not take a websocket."""

    status: int
    sentence: str


class Outbox:
    """The events of one websocket whose handler runs in another process.

    It is the websocket's receiver. All methods run in the loop. It outlives the websocket until the
    worker's handler has seen the end.
    """

    kind = ConnectionKind.HANDLER

    __slots__ = (
        '_backend',
        '_events',
        '_full',
        'answered',
        'has_ended',
        'id',
        'last_answer',
        'outcome',
        'unseen',
        'unseen_bytes',
        'websocket',
        'worker',
    )

    def __init__(self, backend: RemoteBackend, number: int) -> None:
        self.id = number
        self.websocket: WebSocket | None = None
        self.worker: RemoteWorker | None = None
        self.unseen: deque[Unseen] = deque()
        self.unseen_bytes = 0
        self.last_answer = 0
        self.has_ended = False
        # The handshake waits for this; the outcome is the sealed answer of the worker.
        self.answered: Callable[[], object] | None = None
        self.outcome: bytes | Refusal | None = None
        self._backend = backend
        self._events = 0
        self._full = False

    # Opening

    def answer(self, outcome: bytes | Refusal) -> None:
        """Take the answer of the handler to the handshake."""
        answered, self.answered = self.answered, None
        if answered is not None:
            self.outcome = outcome
            answered()

    def close_websocket(self, code: int, reason: str) -> None:
        """Close the websocket, if it is not closed, as soon as its handshake is answered."""
        if self.websocket is not None:
            self.websocket.close_when_open(code, reason)

    # The receiver

    def receive_message(self, websocket: WebSocket, opcode: Opcode, payload: bytes) -> None:
        self.put(Kind.TEXT if opcode is Opcode.TEXT else Kind.BINARY, payload)
        if not self._full and (
            len(self.unseen) >= MAX_UNSEEN_MESSAGES
            or self.unseen_bytes >= MAX_UNSEEN_BYTES
            or not self._backend.is_connected
        ):
            self._full = True
            websocket.pause_reading(Paused.RECEIVER)

    def websocket_drained(self, websocket: WebSocket) -> None:
        pass

    def websocket_ended(self, websocket: WebSocket, code: int, reason: str) -> None:
        """Take the end of what was granted, before the client has answered the close frame."""
        self._end(code, reason)

    def websocket_closed(self, websocket: WebSocket, code: int, reason: str) -> None:
        self.websocket = None
        self._end(code, reason)

    def _end(self, code: int, reason: str) -> None:
        if self.worker is None:
            self._backend.forget(self)
        elif not self.has_ended:
            self.has_ended = True
            self.put(Kind.END, pack_code(code, reason))

    # Events

    def put(self, kind: Kind, payload: bytes) -> None:
        """Send an event to the worker, and keep it until its handler has seen it."""
        self._events += 1
        unseen = Unseen(self._events, kind, payload, self._backend.hub.loop.timers.clock())
        self.unseen.append(unseen)
        self.unseen_bytes += len(payload)
        self._backend.hub.statistics.handler_events_waiting += 1
        self._backend.send(self, unseen)

    def seen(self, number: int) -> None:
        """Take note that the handler has seen all events up to a number."""
        unseen = self.unseen
        statistics = self._backend.hub.statistics
        event = None
        while unseen and unseen[0].number <= number:
            event = unseen.popleft()
            self.unseen_bytes -= len(event.payload)
            statistics.handler_events_waiting -= 1
            statistics.handler_events += 1
        if event is not None:
            statistics.handler_lag_seconds = self._backend.hub.loop.timers.clock() - event.since
            if event.kind is Kind.END:
                self._backend.forget(self)
        if (
            self._full
            and len(unseen) <= MAX_UNSEEN_MESSAGES // 2
            and self.unseen_bytes <= MAX_UNSEEN_BYTES // 2
        ):
            self._full = False
            if self.websocket is not None:
                self.websocket.resume_reading(Paused.RECEIVER)

    def give_up(self, code: CloseCode, reason: str) -> None:
        """Close the websocket, since there is nobody any more who would see what it sends."""
        self.answer(Refusal(503, 'The handler of this websocket is not available.'))
        self._backend.hub.statistics.handler_events_waiting -= len(self.unseen)
        self.unseen.clear()
        # At once, though the websocket takes a while to close: should the worker live after all,
        # it is to be told that this one is none of its own any more.
        self._backend.forget(self)
        self.worker = None
        self.close_websocket(code, reason)
