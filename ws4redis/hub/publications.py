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
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis

from ws4redis.broker.link import RedisLink, error_code, ignore
from ws4redis.hub.statistics import Statistics
from ws4redis.hub.websocket import Paused, Phase, WebSocket
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

# From channels and a message to the commands that publish it, packed, and the number of replies.
PackPublication = Callable[[tuple[str, ...], bytes], tuple[bytes, int]]


class _Publication:
    """A message whose publication Redis has not answered."""

    __slots__ = (
        '_publications',
        'channels',
        'error',
        'packed_bytes',
        'payload',
        'since',
        'size',
        'was_written',
        'websocket',
    )

    def __init__(
        self,
        publications: Publications,
        websocket: WebSocket,
        channels: tuple[str, ...],
        payload: bytes,
        since: float,
    ) -> None:
        self._publications = publications
        self.websocket = websocket
        self.channels = channels
        self.payload = payload
        self.since = since
        self.size = len(payload) + MESSAGE_OVERHEAD_BYTES
        self.packed_bytes = 0
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
        self._publications.settled(self)

    def refused(self, error: Exception) -> None:
        self.note_error(error)
        self._publications.settled(self)


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
    ) -> None:
        super().__init__(loop, connect, name='commands', timeout_seconds=timeout_seconds)
        self._pack = pack
        self._is_heard = is_heard
        self._moved = moved
        self._statistics = statistics
        # In the order in which they came; all of the former before all of the latter.
        self._under_way: deque[_Publication] = deque()
        self._waiting: deque[_Publication] = deque()
        self._under_way_bytes = 0
        self._unanswered_bytes = 0
        # How much of that is each sender's.
        self._shares: dict[WebSocket, int] = {}
        self._held_back: set[WebSocket] = set()
        self._deadline: Timer | None = None
        # Whether this connection has published, and whether one could not since it is read-only.
        self._has_published = False
        self._was_read_only = False

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

    def publish(self, websocket: WebSocket, channels: tuple[str, ...], payload: bytes) -> None:
        """Publish a message; hold its sender back where Redis does not keep up."""
        publication = _Publication(
            self, websocket, channels, payload, since=self.loop.timers.clock()
        )
        self._waiting.append(publication)
        self._unanswered_bytes += publication.size
        self._shares[websocket] = self._shares.get(websocket, 0) + publication.size
        if self._unanswered_bytes > MAX_WAITING_BYTES:
            self._close_heaviest()
        if self._unanswered_bytes > MAX_UNANSWERED_BYTES or not self._may_write:
            self._hold_back(websocket)
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
        self._shares.clear()
        self._unanswered_bytes = 0

    def turn_end(self) -> bool:
        """Write what may be written, and let senders go on."""
        if self._waiting and self._may_write:
            self._write_on()
        if self._held_back:
            self._let_go()
        return self.flush()

    def _write_on(self) -> None:
        waiting = self._waiting
        while waiting and self._under_way_bytes < MAX_UNANSWERED_BYTES:
            publication = waiting.popleft()
            packed, replies = self._pack(publication.channels, publication.payload)
            publication.packed_bytes = len(packed)
            publication.was_written = True
            self._under_way.append(publication)
            self._under_way_bytes += len(packed)
            self.write(packed)
            if replies > 1:
                self.expect(ignore, publication.note_error, commands=replies - 1)
            self.expect(publication.answered, publication.refused)

    def settled(self, publication: _Publication) -> None:
        """Count a message that Redis has answered; close its sender if it was refused."""
        first = self._under_way.popleft()
        assert first is publication
        self._under_way_bytes -= publication.packed_bytes
        self._take_off(publication)
        if publication.error is None:
            self._statistics.messages_published += 1
            self._has_published = True
            if self._was_read_only:
                self._was_read_only = False
                self._moved()
        else:
            logger.error(
                'Redis refuses a message of %r: %s', publication.websocket, publication.error
            )
            self._give_up(publication, CloseCode.INTERNAL_ERROR, 'not published')

    def _take_off(self, publication: _Publication) -> None:
        """Let a message count no more among what waits."""
        self._unanswered_bytes -= publication.size
        websocket = publication.websocket
        share = self._shares[websocket] - publication.size
        if share:
            self._shares[websocket] = share
        else:
            del self._shares[websocket]

    def _give_up(self, publication: _Publication, code: CloseCode, reason: str) -> None:
        self._statistics.messages_not_published[code] += 1
        if publication.websocket.phase is Phase.OPEN:
            publication.websocket.close(code, reason)

    # Holding senders back

    def _hold_back(self, websocket: WebSocket) -> None:
        if websocket.phase <= Phase.OPEN:
            self._held_back.add(websocket)
            websocket.pause_reading(Paused.REDIS)

    def _let_go(self) -> None:
        if self._unanswered_bytes <= MAX_UNANSWERED_BYTES // 2 and self._may_write:
            held_back, self._held_back = self._held_back, set()
            for websocket in held_back:
                websocket.resume_reading(Paused.REDIS)

    def forget(self, websocket: WebSocket) -> None:
        """Let go of a websocket that has closed; what it sent is published all the same."""
        self._held_back.discard(websocket)

    def _close_heaviest(self) -> None:
        """Make room: give up what waits of those senders of whom most does."""
        # More than is needed at once, since each time all that waits is looked through.
        excess = self._unanswered_bytes - MAX_WAITING_BYTES * 7 // 8
        closed: set[WebSocket] = set()
        for websocket in sorted(self._shares, key=self._shares.__getitem__, reverse=True):
            if excess <= 0:
                break
            excess -= self._shares[websocket]
            closed.add(websocket)
        waiting, self._waiting = self._waiting, deque()
        dropped: list[_Publication] = []
        for publication in waiting:
            if publication.websocket in closed:
                self._take_off(publication)
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
        if self._under_way and self._under_way[0].since <= overdue_since:
            # It is connected, so only a hanging Redis can have left it unanswered.
            self.lost(f'no answer for {self._timeout_seconds:g} seconds')
        overdue: list[_Publication] = []
        while self._waiting and self._waiting[0].since <= overdue_since:
            publication = self._waiting.popleft()
            self._take_off(publication)
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
        oldest = next(iter(self._under_way or self._waiting), None)
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
