"""The command connection: publishes what websockets send.

A publication counts as delivered when Redis has answered it. What was not answered when the
connection is lost is written again on the next one; a message may so be published twice when Redis
dies between doing it and saying so, but none is lost without a word.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis

from ws4redis.broker.link import RedisLink, pack_command
from ws4redis.hub.statistics import Statistics
from ws4redis.hub.websocket import Paused, Phase, WebSocket
from ws4redis.loop.loop import Hub
from ws4redis.loop.timers import Timer
from ws4redis.protocol.frames import CloseCode

logger = logging.getLogger('ws4redis')

# Senders are read no further while this much is unanswered, and again at half of it.
MAX_UNANSWERED_BYTES = 1024 * 1024
# While Redis is away each sender's last read is kept; past this much in all, senders are closed.
MAX_WAITING_BYTES = 64 * 1024 * 1024

# From channels and a message to the commands that publish it, packed, and the number of replies.
PackPublication = Callable[[tuple[str, ...], bytes], tuple[bytes, int]]


class _Publication:
    """A message whose publication Redis has not answered."""

    __slots__ = ('packed', 'replies', 'replies_expected', 'since', 'websocket')

    def __init__(
        self, packed: bytes, replies_expected: int, websocket: WebSocket, since: float
    ) -> None:
        self.packed = packed
        self.replies = 0
        self.replies_expected = replies_expected
        self.websocket: WebSocket | None = websocket
        self.since = since


class Publications(RedisLink):
    """Publish messages of websockets, and hold their senders back when Redis lags."""

    def __init__(
        self,
        hub: Hub,
        connect: Callable[[], socket.socket],
        *,
        pack: PackPublication,
        statistics: Statistics,
        timeout_seconds: float,
    ) -> None:
        super().__init__(hub, connect, name='commands', timeout_seconds=timeout_seconds)
        self._pack = pack
        self._statistics = statistics
        self._unanswered: deque[_Publication | None] = deque()
        self._unanswered_bytes = 0
        self._held_back: set[WebSocket] = set()
        self._deadline: Timer | None = None

    @property
    def unanswered(self) -> int:
        """The number of messages that Redis has not answered."""
        return sum(p is not None and p.websocket is not None for p in list(self._unanswered))

    @property
    def unanswered_bytes(self) -> int:
        return self._unanswered_bytes

    def publish(self, websocket: WebSocket, channels: tuple[str, ...], payload: bytes) -> None:
        """Publish a message; hold its sender back where Redis does not keep up."""
        packed, replies = self._pack(channels, payload)
        if self._unanswered_bytes + len(packed) > MAX_WAITING_BYTES:
            self._statistics.messages_not_published[CloseCode.TRY_AGAIN_LATER] += 1
            websocket.close(CloseCode.TRY_AGAIN_LATER, 'Redis is not available')
            return
        now = self.hub.timers.clock()
        self._unanswered.append(_Publication(packed, replies, websocket, now))
        self._unanswered_bytes += len(packed)
        if self.is_connected:
            self.write(packed)
        if not self.is_connected or self._unanswered_bytes > MAX_UNANSWERED_BYTES:
            self._hold_back(websocket)
        if self._deadline is None:
            self._deadline = self.hub.call_later(self._timeout_seconds, self._check_deadline)

    def stop(self) -> None:
        super().stop()
        # Redis was away for too long while the process was stopping.
        lost = self.unanswered
        if lost:
            self._statistics.messages_not_published[CloseCode.GOING_AWAY] += lost
            logger.error('%d messages of clients were not published before the end', lost)
        self._unanswered.clear()
        self._unanswered_bytes = 0

    def turn_end(self) -> bool:
        return self.flush()

    # Holding senders back

    def _hold_back(self, websocket: WebSocket) -> None:
        self._held_back.add(websocket)
        websocket.pause_reading(Paused.REDIS)

    def _let_go(self) -> None:
        if not self._held_back or not self.is_connected:
            return
        if self._unanswered_bytes <= MAX_UNANSWERED_BYTES // 2:
            held_back, self._held_back = self._held_back, set()
            for websocket in held_back:
                websocket.resume_reading(Paused.REDIS)

    def forget(self, websocket: WebSocket) -> None:
        """Let go of a websocket that has closed; what it sent is published all the same."""
        self._held_back.discard(websocket)

    def _check_deadline(self) -> None:
        """Close the senders whose messages Redis has not taken for too long."""
        self._deadline = None
        overdue_since = self.hub.timers.clock() - self._timeout_seconds
        oldest = self._oldest()
        if oldest is not None and oldest.since <= overdue_since:
            # Were it connected, only a hanging Redis could have left it unanswered.
            self.lost(f'no answer for {self._timeout_seconds:g} seconds')
        while oldest is not None and oldest.since <= overdue_since:
            self._unanswered.popleft()
            if oldest.websocket is not None:
                self._give_up(oldest, CloseCode.TRY_AGAIN_LATER, 'Redis is not available')
            oldest = self._oldest()
        if oldest is not None:
            wait = oldest.since - overdue_since
            self._deadline = self.hub.call_later(wait, self._check_deadline)

    def _oldest(self) -> _Publication | None:
        return next((p for p in self._unanswered if p is not None), None)

    def _give_up(self, publication: _Publication, code: CloseCode, reason: str) -> None:
        self._unanswered_bytes -= len(publication.packed)
        self._statistics.messages_not_published[code] += 1
        if publication.websocket is not None and publication.websocket.phase is Phase.OPEN:
            publication.websocket.close(code, reason)

    # The connection

    def connected(self) -> None:
        for publication in self._unanswered:
            assert publication is not None
            publication.replies = 0
            self.write(publication.packed)
        self._let_go()

    def disconnected(self) -> None:
        # The answers to health checks are expected no more.
        self._unanswered = deque(p for p in self._unanswered if p is not None)

    def health_check(self) -> None:
        self.write(pack_command(b'PING'))
        self._unanswered.append(None)

    def reply_received(self, reply: Any) -> None:
        if isinstance(reply, hiredis.PushNotification):
            return
        if not self._unanswered:
            self.lost(f'unexpected reply {reply!r}')
            return
        publication = self._unanswered[0]
        if publication is None:
            self._unanswered.popleft()
            return
        publication.replies += 1
        if isinstance(reply, hiredis.HiredisError):
            self._refused(publication, reply)
        if publication.replies == publication.replies_expected:
            self._unanswered.popleft()
            # One that was refused has been given up already.
            if publication.websocket is not None:
                self._unanswered_bytes -= len(publication.packed)
                self._statistics.messages_published += 1
            self._let_go()

    def _refused(self, publication: _Publication, error: Exception) -> None:
        if publication.websocket is not None:
            logger.error('Redis refuses a message of %r: %s', publication.websocket, error)
            self._give_up(publication, CloseCode.INTERNAL_ERROR, 'not published')
            publication.websocket = None
