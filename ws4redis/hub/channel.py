"""A Redis channel that at least one peer of this process wants."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from ws4redis.broker.history import Position
from ws4redis.hub.own_messages import fingerprint
from ws4redis.hub.publication import described

if TYPE_CHECKING:
    from ws4redis.broker.history import Header
    from ws4redis.broker.keys import ChannelKeys
    from ws4redis.hub.bus_link import BusLink
    from ws4redis.hub.fanout import Batch
    from ws4redis.hub.messages import Messages
    from ws4redis.hub.peer import Peer
    from ws4redis.hub.publication import Publication
    from ws4redis.protocol.wire import WireFormat


# Up to here a tuple is as fast as a dictionary, which would add a third to a websocket's memory.
FEW_CHANNELS = 8


class Outcome(StrEnum):
    """What became of the wish to join a channel."""

    OK = 'ok'
    # It joins, and there is a gap between what it has seen and what it gets from now on.
    TRIMMED = 'trimmed'  # what it missed is not kept any more
    EPOCH = 'epoch'  # its position is of another numbering, or nonsense
    BROKEN = 'broken'  # offsets were given out again
    BEHIND = 'behind'  # it missed more than is replayed
    # It does not join: it left before it had joined.
    LEFT = 'left'

    @property
    def is_gap(self) -> bool:
        return self not in (Outcome.OK, Outcome.LEFT)

    @property
    def may_be_ours(self) -> bool:
        """Tell whether this process may say so only because it lags behind Redis."""
        return self in (Outcome.EPOCH, Outcome.BROKEN)


class Delay(StrEnum):
    """Why joining takes longer than it should."""

    AWAY = 'away'  # there is no Redis at present
    REFUSED = 'refused'  # Redis does not let the channel be subscribed to


class Joined:
    """What a peer gets when it joins a channel: the kept message, then what it missed.

    ``position`` is where it is then; None on a channel without a history. One object may serve many
    peers, so that what they missed is encoded once.
    """

    __slots__ = ('kept', 'messages', 'outcome', 'position')

    def __init__(
        self,
        outcome: Outcome,
        position: Position | None = None,
        messages: Messages | None = None,
        kept: bytes | None = None,
    ) -> None:
        self.outcome = outcome
        self.position = position
        self.messages = messages
        self.kept = kept

    @property
    def publications(self) -> list[Publication]:
        if self.messages is None:
            return []
        return [described(each) for each in self.messages.publications]

    @property
    def start(self) -> Position:
        """Where the publications begin; without a tag, unless there are none."""
        assert self.position is not None
        missed = 0 if self.messages is None else len(self.messages.publications)
        if not missed:
            return self.position
        return Position(self.position.epoch, self.position.offset - missed)


_LEFT = Joined(Outcome.LEFT)


class Gap:
    """What the audience of a channel is told when it missed what cannot be had any more."""

    __slots__ = ('cause', 'kept', 'position')

    def __init__(self, cause: Outcome, position: Position, kept: bytes | None) -> None:
        self.cause = cause
        # What comes from now on follows it.
        self.position = position
        # The kept message, if it is newer than what the audience has seen.
        self.kept = kept


class Request:
    """The wish of one peer to join a channel.

    ``done`` is called once, in the loop. Before that ``delayed`` may be, several times; the wish
    stays until the peer leaves.
    """

    __slots__ = ('_delayed', '_done', 'cause', 'comes_back', 'kept', 'since')

    def __init__(
        self,
        done: Callable[[Joined], object],
        since: Position | None = None,
        delayed: Callable[[Delay], object] | None = None,
    ) -> None:
        self._done: Callable[[Joined], object] | None = done
        self._delayed = delayed
        # Whether it has named a position.
        self.comes_back = since is not None
        # What it has seen; for one that named nothing, where the channel was when the kept message
        # was read.
        self.since = since
        self.kept: bytes | None = None
        self.cause = Outcome.OK

    @property
    def is_open(self) -> bool:
        """Tell whether Redis was not asked yet about the position that it names."""
        return self.comes_back and self.kept is None and self.cause is Outcome.OK

    def note_gap(self, cause: Outcome) -> None:
        """Note why it cannot get all of what it missed; who has seen nothing misses nothing."""
        if self.comes_back:
            self.cause = cause

    def answer(self, joined: Joined) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(joined)

    def left(self) -> None:
        self.answer(_LEFT)

    def delay(self, why: Delay) -> None:
        if self._delayed is not None:
            self._delayed(why)


class Question:
    """A question for a channel's kept message, written and not answered: who asks, and why."""

    __slots__ = ('channel', 'joining', 'remaining_ms', 'resumes')

    def __init__(self, channel: Channel, joining: dict[Peer, Request], *, resumes: bool) -> None:
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


