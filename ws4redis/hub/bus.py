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
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import hiredis

from ws4redis.broker.link import RedisLink, pack_command
from ws4redis.hub.channel import Channel, Opening
from ws4redis.hub.fanout import Fanout
from ws4redis.hub.statistics import Statistics
from ws4redis.hub.websocket import Phase, WebSocket
from ws4redis.loop.loop import Hub

logger = logging.getLogger('ws4redis')


class _Fetch:
    """A ``GET`` that was written and not answered: for whom, and after a reconnection or not."""

    __slots__ = ('channel', 'joining', 'resumes')

    def __init__(
        self, channel: Channel, joining: dict[WebSocket, Opening], *, resumes: bool
    ) -> None:
        self.channel = channel
        self.joining = joining
        self.resumes = resumes


class Bus(RedisLink):
    """Subscribe to the channels that websockets want, and take in what is published there."""

    def __init__(
        self,
        hub: Hub,
        connect: Callable[[], socket.socket],
        *,
        fanout: Fanout,
        statistics: Statistics,
        heartbeat: bytes | None,
        timeout_seconds: float,
    ) -> None:
        super().__init__(hub, connect, name='pub/sub', timeout_seconds=timeout_seconds)
        self.channels: dict[bytes, Channel] = {}
        self._fanout = fanout
        self._statistics = statistics
        self._heartbeat = heartbeat
        # Replies come in the order of the commands: a fetch for each GET, None for each PING.
        self._expected: deque[_Fetch | None] = deque()
        # Channels whose subscription may have to change, in the order in which that came up.
        self._changed: dict[Channel, None] = {}

    # Joining and leaving

    def join(self, websocket: WebSocket, names: Iterable[str], opening: Opening) -> None:
        """Let a websocket join channels, after those that it is in.

        ``opening`` is told once for each when Redis has answered; when Redis is away it proceeds at
        once, and the websocket joins when Redis is back.
        """
        for name in names:
            channel = self._channel(name.encode())
            if channel in websocket.channels:
                opening.joined()
                continue
            channel.joining[websocket] = opening
            websocket.channels += (channel,)
            self._changed[channel] = None
        if self.is_away:
            opening.proceed()

    def _channel(self, name: bytes) -> Channel:
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(name)
        return channel

    def leave(self, websocket: WebSocket, channels: Iterable[Channel] | None = None) -> None:
        """Let a websocket leave channels, all of its own by default."""
        leaving = websocket.channels if channels is None else tuple(channels)
        websocket.channels = tuple(c for c in websocket.channels if c not in leaving)
        for channel in leaving:
            opening = channel.discard(websocket) or self._drop_from_fetch(channel, websocket)
            if opening is not None:
                opening.joined()
            if not channel.is_wanted:
                self._changed[channel] = None

    def _drop_from_fetch(self, channel: Channel, websocket: WebSocket) -> Opening | None:
        """Let the reply to a GET that was written be nothing to a websocket any more."""
        if channel.fetches:
            for fetch in self._expected:
                if fetch is not None and fetch.channel is channel and websocket in fetch.joining:
                    return fetch.joining.pop(websocket)
        return None

    def turn_end(self) -> bool:
        """Write the subscriptions that changed in this turn."""
        if self._changed:
            changed, self._changed = self._changed, {}
            for channel in changed:
                if self.is_connected:
                    self._update(channel, resumes=False)
                elif not channel.is_wanted:
                    # The others are subscribed when Redis is back.
                    self._forget(channel)
        return self.flush()

    def _update(self, channel: Channel, *, resumes: bool) -> None:
        if channel.joining or (resumes and channel.is_wanted):
            if not channel.subscribed:
                channel.subscribed = True
                self._command(b'SUBSCRIBE', channel.name)
            joining, channel.joining = channel.joining, {}
            channel.fetches += 1
            self._command(b'GET', channel.name)
            self._expected.append(_Fetch(channel, joining, resumes=resumes))
        elif not channel.is_wanted and not channel.fetches:
            if channel.subscribed:
                channel.subscribed = False
                self._command(b'UNSUBSCRIBE', channel.name)
            self._forget(channel)

    def _forget(self, channel: Channel) -> None:
        if self.channels.get(channel.name) is channel:
            del self.channels[channel.name]

    def _command(self, *words: bytes) -> None:
        self.write(pack_command(*words))

    # The connection

    def connected(self) -> None:
        self._changed.clear()
        for channel in list(self.channels.values()):
            self._update(channel, resumes=True)

    def disconnected(self) -> None:
        expected, self._expected = self._expected, deque()
        for fetch in expected:
            if fetch is not None:
                self._take_back(fetch)
        for channel in self.channels.values():
            channel.subscribed = channel.confirmed = channel.refused = False
            for opening in channel.joining.values():
                opening.proceed()
            for audience in channel.audiences.values():
                for websocket in audience:
                    if websocket.own is not None:
                        websocket.own.forget_under_way()

    def _take_back(self, fetch: _Fetch) -> None:
        fetch.channel.fetches -= 1
        for websocket, opening in fetch.joining.items():
            if fetch.channel in websocket.channels:
                fetch.channel.joining[websocket] = opening
            opening.proceed()

    def health_check(self) -> None:
        self._command(b'PING')
        self._expected.append(None)

    def wants_replies(self) -> bool:
        return not self._fanout.is_congested

    # What Redis sends

    def reply_received(self, reply: Any) -> None:
        if isinstance(reply, hiredis.PushNotification):
            kind = reply[0]
            if kind == b'message':
                self._message_received(reply[1], reply[2])
            elif kind == b'subscribe':
                channel = self.channels.get(reply[1])
                if channel is not None:
                    channel.confirmed = True
        elif isinstance(reply, hiredis.HiredisError):
            self._error_received(reply)
        elif self._expected:
            fetch = self._expected.popleft()
            if fetch is not None:
                self._fetched(fetch, reply)
        else:
            self.lost(f'unexpected reply {reply!r}')

    def _message_received(self, name: bytes, payload: bytes) -> None:
        channel = self.channels.get(name)
        if channel is not None and channel.audiences and payload != self._heartbeat:
            self._statistics.redis_messages += 1
            self._fanout.arrive(channel, payload)

    def _error_received(self, error: Exception) -> None:
        fetch = self._expected[0] if self._expected else None
        if fetch is not None and not fetch.channel.confirmed and not fetch.channel.refused:
            # SUBSCRIBE is answered by a push, or by an error that comes where a reply would.
            fetch.channel.refused = True
            logger.error('Redis refuses to subscribe to %r: %s', fetch.channel.name, error)
            return
        if not self._expected:
            self.lost(error)
            return
        self._expected.popleft()
        if fetch is not None:
            logger.error(
                'Redis does not give the message kept as %r: %s', fetch.channel.name, error
            )
            self._fetched(fetch, None)

    def _fetched(self, fetch: _Fetch, kept: bytes | None) -> None:
        channel = fetch.channel
        channel.fetches -= 1
        if kept is not None and kept != self._heartbeat:
            if fetch.resumes and channel.audiences and not self._is_latest(channel, kept):
                self._fanout.arrive(channel, kept)
            if fetch.joining and not channel.audiences:
                channel.remember(kept)
        else:
            kept = None
        # What arrived before this moment is in the kept message, or older.
        self._fanout.settle(channel)
        for websocket, opening in fetch.joining.items():
            # One that left and came back meanwhile has asked twice.
            is_new = channel in websocket.channels and not channel.has(websocket)
            if is_new and websocket.phase <= Phase.OPEN:
                if kept is not None:
                    websocket.send_kept(kept)
                channel.add(websocket)
            opening.joined()
        if not channel.is_wanted:
            self._changed[channel] = None

    def _is_latest(self, channel: Channel, kept: bytes) -> bool:
        """Tell whether the kept message is the latest that came live."""
        waiting = self._fanout.latest_waiting(channel)
        return channel.repeats(kept) if waiting is None else waiting == kept
