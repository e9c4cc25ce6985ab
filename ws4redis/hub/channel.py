"""A Redis channel that at least one websocket of this process wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ws4redis.hub.own_messages import fingerprint

if TYPE_CHECKING:
    from ws4redis.hub.fanout import Batch
    from ws4redis.hub.websocket import WebSocket
    from ws4redis.protocol.wire import WireFormat


class Opening:
    """Wait until Redis has answered for each channel that a websocket joins."""

    __slots__ = ('_done', '_remaining')

    def __init__(self, channels: int, done: Callable[[], object]) -> None:
        self._remaining = channels
        self._done: Callable[[], object] | None = done

    def joined(self) -> None:
        self._remaining -= 1
        if self._remaining <= 0:
            self.proceed()

    def proceed(self) -> None:
        """Wait no longer: all has been answered, or Redis is away."""
        done, self._done = self._done, None
        if done is not None:
            done()


class Channel:
    """The websockets of one channel, by wire format, and those that are about to join them."""

    __slots__ = (
        'arrived',
        'audiences',
        'confirmed',
        'delivered_at',
        'fetches',
        'joining',
        'last',
        'name',
        'refused',
        'subscribed',
    )

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.audiences: dict[WireFormat, set[WebSocket]] = {}
        # Those whose SUBSCRIBE or GET was not written yet.
        self.joining: dict[WebSocket, Opening] = {}
        # Whether SUBSCRIBE was written to the present connection, and whether Redis confirmed it.
        self.subscribed = False
        self.confirmed = False
        self.refused = False
        # How many GETs of the kept message are under way.
        self.fetches = 0
        self.last: bytes | None = None
        # What arrived and was not delivered yet, if more may be added to it.
        self.arrived: Batch | None = None
        self.delivered_at = 0.0

    @property
    def is_wanted(self) -> bool:
        return bool(self.audiences or self.joining)

    def has(self, websocket: WebSocket) -> bool:
        return websocket in self.audiences.get(websocket.wire, ())

    def add(self, websocket: WebSocket) -> None:
        self.audiences.setdefault(websocket.wire, set()).add(websocket)

    def discard(self, websocket: WebSocket) -> Opening | None:
        """Let a websocket go; return what waits for its joining, if it was about to."""
        audience = self.audiences.get(websocket.wire)
        if audience is not None:
            audience.discard(websocket)
            if not audience:
                del self.audiences[websocket.wire]
        return self.joining.pop(websocket, None)

    def remember(self, payload: bytes) -> None:
        """Note the latest message of this channel that websockets were sent."""
        self.last = fingerprint(payload)

    def repeats(self, payload: bytes) -> bool:
        return self.last == fingerprint(payload)
