"""A plain websocket that joins several channels, as its URL says, and opens when it has joined."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from ws4redis.hub.channel import Delay, Joined, Outcome, Request

if TYPE_CHECKING:
    from ws4redis.broker.history import Position
    from ws4redis.hub.websocket import WebSocket


class Seen(Protocol):
    """What a client has seen."""

    def position_on(self, channel: str) -> Position | None: ...


class Answer(NamedTuple):
    """What the answer to a handshake tells of the channels with a history.

    From where the messages of each go on, and why some of what was missed cannot be had.
    """

    positions: dict[str, Position]
    gaps: dict[str, Outcome]


class Joining:
    """Wait until Redis has answered for each channel that a websocket joins.

    ``done`` is called once, whatever happens; before it ``refused``, if Redis refuses one of them.
    ``since`` is what the client has seen: then it is told of gaps, in the answer to its handshake,
    or, if they come up later, by the end of its websocket.
    """

    def __init__(
        self,
        websocket: WebSocket,
        since: Seen | None = None,
        *,
        done: Callable[[], object] | None = None,
        refused: Callable[[], object] | None = None,
    ) -> None:
        self._websocket = websocket
        self._since = since
        self._remaining = 0
        self._done: Callable[[], object] | None = done or _ignore
        self._refused = refused
        # How each channel was joined, or that it came too late for the answer to the handshake.
        # The first to say so is right, in whatever thread.
        self._told: dict[str, Joined] = {}
        websocket.heeds_gaps = websocket.heeds_gaps or since is not None

    def begin(self, done: Callable[[], object]) -> None:
        """Call this when all has been answered, before any channel is joined."""
        self._done = done

    def request(self, name: str) -> Request:
        """Return the wish to join one more channel."""
        self._remaining += 1
        since = None if self._since is None else self._since.position_on(name)
        return Request(partial(self._joined, name), since, self._delayed)

    def _joined(self, name: str, joined: Joined) -> None:
        self._remaining -= 1
        is_late = self._told.setdefault(name, joined) is not joined
        if is_late and self._since is not None and joined.outcome.is_gap:
            # Before what comes behind the gap: a client would take that for what it missed.
            self._websocket.tell_late_gap(joined.outcome)
        self._websocket.take_joined(name, joined)
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

    def answer(self, names: Iterable[str]) -> Answer:
        """Return what is to be told now, in the answer to the handshake. Safe in any thread.

        A gap on any other of these channels is told by the end of the websocket.
        """
        answer = Answer({}, {})
        for name in names:
            joined = self._told.setdefault(name, _TOO_LATE)
            if joined.position is not None:
                answer.positions[name] = joined.start
                if joined.outcome.is_gap:
                    answer.gaps[name] = joined.outcome
        return answer


_TOO_LATE: Final = Joined(Outcome.LEFT)


def _ignore() -> None:
    pass
