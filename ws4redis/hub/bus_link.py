"""A pub/sub connection of a process: there is one for each Redis that it listens to.

It speaks RESP3, in which a connection with subscriptions may run other commands too, and answers
them in the order in which they ran.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ws4redis.broker.history import Header, parse_event
from ws4redis.broker.link import RedisLink, Refused, Replied
from ws4redis.hub.garbage import MANY_CHANNELS

if TYPE_CHECKING:
    from ws4redis.hub.bus import Bus
    from ws4redis.hub.channel import Channel
    from ws4redis.loop.loop import Loop


class PubSubWords(NamedTuple):
    """What Redis calls subscribing, and what it sends."""

    subscribe: bytes
    unsubscribe: bytes
    message: bytes


PLAIN = PubSubWords(b'SUBSCRIBE', b'UNSUBSCRIBE', b'message')
SHARDED = PubSubWords(b'SSUBSCRIBE', b'SUNSUBSCRIBE', b'smessage')


class BusLink(RedisLink):
    """Subscribe on one Redis for the bus, and hand it what comes."""

    words = PLAIN

    def __init__(
        self,
        loop: Loop,
        connect: Callable[[], socket.socket],
        bus: Bus,
        *,
        name: str = 'pub/sub',
        timeout_seconds: float,
    ) -> None:
        super().__init__(loop, connect, name=name, timeout_seconds=timeout_seconds)
        self.bus = bus
        # Whether Redis has taken in all that was subscribed when this connection was made.
        self.is_subscribed = False
        self._resubscribes = False
        # What was told of the publication that comes next.
        self._header: tuple[Channel, Header] | None = None

    def subscribe(self, *names: bytes, confirmed: Replied, refused: Refused) -> None:
        self.send_subscription(self.words.subscribe, *names, confirmed=confirmed, refused=refused)

    def unsubscribe(self, name: bytes) -> None:
        self.send_subscription(self.words.unsubscribe, name)

    def turn_end(self) -> bool:
        """Write what is queued."""
        if self._resubscribes and not self.bus.has_changes:
            # Its answer comes behind those to all subscriptions.
            self._resubscribes = False
            self.send(b'PING', replied=self._resubscribed, refused=self._resubscribed)
        return self.flush()

    # The connection

    def connected(self) -> None:
        channels = self.bus.connected(self)
        if channels >= MANY_CHANNELS:
            self.bus.collector_pause.begin(self)
        self._resubscribes = channels > 0
        self.is_subscribed = not self._resubscribes

    def disconnected(self) -> None:
        self.is_subscribed = self._resubscribes = False
        self._header = None
        self.bus.collector_pause.end(self)
        self.bus.disconnected(self)

    def _resubscribed(self, answer: object) -> None:
        self.is_subscribed = True
        self.bus.collector_pause.end(self)
        self.bus.resubscribed()

    def wants_replies(self) -> bool:
        return self.bus.wants_messages()

    # What Redis sends

    def push_received(self, push: list[Any]) -> None:
        if push[0] != self.words.message:
            return
        bus = self.bus
        channel = bus.channels.get(push[1])
        if channel is None:
            own_listener = bus.own_listeners.get(push[1])
            if own_listener is not None:
                own_listener.heard(push[2])
            else:
                self._event_received(push[1], push[2])
            return
        if channel.link is not self:
            # It was published before the channel changed links, and is read there.
            return
        header = None
        if self._header is not None:
            # A script has published it right before, so it is this one's or nobody's.
            (headed, header), self._header = self._header, None
            if headed is not channel:
                header = None
        channel.past.arrive(channel, push[2], header)

    def _event_received(self, name: bytes, event: bytes) -> None:
        channel = self.bus.channel_of_events(name)
        if channel is None or channel.link is not self:
            return
        told = parse_event(event)
        if isinstance(told, Header):
            self._header = channel, told
        else:
            self.bus.told(channel, event, told)