class Observer(Protocol):
    """Somebody who wants to know who is in a channel."""

    def joined(self, channel: Channel, peer: Peer) -> None:
        """Take note that a peer has joined the audience; one that is in it may do so again."""

    def left(self, channel: Channel, peer: Peer, *, at_once: bool) -> None:
        """Take note that a peer left; ``at_once``: it is not expected back."""


Channel_contra = TypeVar('Channel_contra', bound='Channel', contravariant=True)


class Past(Protocol[Channel_contra]):
    """What reads the past of channels of one kind, and fits it together with what comes live."""

    def ask(self, channel: Channel_contra) -> None:
        """Ask for what is wanted of a channel's past; the channel is subscribed."""

    def arrive(self, channel: Channel_contra, payload: bytes, header: Header | None) -> None:
        """Take what was published on a channel."""


class Channel:
    """The peers of one channel, by wire format, and those that are about to join them.

    A peer is in one place at most: among those whose question was not written yet, among those who
    asked, or in an audience. So joining and leaving cost the same, however many there are.
    """

    __slots__ = (
        'arrived',
        'asking',
        'audiences',
        'backlog_bytes',
        'delivered_at',
        'joining',
        'keys',
        'last',
        'life',
        'link',
        'name',
        'observer',
        'past',
        'pattern',
        'refused',
        'resumes',
        'subscribed',
        'tells_events',
        'wants_events',
    )

    # Set by the bus.
    past: Past[Any]

    def __init__(self, keys: ChannelKeys) -> None:
        self.keys = keys
        self.name = keys.plain
        self.audiences: dict[WireFormat, set[Peer]] = {}
        self.joining: dict[Peer, Request] = {}
        self.asking: dict[Peer, Question] = {}
        self.observer: Observer | None = None
        # By which its messages are counted: that of its facility.
        self.pattern = ''
        # Where it is; None while nobody knows.
        self.link: BusLink | None = None
        # How often it has started over: what was asked before that does not count.
        self.life = 0
        # Whether SUBSCRIBE was written to the present connection, and not refused.
        self.subscribed = False
        # Whether what is told of the channel beside payloads is wanted, and subscribed to.
        self.wants_events = False
        self.tells_events = False
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

    def holds(self, peer: Peer) -> bool:
        """Tell whether a peer is in this channel, or about to be."""
        return (
            peer in self.audiences.get(peer.wire, ()) or peer in self.joining or peer in self.asking
        )

    def add(self, peer: Peer) -> None:
        self.audiences.setdefault(peer.wire, set()).add(peer)
        if self.observer is not None:
            self.observer.joined(self, peer)

    def still_takes(self, peer: Peer) -> bool:
        """Tell whether one that was just told of its joining is to be in the audience.

        It may have left thereby, and have asked to join once more, which it is told of later.
        """
        return self in peer.channels and peer not in self.joining

    def discard(self, peer: Peer) -> Request | None:
        """Let a peer go; return its wish to join, if it was about to."""
        audience = self.audiences.get(peer.wire)
        if audience is not None:
            audience.discard(peer)
            if not audience:
                del self.audiences[peer.wire]
        question = self.asking.pop(peer, None)
        if question is not None:
            return question.joining.pop(peer)
        return self.joining.pop(peer, None)

    def ask(self) -> Question:
        """Return the question of those who have not asked yet."""
        joining, self.joining = self.joining, {}
        return self.ask_for(joining)

    def ask_for(self, joining: dict[Peer, Request]) -> Question:
        """Return the question of some, who are not among those about to join any more."""
        question = Question(self, joining, resumes=self.resumes)
        self.asking.update(dict.fromkeys(joining, question))
        self.resumes = False
        return question

    def answered(self, question: Question) -> dict[Peer, Request]:
        """Return those who asked and still want to join; they ask no more."""
        joining, question.joining = question.joining, {}
        for peer in joining:
            del self.asking[peer]
        return joining

    def start_over(self) -> None:
        """Let all ask again: the connection was lost."""
        if self.asking:
            asked = {peer: question.joining[peer] for peer, question in self.asking.items()}
            self.joining = {**asked, **self.joining}
            self.asking.clear()
        self.subscribed = self.tells_events = False
        self.resumes = True
        self.life += 1

    def requests(self) -> list[Request]:
        """Return the wishes of all who are about to join."""
        asked = [question.joining[peer] for peer, question in self.asking.items()]
        return [*asked, *self.joining.values()]

    def remember(self, payload: bytes) -> None:
        """Note the latest message of this channel that peers were sent."""
        self.last = fingerprint(payload)

    def repeats(self, payload: bytes) -> bool:
        return self.last == fingerprint(payload)


# The channels of one peer, in the order in which it joined them.
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
