"""A plain websocket that joins several channels, as its URL says, and opens when it has joined."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ws4redis.hub.channel import Delay, Request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ws4redis.broker.history import Position
    from ws4redis.hub.channel import Joined, Outcome
    from ws4redis.hub.websocket import WebSocket


class Joining:
    """Wait until Redis has answered for each channel that a websocket joins.

    ``done`` is called once, whatever happens; before it ``refused``, if Redis refuses one of them.
    Then :attr:`positions` tells from where the messages of each channel with a history go on, and
    :attr:`gaps` why some of what was missed cannot be had.
    """

    def __init__(
        self,
        websocket: WebSocket,
        since: Mapping[str, Position] | None = None,
        *,
        done: Callable[[], object],
        refused: Callable[[], object] | None = None,
    ) -> None:
        self.positions: dict[str, Position] = {}
        self.gaps: dict[str, Outcome] = {}
        self._websocket = websocket
        self._since = since or {}
        self._remaining = 0
        self._done: Callable[[], object] | None = done
        self._refused = refused

    def request(self, name: str) -> Request:
        """Return the wish to join one more channel."""
        self._remaining += 1
        return Request(partial(self._joined, name), self._since.get(name), self._delayed)

    def _joined(self, name: str, joined: Joined) -> None:
        self._remaining -= 1
        self._websocket.take_joined(joined)
        if joined.outcome.is_gap:
            self.gaps[name] = joined.outcome
        if joined.position is not None:
            self.positions[name] = joined.start
        if self._remaining <= 0:
            self.proceed()

    def _delayed(self, why: Delay) -> None:
        if why is Delay.REFUSED and self._done is not None and self._refused is not None:
            self._refused()
        self.proceed()

    def proceed(self) -> None:
        """Wait no longer: all has been answered, or Redis is away."""
        done, self._done = self._done, None
        if done is not None:
            done()
