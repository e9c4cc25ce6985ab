"""Fan-out: from what arrived on channels to one ``send`` per websocket.

What arrives for a channel is collected until the turn ends, framed once per wire format, joined,
and sent. A large audience is served in slices, one a turn, so that reads and handshakes get their
share; what arrives meanwhile for the same channel is collected for its next batch, which keeps the
order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ws4redis.hub.statistics import Statistics
from ws4redis.hub.websocket import SEND_FLAGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ws4redis.hub.channel import Channel
    from ws4redis.hub.websocket import WebSocket
    from ws4redis.protocol.wire import WireFormat

# About 5 ms of sending.
SLICE_WEBSOCKETS = 1000
# Beyond this much undelivered input the bus is not read until some is delivered.
MAX_BACKLOG_BYTES = 32 * 1024 * 1024


class Batch:
    """Messages of one channel, in order, that go to the same audience."""

    __slots__ = ('audience', 'channel', 'payloads')

    def __init__(self, channel: Channel, payload: bytes) -> None:
        self.channel = channel
        self.payloads = [payload]
        # Whoever is in the audience when the batch is delivered, unless it was settled before.
        self.audience: list[tuple[WireFormat, list[WebSocket]]] | None = None

    def settle(self) -> list[tuple[WireFormat, list[WebSocket]]]:
        """Fix the audience: who joins or leaves from now on makes no difference."""
        if self.audience is None:
            self.audience = [(wire, list(w)) for wire, w in self.channel.audiences.items()]
            if self.channel.arrived is self:
                self.channel.arrived = None
        return self.audience


class Fanout:
    """Deliver what arrives on channels to their websockets."""

    def __init__(self, statistics: Statistics, clock: Callable[[], float]) -> None:
        self._statistics = statistics
        self._clock = clock
        self._waiting: deque[Batch] = deque()
        self._slices: Iterator[None] | None = None
        self.backlog_bytes = 0

    @property
    def is_congested(self) -> bool:
        return self.backlog_bytes > MAX_BACKLOG_BYTES

    def arrive(self, channel: Channel, payload: bytes) -> None:
        """Take a message; it goes out when the turn ends."""
        self.backlog_bytes += len(payload)
        if channel.arrived is None:
            channel.arrived = Batch(channel, payload)
            self._waiting.append(channel.arrived)
        else:
            channel.arrived.payloads.append(payload)

    def latest_waiting(self, channel: Channel) -> bytes | None:
        """Return the latest message of a channel that has arrived and was not delivered yet."""
        batches = (batch for batch in reversed(self._waiting) if batch.channel is channel)
        batch = next(batches, None)
        return None if batch is None else batch.payloads[-1]

    def settle(self, channel: Channel) -> None:
        """Deliver what has arrived for a channel to those only who are in its audience now."""
        if channel.arrived is not None:
            channel.arrived.settle()

    def turn_end(self) -> bool:
        """Serve about one slice; tell whether there is more to do."""
        budget = SLICE_WEBSOCKETS
        while budget > 0:
            if self._slices is not None:
                budget = 0
                if next(self._slices, self) is self:
                    self._slices = None
            elif self._waiting:
                budget -= self._begin(self._waiting.popleft())
            else:
                return False
        return self._slices is not None or bool(self._waiting)

    def _begin(self, batch: Batch) -> int:
        """Deliver a batch, or begin to if its audience is large; return the number of sends."""
        audience = batch.settle()
        payloads = batch.payloads
        self.backlog_bytes -= sum(map(len, payloads))
        batch.channel.delivered_at = self._clock()
        batch.channel.remember(payloads[-1])
        size = sum(len(websockets) for _, websockets in audience)
        if size > SLICE_WEBSOCKETS:
            self._slices = self._deliver_in_slices(audience, payloads)
            return 0
        for wire, websockets in audience:
            self._deliver(websockets, payloads, [wire.encode_message(p) for p in payloads])
        return size + 1

    def _deliver_in_slices(
        self, audience: list[tuple[WireFormat, list[WebSocket]]], payloads: list[bytes]
    ) -> Iterator[None]:
        for wire, websockets in audience:
            frames = [wire.encode_message(payload) for payload in payloads]
            for start in range(0, len(websockets), SLICE_WEBSOCKETS):
                self._deliver(websockets[start : start + SLICE_WEBSOCKETS], payloads, frames)
                yield

    def _deliver(
        self, websockets: list[WebSocket], payloads: list[bytes], frames: list[bytes]
    ) -> None:
        if not websockets:
            return
        data = frames[0] if len(frames) == 1 else b''.join(frames)
        size = len(data)
        count = len(frames)
        elsewhere = 0
        # The hot path of the whole package. `send` itself costs about 5 microseconds; everything
        # that could be decided once (framing, flags, statistics) was taken out of the loop.
        for websocket in websockets:
            if websocket.direct:
                try:
                    sent = websocket.sock.send(data, SEND_FLAGS)  # type: ignore[union-attr]
                except (BlockingIOError, InterruptedError):
                    sent = 0
                except OSError:
                    elsewhere += 1
                    websocket.lost(undelivered=count)
                    continue
                if sent != size:
                    elsewhere += 1
                    self._statistics.bytes_sent += sent
                    websocket.queue(data, sent, count)
            else:
                elsewhere += 1
                websocket.deliver(payloads, frames)
        direct = len(websockets) - elsewhere
        self._statistics.messages_sent += direct * count
        self._statistics.bytes_sent += direct * size
