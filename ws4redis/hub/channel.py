"""A Redis channel that at least one websocket of this process wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from ws4redis.hub.own_messages import fingerprint

if TYPE_CHECKING:
    from ws4redis.hub.fanout import Batch
    from ws4redis.hub.websocket import WebSocket
    from ws4redis.protocol.wire import WireFormat


# Up to here a tuple is as fast as a dictionary, which would add a third to a websocket's memory.
FEW_CHANNELS = 8


class Joining:
    """Wait until Redis has answered for each channel that a websocket joins.

    ``done`` is called once, whatever happens; before it ``refused``, if Redis refuses one of them.
    """

    __slots__ = ('_done', '_refused', '_remaining')

    def __init__(
        self,
        channels: int,
        done: Callable[[], object],
        refused: Callable[[], object] | None = None,
    ) -> None:
        self._remaining = channels
        self._done: Callable[[], object] | None = done
        self._refused = refused

    def joined(self) -> None:
        self._remaining -= 1
        if self._remaining <= 0:
            self.proceed()

    def refuse(self) -> None:
        """Wait no longer: Redis refuses one of the channels."""
        if self._done is not None and self._refused is not None:
            self._refused()
        self.proceed()

    def proceed(self) -> None:
        """Wait no longer: all has been answered, or Redis is away."""
        done, self._done = self._done, None
        if done is not None:
            done()


class Question:
    """A question for a channel's kept message, written and not answered: who asks, and why."""

    __slots__ = ('channel', 'joining', 'remaining_ms', 'resumes')

    def __init__(
        self, channel: Channel, joining: dict[WebSocket, Joining], *, resumes: bool
    ) -> None:
        self.channel = channel
        self.joining = joining
        # Whether those who are in the channel may have missed messages.
        self.resumes = resumes
        # For how long the kept message will still be kept, if that was asked and answered.
        self.remaining_ms: int | None = None

    def note_remaining(self, milliseconds: int) -> None:
        # Negative where there is no such key, or one that does not expire.
        if milliseconds >= 0:
            self.remaining_ms = milliseconds


class Channel:
    """The websockets of one channel, by wire format, and those that are about to join them.

    A websocket is in one place at most: among those whose question was not written yet, among those
    who asked, or in an audience. So joining and leaving cost the same, however many there are.
    """

    __slots__ = (
        'arrived',
        'asking',
        'audiences',
        'backlog_bytes',
        'delivered_at',
        'joining',
        'last',
        'name',
        'refused',
        'resumes',
        'subscribed',
    )

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.audiences: dict[WireFormat, set[WebSocket]] = {}
        self.joining: dict[WebSocket, Joining] = {}
        self.asking: dict[WebSocket, Question] = {}
        # Whether SUBSCRIBE was written to the present connection, and not refused.
        self.subscribed = False
        # Whether Redis refused it, and has not confirmed it since.
        self.refused = False
        # Whether the audience may have missed messages, so that the kept one is asked for.
        self.resumes = False
        self.last: bytes | None = None
        # What arrived and was not delivered yet, if more may be added to it.
        self.arrived: Batch | None = None
        self.backlog_bytes = 0
        self.delivered_at = 0.0

    @property
    def is_wanted(self) -> bool:
        return bool(self.audiences or self.joining or self.asking)

    def holds(self, websocket: WebSocket) -> bool:
        """Tell whether a websocket is in this channel, or about to be."""
        return (
            websocket in self.audiences.get(websocket.wire, ())
            or websocket in self.joining
            or websocket in self.asking
        )

    def add(self, websocket: WebSocket) -> None:
        self.audiences.setdefault(websocket.wire, set()).add(websocket)

    def discard(self, websocket: WebSocket) -> Joining | None:
        """Let a websocket go; return what waits for its joining, if it was about to."""
        audience = self.audiences.get(websocket.wire)
        if audience is not None:
            audience.discard(websocket)
            if not audience:
                del self.audiences[websocket.wire]
        question = self.asking.pop(websocket, None)
        if question is not None:
            return question.joining.pop(websocket)
        return self.joining.pop(websocket, None)

    def ask(self) -> Question:
        """Return the question of those who have not asked yet."""
        joining, self.joining = self.joining, {}
        question = Question(self, joining, resumes=self.resumes)
        self.asking.update(dict.fromkeys(joining, question))
        self.resumes = False
        return question

    def answered(self, question: Question) -> dict[WebSocket, Joining]:
        """Return those who asked and still want to join; they ask no more."""
        joining, question.joining = question.joining, {}
        for websocket in joining:
            del self.asking[websocket]
        return joining

    def start_over(self) -> None:
        """Let all ask again: the connection was lost."""
        asked = {w: question.joining[w] for w, question in self.asking.items()}
        self.joining = {**asked, **self.joining}
        self.asking.clear()
        self.subscribed = False
        self.resumes = True

    def remember(self, payload: bytes) -> None:
        """Note the latest message of this channel that websockets were sent."""
        self.last = fingerprint(payload)

    def repeats(self, payload: bytes) -> bool:
        return self.last == fingerprint(payload)


# The channels of one websocket, in the order in which it joined them.
Channels: TypeAlias = 'tuple[Channel, ...] | dict[Channel, None]'


def with_channel(channels: Channels, channel: Channel) -> Channels:
    """Return the channels with one more, which must not be among them."""
    if isinstance(channels, tuple):
        if len(channels) < FEW_CHANNELS:
            return (*channels, channel)
        channels = dict.fromkeys(channels)
    channels[channel] = None
    return channels


def without_channel(channels: Channels, channel: Channel) -> Channels:
    """Return the channels without one of them."""
    if isinstance(channels, tuple):
        return tuple(c for c in channels if c is not channel)
    channels.pop(channel, None)
    return channels or ()
