"""An event stream: a peer that is sent messages over HTTP, where websockets are blocked.

It costs what a websocket costs, and ends as one does. It cannot send anything.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from ws4redis.broker.history import Position
from ws4redis.broker.tokens import encode_positions
from ws4redis.hub.publication import Published, described
from ws4redis.hub.websocket import WebSocket
from ws4redis.protocol.connection import ServerConnection
from ws4redis.protocol.end_codes import EndCode
from ws4redis.protocol.event_stream import (
    PING,
    EventStreamConnection,
    EventStreamWire,
    encode_event,
    encode_id,
    encode_retry,
)

if TYPE_CHECKING:
    from ws4redis.hub.channel import Channel, Gap, Joined, Outcome
    from ws4redis.hub.hub import Hub
    from ws4redis.hub.websocket import Receiver

# A client comes back after this, by chance, lest all that were cut off do at once.
RETRY_MILLISECONDS = (1000, 3000)


class SharedStreamWire(EventStreamWire):
    """The format of streams with one channel at most that has a history: an event for all alike."""

    __slots__ = ()

    def encode(self, published: Published, channel: bytes) -> bytes:  # type: ignore[override]
        publication = described(published)
        position = publication.position
        if position is None:
            return self.encode_message(publication.payload)
        token = encode_positions({channel.decode(errors='surrogateescape'): position})
        return self.encode_message(publication.payload, event_id=token)


class OwnStreamWire(EventStreamWire):
    """The format of one stream alone, whose events name its positions on all of its channels.

    A browser knows the last event only, so that has to say what was seen of each of them.
    """

    __slots__ = ('positions',)

    def __init__(self, positions: Mapping[str, Position]) -> None:
        self.positions = dict(positions)

    def encode(self, published: Published, channel: bytes) -> bytes:  # type: ignore[override]
        publication = described(published)
        if publication.position is not None:
            self.positions[channel.decode(errors='surrogateescape')] = publication.position
        token = encode_positions(self.positions) if self.positions else None
        return self.encode_message(publication.payload, event_id=token)


@cache
def shared_wire() -> SharedStreamWire:
    return SharedStreamWire()


class EventStream(WebSocket):
    """One stream of events to a browser."""

    __slots__ = ()

    status = 200
    transport = 'event stream'

    def __init__(
        self,
        hub: Hub,
        wire: EventStreamWire,
        receiver: Receiver,
        *,
        heeds_gaps: bool = False,
        companion: Any = None,
        place: Any = None,
    ) -> None:
        super().__init__(
            hub,
            cast('ServerConnection', EventStreamConnection()),
            wire,
            receiver,
            companion=companion,
            place=place,
        )
        self.heeds_gaps = heeds_gaps

    def __repr__(self) -> str:
        return f'<EventStream fd={self.fd} {self.phase.name}>'

    def attach(self, sock: socket.SocketType) -> None:
        options = self.hub.options
        interval = options.ping_interval_seconds
        if interval and hasattr(socket, 'TCP_USER_TIMEOUT'):
            # No pong tells that a client is there, but its system acknowledges our comments.
            seconds = interval + options.ping_timeout_seconds
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
        super().attach(sock)
        self.send(encode_retry(random.randint(*RETRY_MILLISECONDS)))  # noqa: S311 (no secret)

    def send_ping(self, payload: bytes = b'') -> None:
        """Send a comment, which nobody answers."""
        self.pinged_in_round = 0
        self.send(PING)

    def take_joined(self, name: str, joined: Joined) -> None:
        if joined.outcome.is_gap:
            self._tell_gap(joined.outcome)
        super().take_joined(name, joined)
        if joined.position is not None and joined.messages is None:
            # Where the stream begins: what follows is not missed, even if nothing ever comes.
            self._tell_position(name, joined.position)

    def tell_late_gap(self, cause: Outcome) -> None:
        """Do nothing: it was told as it joined, since a stream has nothing else to tell it by."""

    def gap(self, channel: Channel, gap: Gap) -> None:
        self._tell_gap(gap.cause)
        if gap.kept is not None:
            self.send_kept(gap.kept)
        self._tell_position(channel.name.decode(errors='surrogateescape'), gap.position)

    def unsubscribe(self, channel: str, code: int, reason: str) -> None:
        """Leave a channel; with none left the stream ends, since nothing ever comes of it."""
        was_there = self.hub.bus.holds(self, channel)
        self.hub.leave(self, [channel])
        if was_there and not self.channels:
            self.end(code or EndCode.DISCONNECTED, reason or 'unsubscribed')

    def _tell_gap(self, cause: Outcome) -> None:
        self.send(encode_event(json.dumps({'cause': cause.value}).encode(), name='gap'))

    def _tell_position(self, name: str, position: Position) -> None:
        positions = {name: position}
        if isinstance(self.wire, OwnStreamWire):
            self.wire.positions[name] = position
            positions = self.wire.positions
        self.send(encode_id(encode_positions(positions)))
