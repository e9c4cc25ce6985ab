"""The command connection: publishes what websockets send.

A publication counts as delivered when Redis has answered it. What was not answered when the
connection is lost is written again on the next one; a message may so be published twice when Redis
dies between doing it and saying so, but none is lost silently.

Messages wait, unpacked, while Redis is away, while the bus is not subscribed (they would miss the
websockets of this very process), and while enough is under way already.
"""

from __future__ import annotations

import logging
import socket
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, TypeAlias

import hiredis

from ws4redis.broker.history import Kind, Position
from ws4redis.broker.kept import NotKept
from ws4redis.broker.link import RedisLink, error_code, ignore, pack_command
from ws4redis.broker.outgoing import Exchange, Outgoing
from ws4redis.broker.scripts import script_of
from ws4redis.hub.peer import Paused, Peer, Phase
from ws4redis.hub.statistics import Statistics
from ws4redis.loop.loop import Loop
from ws4redis.loop.timers import Timer
from ws4redis.protocol.frames import CloseCode

logger = logging.getLogger('ws4redis')

# Senders are read no further while this much is unanswered, and again at half of it. No more than
# this is written to Redis before it answers.
MAX_UNANSWERED_BYTES = 1024 * 1024
# While Redis is away each sender's last read is kept; past this much in all, the senders of whom
# most is kept are closed.
MAX_WAITING_BYTES = 64 * 1024 * 1024
# What a message costs beyond its payload while it waits. The names of its channels are shared.
MESSAGE_OVERHEAD_BYTES = 256


# The commands that publish a message, as bytes, and how many replies they have. The exchange is
# there if a channel has a history: what it replies is looked at.
Packed: TypeAlias = 'tuple[bytes, int, Exchange | None]'

# From a message to the commands that publish it. The tag is what an earlier attempt gave it, or
# empty; the last argument says that Redis may have published it already. Raises `NotKept`, and
# ``ValueError`` for an idempotency key where there is no history.
PackPublication = Callable[[Outgoing, str, bool], Packed]
# Takes the position on each channel that has a history, or why the message was not published.
Done = Callable[[dict[str, Position] | None, Exception | None], object]


_numbers = count()


