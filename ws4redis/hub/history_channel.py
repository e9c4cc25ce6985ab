"""A channel with a history: where it is, its tail, and who comes back to it."""

from __future__ import annotations

from collections import Counter
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from ws4redis.broker.history import Header, Kind, Position
from ws4redis.hub.channel import Channel, Joined, Outcome, Request
from ws4redis.hub.messages import Messages
from ws4redis.hub.tail import Tail

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ws4redis.broker.keys import ChannelKeys
    from ws4redis.hub.peer import Peer
    from ws4redis.hub.publication import Publication
    from ws4redis.loop.timers import Timer

# What waits takes so much beside its payload.
WAITING_BYTES = 300


class State(IntEnum):
    """What a channel with a history does in this process; see docs/explanation/histories.md."""

    AWAY = 0  # not subscribed
    CATCHING_UP = 1  # a read is under way; what comes live waits
    LIVE = 2


class Live(NamedTuple):
    """A message as it came live."""

    payload: bytes
    header: Header | None

    @property
    def position(self) -> Position | None:
        return None if self.header is None else self.header.position


class HistoryChannel(Channel):
    """A channel whose publications are numbered and kept.

    ``position`` is that of the newest publication that this process has taken in, None until it has
    read it. Who is in the audience has seen that one, or it is on the way through the fan-out.
    """

    __slots__ = (
        '_shared',
        'earlier',
        'floor',
        'floor_cause',
        'history_size',
        'keeps_all',
        'kind',
        'linger',
        'overflowed',
        'position',
        'returning',
        'state',
        'tail',
        'vain_reads',
        'waiting',
        'waiting_bytes',
    )

    def __init__(self, keys: ChannelKeys, history_size: int) -> None:
        super().__init__(keys)
        self.wants_events = True
        self.history_size = history_size
        self.state = State.AWAY
        self.position: Position | None = None
        # That of the newest publication, which is the one that is kept.
        self.kind = Kind.TEXT
        self.tail = Tail(0, '')
        # What follows an offset below this one cannot be had, for this cause.
        self.floor = 0
        self.floor_cause = Outcome.TRIMMED
        # What came live while it catches up, in order.
        self.waiting: list[Live] = []
        self.waiting_bytes = 0
        self.overflowed = False
        # Reads in a row that brought nothing new.
        self.vain_reads = 0
        # Those who have seen less than the tail holds, and what was read for them so far.
        self.returning: dict[Peer, Request] = {}
        self.earlier: Tail | None = None
        # Whether the tail is not to be shortened, since there are some who need all of it.
        self.keeps_all = False
        self.linger: Timer | None = None
        # What is the same for all who come back to one offset.
        self._shared: dict[int, Joined] = {}

    # Who is about to join

    @property
    def is_wanted(self) -> bool:
        return bool(self.audiences or self.joining or self.asking or self.returning)

    def holds(self, peer: Peer) -> bool:
        return super().holds(peer) or peer in self.returning

    def discard(self, peer: Peer) -> Request | None:
        return super().discard(peer) or self.returning.pop(peer, None)

    def start_over(self) -> None:
        super().start_over()
        self.look_again()
        self.state = State.AWAY
        self.earlier = None
        self.clear_waiting()

    def look_again(self) -> None:
        """Let those who wait for what is older than the tail be looked at again."""
        if self.returning:
            self.joining = {**self.returning, **self.joining}
            self.returning = {}

    def requests(self) -> list[Request]:
        return [*super().requests(), *self.returning.values()]

    # What came live while it catches up

    def clear_waiting(self) -> list[Live]:
        waiting, self.waiting = self.waiting, []
        self.waiting_bytes = 0
        self.overflowed = False
        return waiting

    def wait(self, item: Live, max_bytes: int) -> None:
        """Let a message wait until the channel has caught up; what is too much is dropped.

        It is in the stream, and read from there.
        """
        size = WAITING_BYTES + len(item.payload)
        if self.waiting_bytes + size > max_bytes and self.waiting:
            self.overflowed = True
        if not self.overflowed:
            self.waiting.append(item)
            self.waiting_bytes += size

    # Positions

    def begin_at(self, position: Position, kind: Kind = Kind.TEXT) -> None:
        """Take a position as the newest; nothing is known of what was before it."""
        self.position = position
        self.kind = kind
        self.tail = Tail(position.offset, position.tag)
        self.floor = 0
        self.earlier = None
        self.vain_reads = 0
        self._shared.clear()

    def position_before_waiting(self, newest: Position) -> Position:
        """Return the position from which what waits goes on to the newest one."""
        for _, header in self.waiting:
            position = None if header is None else header.position
            if (
                header is not None
                and position is not None
                and position.epoch == newest.epoch
                and position.offset <= newest.offset
            ):
                return Position(newest.epoch, position.offset - 1, header.tag_before)
        return newest

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing was ever published, as far as Redis can tell."""
        return self.position is not None and self.position.offset == 0

    def has_taken(self, position: Position) -> bool:
        """Tell whether this channel has come to a position, or beyond it."""
        newest = self.position
        return (
            newest is not None
            and position.epoch == newest.epoch
            and position.offset <= newest.offset
        )

    def is_followed_by(self, header: Header) -> bool:
        """Tell whether a publication is the one after the newest."""
        position, newest = header.position, self.position
        return (
            position is not None
            and newest is not None
            and position.offset == newest.offset + 1
            and header.tag_before == newest.tag
            and position.epoch == newest.epoch
        )

    def accept(self, publication: Publication) -> None:
        """Take in the publication after the newest."""
        self.position = publication.position
        self.kind = publication.kind
        self.tail.append(publication)
        self.vain_reads = 0
        if self._shared:
            self._shared.clear()

    def cause_against(self, since: Position) -> Outcome:
        """Tell why what came after a position cannot be had, as far as that is known; else ``OK``.

        What lies before the tail may still be in the stream.
        """
        newest = self.position
        assert newest is not None
        if since.epoch != newest.epoch:
            return Outcome.EPOCH
        if since.offset > newest.offset:
            return Outcome.BROKEN
        if since.offset < self.floor:
            return self.floor_cause
        if (
            self.has_in_memory(since)
            and since.tag
            and self.tail.tag_at(since.offset) not in ('', since.tag)
        ):
            return Outcome.BROKEN
        return Outcome.OK

    def has_in_memory(self, since: Position) -> bool:
        """Tell whether the tail reaches back to a position of the present epoch."""
        return since.offset >= self.tail.before

    def joined(self, request: Request) -> Joined:
        """Return what a peer gets whose position the tail reaches back to."""
        assert request.since is not None
        offset = request.since.offset
        if request.kept is not None or request.cause is not Outcome.OK:
            return self._joined(offset, request.cause, request.kept)
        shared = self._shared.get(offset)
        if shared is None:
            shared = self._shared[offset] = self._joined(offset, Outcome.OK, None)
        return shared

    def _joined(self, offset: int, cause: Outcome, kept: bytes | None) -> Joined:
        missed = self.tail.after(offset)
        return Joined(cause, self.position, Messages(missed, self.name) if missed else None, kept)


def oldest_wanted(requests: Iterable[Request]) -> Position | None:
    """Return the oldest position in the epoch that most of those who come back name."""
    named = [request.since for request in requests if request.since is not None]
    if not named:
        return None
    ((epoch, _),) = Counter(position.epoch for position in named).most_common(1)
    offset = min(position.offset for position in named if position.epoch == epoch)
    # Without a tag: who names it proves nothing. Each one's own is compared later.
    return Position(epoch, offset)
