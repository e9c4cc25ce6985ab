"""The bus: the one pub/sub connection of a process.

It speaks RESP3, in which a connection with subscriptions may run other commands too. So for a
websocket that joins a channel, ``SUBSCRIBE`` (if the channel is new here) and ``GET`` of the kept
message go out together, and come back in the order in which Redis ran them: what was published
before the ``GET`` is older than its reply, and what was published after it follows the reply. The
websocket joins the audience at that very point, so it misses nothing and gets nothing twice.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any

from ws4redis.broker.link import RedisLink
from ws4redis.hub.channel import Channel, Joining, Question, with_channel, without_channel
from ws4redis.hub.fanout import Fanout
from ws4redis.hub.recent import RecentMessages
from ws4redis.hub.statistics import Statistics
from ws4redis.hub.websocket import WebSocket
from ws4redis.loop.loop import Loop

logger = logging.getLogger('ws4redis')

# About 5 ms of writing; one websocket may join thousands of channels.
CHANGES_PER_TURN = 500
# How long after Redis refused a subscription it is asked again: its access list may be mended.
REFUSED_SECONDS = 5.0


class Bus(RedisLink):
    """Subscribe to the channels that websockets want, and take in what is published there."""

    def __init__(
        self,
        loop: Loop,
        connect: Callable[[], socket.socket],
        *,
        fanout: Fanout,
        statistics: Statistics,
        heartbeat: bytes | None,
        expire_seconds: int | None,
        timeout_seconds: float,
    ) -> None:
        super().__init__(loop, connect, name='pub/sub', timeout_seconds=timeout_seconds)
        self.channels: dict[bytes, Channel] = {}
        self._fanout = fanout
        self._statistics = statistics
        self._heartbeat = heartbeat
        self._recent = RecentMessages(expire_seconds) if expire_seconds else None
        # Channels whose subscription may have to change, in the order in which that came up.
        self._changed: dict[Channel, None] = {}
        # Channels that Redis refused on this connection.
        self._refused: dict[Channel, None] = {}
        # Whether Redis has taken in all that was subscribed when this connection was made.
        self.is_subscribed = False
        self._resubscribes = False

    # Joining and leaving

    def join(self, websocket: WebSocket, names: Iterable[str], joining: Joining) -> None:
        """Let a websocket join channels, after those that it is in.

        ``joining`` is told once for each when Redis has answered; when Redis is away it proceeds at
        once, and the websocket joins when Redis is back.
        """
        for name in names:
            channel = self._channel(name.encode())
            if channel.holds(websocket):
                joining.joined()
                continue
            channel.joining[websocket] = joining
            websocket.channels = with_channel(websocket.channels, channel)
            self._changed[channel] = None
        if self.is_away:
            joining.proceed()

    def _channel(self, name: bytes) -> Channel:
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(name)
        return channel

    def holds(self, websocket: WebSocket, name: str) -> bool:
        """Tell whether a websocket is in a channel, or about to be."""
        channel = self.channels.get(name.encode())
        return channel is not None and channel.holds(websocket)

    def leave(self, websocket: WebSocket, names: Iterable[str]) -> None:
        """Let a websocket leave some of its channels."""
        for name in names:
            channel = self.channels.get(name.encode())
            if channel is not None and channel.holds(websocket):
                websocket.channels = without_channel(websocket.channels, channel)
                self._leave(websocket, channel)

    def leave_all(self, websocket: WebSocket) -> None:
        """Let a websocket leave all of its channels."""
        leaving, websocket.channels = websocket.channels, ()
        for channel in leaving:
            self._leave(websocket, channel)

    def _leave(self, websocket: WebSocket, channel: Channel) -> None:
        joining = channel.discard(websocket)
        if joining is not None:
            joining.joined()
        if not channel.is_wanted:
            self._changed[channel] = None

    def turn_end(self) -> bool:
        """Write subscriptions that have changed; tell whether there are more."""
        for channel in list(islice(self._changed, CHANGES_PER_TURN)):
            del self._changed[channel]
            self._update(channel)
        if self._resubscribes and not self._changed:
            # Its answer comes behind those to all subscriptions.
            self._resubscribes = False
            self.send(b'PING', replied=self._resubscribed, refused=self._resubscribed)
        self.flush()
        return bool(self._changed)

    def _update(self, channel: Channel) -> None:
        if not channel.is_wanted:
            if channel.subscribed:
                channel.subscribed = False
                self.send_subscription(b'UNSUBSCRIBE', channel.name)
            if self.channels.get(channel.name) is channel:
                del self.channels[channel.name]
        elif self.is_connected and (channel.joining or channel.resumes):
            if not channel.subscribed:
                channel.subscribed = True
                self.send_subscription(
                    b'SUBSCRIBE',
                    channel.name,
                    confirmed=partial(self._confirmed, channel),
                    refused=partial(self._subscription_refused, channel),
                )
            question = channel.ask()
            if question.resumes and channel.audiences and self._recent is not None:
                # Before GET: whoever joins does so at the very point where that is answered.
                self.send(b'PTTL', channel.name, replied=question.note_remaining)
            self.send(
                *(b'GET', channel.name),
                replied=partial(self._answered, question),
                refused=partial(self._question_refused, question),
            )

    # The connection

    def connected(self) -> None:
        self._changed = dict.fromkeys(self.channels.values())
        self._resubscribes = bool(self._changed)
        self.is_subscribed = not self._changed

    def disconnected(self) -> None:
        self.is_subscribed = self._resubscribes = False
        self._refused.clear()
        for channel in self.channels.values():
            channel.start_over()
            for joining in list(channel.joining.values()):
                joining.proceed()
            for audience in channel.audiences.values():
                for websocket in audience:
                    websocket.forget_own_under_way()

    def _resubscribed(self, answer: object) -> None:
        self.is_subscribed = True

    def wants_replies(self) -> bool:
        return not self._fanout.is_congested

    # What Redis sends

    def push_received(self, push: list[Any]) -> None:
        if push[0] == b'message':
            channel = self.channels.get(push[1])
            payload = push[2]
            if channel is not None and channel.audiences and payload != self._heartbeat:
                self._statistics.redis_messages += 1
                self._fanout.arrive(channel, payload)
                if self._recent is not None:
                    self._recent.came(channel.name, payload, self.loop.timers.clock())

    def _confirmed(self, channel: Channel, push: object) -> None:
        if channel.refused:
            channel.refused = False
            logger.warning('Redis lets %r be subscribed to again', channel.name)

    def _subscription_refused(self, channel: Channel, error: Exception) -> None:
        if not channel.refused:
            channel.refused = True
            logger.error('Redis refuses to subscribe to %r: %s', channel.name, error)
        channel.subscribed = False
        channel.resumes = True
        if not self._refused:
            self.loop.call_later(REFUSED_SECONDS, self._try_refused_again)
        self._refused[channel] = None
        waiting = [question.joining[w] for w, question in channel.asking.items()]
        for joining in waiting:
            joining.refuse()

    def _try_refused_again(self) -> None:
        refused, self._refused = self._refused, {}
        for channel in refused:
            if channel.is_wanted and not channel.subscribed:
                self._changed[channel] = None

    def _question_refused(self, question: Question, error: Exception) -> None:
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
        for websocket, waiting in joining.items():
            if kept is not None and channel in websocket.channels:
                websocket.send_kept(kept)
            # Sending may have ended it, or another one; who has ended is in no channel.
            if channel in websocket.channels:
                channel.add(websocket)
            waiting.joined()

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
            now=self.loop.timers.clock(),
        )