class NotPublished(Exception):
    """Tell that a message was given up; ``code`` is the close code for who sent it."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Publication(Outgoing):
    """A message whose publication Redis has not answered."""

    __slots__ = (
        'done',
        'error',
        'exchange',
        'number',
        'packed_bytes',
        'peer',
        'positions',
        'publications',
        'replies',
        'since',
        'size',
        'tag',
        'was_written',
    )

    def __init__(
        self,
        publications: Publications,
        peer: Peer,
        channels: tuple[str, ...],
        payload: bytes,
        kind: Kind,
        once: str | None,
        done: Done | None,
        since: float,
    ) -> None:
        self.channels = channels
        self.payload = payload
        self.kind = kind
        self.expire = None
        self.once = once
        self.publications = publications
        # By it messages that wait in several places find their order again.
        self.number = next(_numbers)
        self.peer = peer
        self.done = done
        self.since = since
        self.size = len(payload) + MESSAGE_OVERHEAD_BYTES
        self.packed_bytes = 0
        # By it Redis tells whether it has published this one already.
        self.tag = ''
        # Where a channel has a history: what is asked of Redis, and its replies so far.
        self.exchange: Exchange | None = None
        self.replies: list[Any] | None = None
        self.positions: dict[str, Position] | None = None
        # Whether it was written to any connection, so that Redis may do it whatever happens.
        self.was_written = False
        self.error: Exception | None = None

    # Answers: of the commands before the last one only errors tell anything

    def note_error(self, error: Exception) -> None:
        if self.error is None:
            self.error = error

    def answered(self, reply: Any) -> None:
        """Take the last answer, which for a transaction holds those of its commands."""
        if type(reply) is list:
            for part in reply:
                if isinstance(part, hiredis.HiredisError):
                    self.note_error(part)
        self.publications.settled(self)

    def refused(self, error: Exception) -> None:
        self.note_error(error)
        self.publications.settled(self)

    # Where a channel has a history, each reply tells something

    def take(self, reply: Any) -> None:
        assert self.exchange is not None
        assert self.replies is not None
        self.replies.append(reply)
        if len(self.replies) == len(self.exchange.commands):
            unknown = [place for place, r in enumerate(self.replies) if _is_unknown_script(r)]
            if unknown:
                self.publications.repeat_with_text(self, unknown)
            else:
                self.all_replied()

    def all_replied(self) -> None:
        assert self.exchange is not None
        assert self.replies is not None
        for reply in self.replies:
            if isinstance(reply, Exception):
                self.note_error(reply)
        if self.error is None:
            self.positions = self.exchange.positions(self.replies)
        self.publications.settled(self)


class _Repetition:
    """Commands that are repeated with the text of their script, which Redis had forgotten."""

    def __init__(self, publication: Publication, places: Sequence[int]) -> None:
        self._publication = publication
        self._places = list(places)

    def take(self, reply: Any) -> None:
        assert self._publication.replies is not None
        self._publication.replies[self._places.pop(0)] = reply
        if not self._places:
            self._publication.all_replied()


def _is_unknown_script(reply: Any) -> bool:
    return isinstance(reply, Exception) and error_code(reply) == 'NOSCRIPT'


class Publications(RedisLink):
    """Publish messages of websockets, and hold their senders back when Redis lags.

    ``is_heard`` tells whether what is published now reaches the websockets of this process;
    ``moved`` is called when the address of Redis leads, or may lead, to another server than before.
    """

    def __init__(
        self,
        loop: Loop,
        connect: Callable[[], socket.socket],
        *,
        pack: PackPublication,
        is_heard: Callable[[], bool],
        moved: Callable[[], object],
        statistics: Statistics,
        timeout_seconds: float,
        name: str = 'commands',
    ) -> None:
        super().__init__(loop, connect, name=name, timeout_seconds=timeout_seconds)
        self._pack = pack
        self._is_heard = is_heard
        self._moved = moved
        self._statistics = statistics
        # In the order in which they came; all of the former before all of the latter.
        self._under_way: dict[Publication, None] = {}
        self._waiting: deque[Publication] = deque()
        self._under_way_bytes = 0
        self._unanswered_bytes = 0
        self._held_back: set[Peer] = set()
        self._deadline: Timer | None = None
        # Whether this connection has published, and whether one could not since it is read-only.
        self._has_published = False
        self._was_read_only = False
        # Whether Redis had forgotten a script, and not all that was under way then is answered.
        self._repeats = False

    @property
    def unanswered(self) -> int:
        """The number of messages that Redis has not answered."""
        return len(self._under_way) + len(self._waiting)

    @property
    def unanswered_bytes(self) -> int:
        return self._unanswered_bytes

    @property
    def _may_write(self) -> bool:
        return self.is_connected and self._is_heard()

    def publish(
        self,
        peer: Peer,
        channels: tuple[str, ...],
        payload: bytes,
        kind: Kind = Kind.TEXT,
        once: str | None = None,
        done: Done | None = None,
    ) -> None:
        """Publish a message; hold its sender back where Redis does not keep up.

        Without ``done`` a sender whose message is not published is closed.
        """
        now = self.loop.timers.clock()
        self._add(Publication(self, peer, channels, payload, kind, once, done, now))

    def _add(self, publication: Publication) -> None:
        peer = publication.peer
        publication.publications = self
        self._waiting.append(publication)
        self._unanswered_bytes += publication.size
        if self._unanswered_bytes > MAX_WAITING_BYTES:
            self._close_heaviest()
        if (
            self._unanswered_bytes > MAX_UNANSWERED_BYTES
            or not self.is_connected
            or not self._is_heard()
        ):
            self._hold_back(peer)
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._timeout_seconds, self._check_deadline)

    def stop(self) -> None:
        super().stop()
        # Redis was away for too long while the process was stopping.
        lost = self.unanswered
        if lost:
            self._statistics.messages_not_published[CloseCode.GOING_AWAY] += lost
            logger.error('%d messages of clients were not published before the end', lost)
        self._waiting.clear()
        self._unanswered_bytes = 0

    def turn_end(self) -> bool:
        """Write what may be written, and let senders go on."""
        if not self._under_way:
            self._repeats = False
        # What is written before all is repeated would overtake it: Redis knows the script by then.
        if self._waiting and self._may_write and not self._repeats:
            self._write_on()
        if self._held_back:
            self._let_go()
        return self.flush()

    def _write_on(self) -> None:
        waiting = self._waiting
        while waiting and self._under_way_bytes < MAX_UNANSWERED_BYTES:
            publication = waiting.popleft()
            try:
                packed = self._pack(publication, publication.tag, publication.was_written)
            except NotKept:
                self._not_packed(publication, 'Redis keeps too much of what clients sent')
            except ValueError as exc:
                self._not_packed(publication, str(exc))
            else:
                self._write(publication, packed)

    def _not_packed(self, publication: Publication, reason: str) -> None:
        self._unanswered_bytes -= publication.size
        self._give_up(publication, CloseCode.TRY_AGAIN_LATER, reason)

    def _write(self, publication: Publication, packed: Packed) -> None:
        data, replies, exchange = packed
        publication.packed_bytes = len(data)
        publication.was_written = True
        self._under_way[publication] = None
        self._under_way_bytes += len(data)
        self.write(data)
        if exchange is not None:
            publication.exchange = exchange
            publication.tag = exchange.tag
            publication.replies = []
            self.expect(publication.take, publication.take, commands=replies)
            return
        if replies > 1:
            self.expect(ignore, publication.note_error, commands=replies - 1)
        self._expected.append((publication.answered, publication.refused, None))

    def repeat_with_text(self, publication: Publication, places: Sequence[int]) -> None:
        """Write some commands of a publication again: Redis has forgotten their script."""
        assert publication.exchange is not None
        self._repeats = True
        repetition = _Repetition(publication, places)
        for place in places:
            command = publication.exchange.commands[place]
            self.write(pack_command(*script_of(command).with_text(command)))
            self.expect(repetition.take, repetition.take)

    def settled(self, publication: Publication) -> None:
        """Count a message that Redis has answered; close its sender if it was refused."""
        del self._under_way[publication]
        self._under_way_bytes -= publication.packed_bytes
        self._unanswered_bytes -= publication.size
        if publication.error is None:
            self._statistics.messages_published += 1
            self._has_published = True
            if self._was_read_only:
                self._was_read_only = False
                self._moved()
            if publication.done is not None:
                publication.done(publication.positions or {}, None)
        else:
            logger.error('Redis refuses a message of %r: %s', publication.peer, publication.error)
            self._give_up(publication, CloseCode.INTERNAL_ERROR, 'not published')

    def _give_up(self, publication: Publication, code: CloseCode, reason: str) -> None:
        self._statistics.messages_not_published[code] += 1
        if publication.done is not None:
            publication.done(None, NotPublished(code, reason))
        elif publication.peer.phase is Phase.OPEN:
            publication.peer.close(code, reason)

    # Holding senders back

    def _hold_back(self, peer: Peer) -> None:
        if peer.phase <= Phase.OPEN:
            self._held_back.add(peer)
            peer.pause_reading(Paused.REDIS)

    def _let_go(self) -> None:
        if self._unanswered_bytes <= MAX_UNANSWERED_BYTES // 2 and self._may_write:
            held_back, self._held_back = self._held_back, set()
            for peer in held_back:
                self._resume(peer)

    def _resume(self, peer: Peer) -> None:
        peer.resume_reading(Paused.REDIS)

    def forget(self, peer: Peer) -> None:
        """Let go of a peer that has closed; what it sent is published all the same."""
        self._held_back.discard(peer)

    def _close_heaviest(self) -> None:
        """Make room: give up what waits of those senders of whom most does."""
        # More than is needed at once, since each time all that waits is looked through.
        excess = self._unanswered_bytes - MAX_WAITING_BYTES * 7 // 8
        shares: Counter[Peer] = Counter()
        for publication in (*self._under_way, *self._waiting):
            shares[publication.peer] += publication.size
        closed: set[Peer] = set()
        for peer, share in shares.most_common():
            if excess <= 0:
                break
            excess -= share
            closed.add(peer)
        waiting, self._waiting = self._waiting, deque()
        dropped: list[Publication] = []
        for publication in waiting:
            if publication.peer in closed:
                self._unanswered_bytes -= publication.size
                dropped.append(publication)
            else:
                self._waiting.append(publication)
        logger.warning(
            'too much waits for Redis: %d messages of %d clients were given up, which sent most',
            len(dropped),
            len(closed),
        )
        for publication in dropped:
            self._give_up(publication, CloseCode.TRY_AGAIN_LATER, 'you sent too much for Redis')

    def _check_deadline(self) -> None:
        """Close the senders whose messages Redis has not taken for too long."""
        self._deadline = None
        overdue_since = self.loop.timers.clock() - self._timeout_seconds
        oldest = next(iter(self._under_way), None)
        if oldest is not None and oldest.since <= overdue_since:
            # It is connected, so only a hanging Redis can have left it unanswered.
            self.lost(f'no answer for {self._timeout_seconds:g} seconds')
        overdue: list[Publication] = []
        while self._waiting and self._waiting[0].since <= overdue_since:
            publication = self._waiting.popleft()
            self._unanswered_bytes -= publication.size
            overdue.append(publication)
        if overdue:
            logger.error(
                '%d messages of clients were given up after %g seconds; %d of them were under way '
                'and may be published when Redis goes on',
                len(overdue),
                self._timeout_seconds,
                sum(publication.was_written for publication in overdue),
            )
        for publication in overdue:
            reason = 'Redis is not available'
            if publication.was_written:
                reason = 'Redis does not answer, the message may be published later'
            self._give_up(publication, CloseCode.TRY_AGAIN_LATER, reason)
        oldest = next(iter(self._under_way), None) or next(iter(self._waiting), None)
        if oldest is not None and self._deadline is None:
            wait = oldest.since - overdue_since
            self._deadline = self.loop.call_later(wait, self._check_deadline)

    # The connection

    def connected(self) -> None:
        self._has_published = False

    def disconnected(self) -> None:
        for publication in self._under_way:
            publication.error = None
        self._waiting.extendleft(reversed(self._under_way))
        self._under_way.clear()
        self._under_way_bytes = 0

    def away(self, error: Exception) -> None:
        if error_code(error) == 'READONLY':
            # A failover. The old master may take subscriptions still, and never publish again.
            if self._has_published:
                self._moved()
            else:
                self._was_read_only = True
        super().away(error)
