"""Catching up on channels without a history: whoever joins is sent the kept message.

``GET`` of it goes out behind ``SUBSCRIBE``, and is answered in the order in which Redis ran them:
what was published before is older than its answer, what was published after it follows the answer.
The peer joins the audience at that very point, so it misses nothing and gets nothing twice.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from ws4redis.hub.channel import Joined, Outcome, Question
from ws4redis.hub.publication import Publication
from ws4redis.hub.recent import RecentMessages

if TYPE_CHECKING:
    from ws4redis.broker.history import Header
    from ws4redis.hub.bus import Bus
    from ws4redis.hub.channel import Channel
    from ws4redis.hub.fanout import Fanout
    from ws4redis.hub.statistics import Statistics

logger = logging.getLogger('ws4redis')


class KeptMessages:
    """Bring channels without a history up to date, and let peers join them."""

    def __init__(
        self,
        bus: Bus,
        fanout: Fanout,
        *,
        statistics: Statistics,
        heartbeat: bytes | None,
        expire_seconds: int | None,
    ) -> None:
        self._bus = bus
        self._fanout = fanout
        self._statistics = statistics
        self._heartbeat = heartbeat
        self._recent = RecentMessages(expire_seconds) if expire_seconds else None

    def arrive(self, channel: Channel, payload: bytes, header: Header | None) -> None:
        """Take what was published on a channel."""
        if channel.audiences and payload != self._heartbeat:
            self._statistics.redis_messages += 1
            self._fanout.arrive(
                channel, payload if header is None else Publication(payload, header.kind)
            )
            if self._recent is not None:
                self._recent.came(channel.name, payload, self._bus.loop.timers.clock())

    def ask(self, channel: Channel) -> None:
        """Ask for the kept message of a channel, if anybody is to get it."""
        if not channel.joining and not channel.resumes:
            return
        question = channel.ask()
        if question.resumes and channel.audiences and self._recent is not None:
            # Before GET: whoever joins does so at the very point where that is answered.
            self._bus.send(channel, b'PTTL', channel.name, replied=question.note_remaining)
        self._bus.send(
            channel,
            *(b'GET', channel.name),
            replied=partial(self._answered, question),
            refused=partial(self._refused, question),
        )

    def _refused(self, question: Question, error: Exception) -> None:
        logger.error('Redis does not give the message kept as %r: %s', question.channel.name, error)
        self._answered(question, None)

    def _answered(self, question: Question, kept: bytes | None) -> None:
        channel = question.channel
        if kept == self._heartbeat:
            kept = None
        joining = channel.answered(question)
        if kept is not None:
            if question.resumes and channel.audiences and not self._was_delivered(question, kept):
                self._fanout.arrive(channel, kept)
            if joining and not channel.audiences:
                channel.remember(kept)
        # What arrived before this moment is in the kept message, or older.
        self._fanout.settle(channel)
        joined = Joined(Outcome.OK, kept=kept)
        for peer, request in joining.items():
            if channel.still_takes(peer):
                request.answer(joined)
            # Sending may have ended it, or another one; who has ended is in no channel.
            if channel.still_takes(peer):
                channel.add(peer)
            else:
                request.left()

    def _was_delivered(self, question: Question, kept: bytes) -> bool:
        """Tell whether the kept message is the latest that came live, or an older one that did."""
        channel = question.channel
        waiting = self._fanout.latest_waiting(channel)
        if channel.repeats(kept) if waiting is None else waiting == kept:
            return True
        return self._recent is not None and self._recent.includes(
            channel.name,
            kept,
            remaining_ms=question.remaining_ms,
            now=self._bus.loop.timers.clock(),
        )
