"""The bus in a Cluster: channels change links, and Redis may say that one is elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ws4redis.broker.link import AWAY_ERRORS, MOVING_ERRORS, Refused, Replied, error_code, ignore
from ws4redis.hub.bus import Bus
from ws4redis.hub.bus_link import SHARDED, BusLink
from ws4redis.hub.channel import Channel, Delay

if TYPE_CHECKING:
    from ws4redis.hub.cluster_links import ClusterLinks

RETRY_SECONDS = 0.1


class NodeBusLink(BusLink):
    """Subscribe on one node."""

    words = SHARDED
    away_errors = AWAY_ERRORS - MOVING_ERRORS
    bus: ClusterBus

    def push_received(self, push: list[Any]) -> None:
        if push[0] == b'sunsubscribe':
            # Nobody asked for it: the slot has left this node.
            self.bus.unsubscribed(self, push[1])
        else:
            super().push_received(push)


class ClusterBus(Bus):
    """Subscribe on the node of each channel, and follow it to another one."""

    links: ClusterLinks

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Channels that begin again when a slot has had time to arrive.
        self._to_retry: dict[Channel, None] = {}
        # Where each of the process's own listeners listens.
        self._listens_on: dict[bytes, BusLink] = {}

    def send(
        self,
        channel: Channel,
        *words: bytes | str | int,
        replied: Replied = ignore,
        refused: Refused = ignore,
    ) -> None:
        link = channel.link
        assert link is not None
        asked = _Asked(self, channel, link, words, replied, refused)
        link.send(*words, replied=asked.take, refused=asked.take_error)

    def _subscription_refused(
        self, channel: Channel, link: BusLink, names: Sequence[bytes], error: Exception
    ) -> None:
        if error_code(error) not in MOVING_ERRORS:
            super()._subscription_refused(channel, link, names, error)
        elif channel.link is link:
            self.redirect(channel, error)

    def redirect(self, channel: Channel, error: Exception) -> None:
        """Take a channel to where Redis says that it is, or try again."""
        if error_code(error) == 'MOVED':
            self.move(channel, self.links.moved(error))
        else:
            self.links.refresh()
            self.retry_later(channel)

    def retry_later(self, channel: Channel) -> None:
        """Begin anew with a channel when its slot has had time to arrive."""
        self._start_over(channel)
        for request in channel.requests():
            request.delay(Delay.AWAY)
        if not self._to_retry:
            self.loop.call_later(RETRY_SECONDS, self._retry)
        self._to_retry[channel] = None

    def _retry(self) -> None:
        channels, self._to_retry = self._to_retry, {}
        self._changed.update(channels)

    def move(self, channel: Channel, link: BusLink | None) -> None:
        """Let a channel be on another link, or on none."""
        self._unsubscribe(channel)
        self._start_over(channel)
        self._refused.pop(channel, None)
        channel.link = link
        self._changed[channel] = None
        if link is None or link.is_away:
            for request in channel.requests():
                request.delay(Delay.AWAY)

    def unsubscribed(self, link: BusLink, name: bytes) -> None:
        """Subscribe anew: the node has ended a subscription of its own accord."""
        if name in self.own_listeners:
            if self._listens_on.get(name) is link:
                del self._listens_on[name]
                self.own_listeners[name].disconnected(link)
                self.links.refresh()
            return
        channel = self.channels.get(name) or self.channel_of_events(name)
        if channel is not None and channel.link is link and channel.subscribed:
            self._start_over(channel)
            # It says where the slot is.
            self._changed[channel] = None
            self.links.refresh()

    def place_all(self, link_of: Callable[[bytes], BusLink | None]) -> None:
        """Take all channels to where they are by a new map."""
        for channel in list(self.channels.values()):
            link = link_of(channel.name)
            if link is not channel.link:
                self.move(channel, link)
        for name in self.own_listeners:
            link = link_of(name)
            if link is not self._listens_on.get(name):
                self._stop_listening(name)
                if link is not None and link.is_connected:
                    self._listen(name, link)

    def disconnected(self, link: BusLink) -> None:
        super().disconnected(link)
        for name in [name for name, on in self._listens_on.items() if on is link]:
            del self._listens_on[name]

    def _listen(self, name: bytes, link: BusLink) -> None:
        if self._listens_on.get(name) is not link:
            self._stop_listening(name)
            self._listens_on[name] = link
            super()._listen(name, link)

    def listening_refused(self, error: Exception) -> bool:
        is_moving = super().listening_refused(error)
        if error_code(error) == 'MOVED':
            self.links.moved(error)
        elif is_moving:
            self.links.refresh()
        return is_moving

    def _stop_listening(self, name: bytes) -> None:
        link = self._listens_on.pop(name, None)
        if link is not None:
            self.own_listeners[name].disconnected(link)
            if link.is_connected:
                link.unsubscribe(name)

    def nobody_knows(self) -> None:
        """Let nobody wait: the Cluster cannot be reached."""
        for channel in self.channels.values():
            if channel.link is None:
                for request in channel.requests():
                    request.delay(Delay.AWAY)


class _Asked:
    """What was asked about a channel; what it asked on a former link counts no more."""

    __slots__ = ('_bus', '_channel', '_life', '_link', '_refused', '_replied', '_words')

    def __init__(
        self,
        bus: ClusterBus,
        channel: Channel,
        link: BusLink,
        words: tuple[bytes | str | int, ...],
        replied: Replied,
        refused: Refused,
    ) -> None:
        self._bus = bus
        self._channel = channel
        self._link = link
        self._life = channel.life
        self._words = words
        self._replied = replied
        self._refused = refused

    @property
    def _is_current(self) -> bool:
        return self._channel.link is self._link and self._channel.life == self._life

    def take(self, reply: Any) -> None:
        if self._is_current:
            self._replied(reply)

    def take_error(self, error: Exception) -> None:
        if not self._is_current:
            return
        code = error_code(error)
        if code == 'ASK' and self._bus.links.ask(
            error, self._words, self.take, self.take_error_of_asked
        ):
            return
        if code in MOVING_ERRORS:
            self._bus.redirect(self._channel, error)
        else:
            self._refused(error)

    def take_error_of_asked(self, error: Exception) -> None:
        if not self._is_current:
            return
        if error_code(error) in MOVING_ERRORS:
            self._bus.retry_later(self._channel)
        else:
            self._refused(error)
