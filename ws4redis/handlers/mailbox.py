"""Mailboxes: from the loop to handlers of the same process, and back.

A websocket has one mailbox: it is the websocket's receiver in the loop, and the handler's
connection elsewhere. A websocket whose mailbox is full is not read.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ws4redis.handlers.lanes import HandlerLane, Lanes
from ws4redis.handlers.runners import Runner
from ws4redis.hub.receiver import ConnectionKind
from ws4redis.hub.websocket import Paused, Phase, WebSocket
from ws4redis.protocol.frames import Opcode

if TYPE_CHECKING:
    from ws4redis.hub.hub import Hub


class Dispatcher(Lanes):
    """What all mailboxes of a process share: above all the way back into the loop."""

    def __init__(self, hub: Hub, runner: Runner) -> None:
        super().__init__(runner, hub.statistics)
        self.hub = hub
        self._output: deque[tuple[WebSocket, bytes | tuple[int, str]]] = deque()
        self._flushing = False
        hub.loop.at_close(self._finish_with_loop)

    # Called in any thread

    def send(self, websocket: WebSocket, what: bytes | tuple[int, str]) -> None:
        """Send a frame, or close with a code and a reason, after what was sent before."""
        self._output.append((websocket, what))
        if not self._flushing:
            self._flushing = True
            self.hub.loop.call_soon(self._flush)

    # Called in the loop

    def _flush(self) -> None:
        # What comes from now on asks for another flush, which may find nothing to do.
        self._flushing = False
        frames: dict[WebSocket, list[bytes]] = {}
        output = self._output
        for _ in range(len(output)):
            websocket, what = output.popleft()
            if isinstance(what, bytes):
                frames.setdefault(websocket, []).append(what)
            else:
                if websocket in frames:
                    self._send(websocket, frames.pop(websocket))
                websocket.close_when_open(*what)
        for websocket, waiting in frames.items():
            self._send(websocket, waiting)

    def _send(self, websocket: WebSocket, frames: list[bytes]) -> None:
        if websocket.phase <= Phase.OPEN:
            websocket.send(
                frames[0] if len(frames) == 1 else b''.join(frames), messages=len(frames)
            )
        else:
            websocket.send(b'', messages=len(frames))  # counted as not delivered

    def _finish_with_loop(self) -> None:
        """Let handlers finish when the loop has ended."""
        for websocket in self.hub:
            websocket.lost()
        self.finish(self.hub.options.close_timeout_seconds)


class Mailbox(HandlerLane):
    """The events of one websocket whose handler runs in this process."""

    kind = ConnectionKind.HANDLER

    __slots__ = ('_dispatcher', 'websocket')

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__(dispatcher)
        self.websocket: WebSocket | None = None
        self._dispatcher = dispatcher

    # The receiver: called in the loop

    def receive_message(self, websocket: WebSocket, opcode: Opcode, payload: bytes) -> None:
        if self.put_message(opcode, payload):
            websocket.pause_reading(Paused.RECEIVER)

    def websocket_drained(self, websocket: WebSocket) -> None:
        pass

    def websocket_ended(self, websocket: WebSocket, code: int, reason: str) -> None:
        """Take the end of what was granted, before the client has answered the close frame."""
        self.put_close(code, reason)

    def websocket_closed(self, websocket: WebSocket, code: int, reason: str) -> None:
        if self.closed_with is None:
            self.put_close(code, reason)

    def _resume(self) -> None:
        if self.websocket is not None:
            self.websocket.resume_reading(Paused.RECEIVER)

    # Called by the runner

    def lane_has_room(self) -> None:
        self._dispatcher.hub.loop.call_soon(self._resume)

    def ended(self) -> None:
        # Without this the two would keep each other alive until the garbage is collected.
        self.websocket = None

    # The connection: called in any thread

    def send(self, payload: bytes, opcode: Opcode) -> None:
        websocket = self.websocket
        if websocket is not None:
            self._dispatcher.send(websocket, websocket.wire.encode_message(payload, opcode))

    def close(self, code: int, reason: str) -> None:
        websocket = self.websocket
        if websocket is not None:
            self._dispatcher.send(websocket, (code, reason))
