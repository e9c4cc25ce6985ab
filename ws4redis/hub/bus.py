"""The bus: the channels that peers want, whatever connections they come over.

Each channel is on a link, which the topology names: there is one where there is one Redis, and one
to each node of a Cluster. For a peer that joins a channel, ``SUBSCRIBE`` (if the channel is new
here) and what reads the past of the channel go out together on its link, and come back in the order
in which Redis ran them. What is read, and how it fits together with what comes live, is up to the
kind of channel: see ``kept_messages.py`` and ``histories.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from ws4redis.broker.history import NewEpoch
from ws4redis.broker.keys import keys_of
from ws4redis.broker.link import MOVING_ERRORS, Refused, Replied, error_code, ignore
from ws4redis.hub.channel import Channel, Delay, Observer, Request, with_channel, without_channel
from ws4redis.hub.fanout import Fanout
from ws4redis.hub.garbage import LONGEST_RUSH_SECONDS, MANY_CHANNELS, CollectorPause
from ws4redis.hub.histories import Histories
from ws4redis.hub.history_channel import HistoryChannel
from ws4redis.hub.kept_messages import KeptMessages
from ws4redis.hub.options import HubOptions
from ws4redis.hub.peer import Peer
from ws4redis.hub.statistics import Statistics
from ws4redis.loop.loop import Loop

if TYPE_CHECKING:
    from ws4redis.hub.bus_link import BusLink

logger = logging.getLogger('ws4redis')

# For this long a turn writes subscriptions, at most so many; one peer may join thousands of
# channels, and after a reconnection all of them are subscribed again.
TURN_SECONDS = 0.005
CHANGES_PER_TURN = 500
# How long after Redis refused a subscription it is asked again: its access list may be mended.
REFUSED_SECONDS = 5.0

# Takes what is told of a channel beside its publications: a line of words.
Listener = Callable[[Channel, bytes], object]


class OwnListener(Protocol):
    """Something of the process itself that listens to a channel, beside all peers."""

    def connected(self, link: BusLink) -> None:
        """Write what a new connection needs, the subscription included."""

    def disconnected(self, link: BusLink) -> None:
        """Expect no answers of a connection any more."""

    def heard(self, payload: bytes) -> None:
        """Take what was published on the channel."""


class Bus:
    """Subscribe to the channels that peers want, and take in what is published there.

    ``link_of`` tells on which link a channel is; None while nobody knows.
    """

    def __init__(
        self,
        loop: Loop,
        link_of: Callable[[bytes], BusLink | None],
        *,
        fanout: Fanout,
        statistics: Statistics,
        options: HubOptions,
    ) -> None:
        self.loop = loop
        self._link_of = link_of
        self.channels: dict[bytes, Channel] = {}
        # By the first letter of what is told: see `Listener`.
        self.listeners: dict[bytes, Listener] = {}
        # Who observes channels with presence.
        self.attendance: Observer | None = None
        # Called when all is subscribed again after the connection was lost.
        self.resubscribed: Callable[[], object] = lambda: None
        self._by_events: dict[bytes, Channel] = {}
        self._fanout = fanout
        self._options = options
        self._kept_messages = KeptMessages(
            self,
            fanout,
            statistics=statistics,
            heartbeat=options.heartbeat,
            expire_seconds=options.expire_seconds,
        )
        self.histories = Histories(
            self,
            fanout,
            statistics=statistics,
            heartbeat=options.heartbeat,
            max_tail_bytes=options.max_tail_bytes,
            max_replay_bytes=options.max_queue_bytes // 2,
            changed=self._note_change,
        )
        # Channels whose subscription may have to change, in the order in which that came up.
        self._changed: dict[Channel, None] = {}
        # Whether many of them were there at once, and are not all written yet.
        self._is_rush = False
        self.collector_pause = CollectorPause()
        # Channels that Redis refused.
        self._refused: dict[Channel, None] = {}
        # By the names of their channels.
        self.own_listeners: dict[bytes, OwnListener] = {}

    # Joining and leaving

    def join(self, peer: Peer, name: str, request: Request) -> None:
        """Let a peer join a channel, after those that it is in; it must not be in this one.

        Where Redis is away the request is told so, and answered when Redis is back.
        """
        channel = self._channel(name)
        channel.joining[peer] = request
        peer.channels = with_channel(peer.channels, channel)
        channel.wants_events = channel.wants_events or peer.wants_events
        self._changed[channel] = None
        link = channel.link
        if link is not None and link.is_away:
            request.delay(Delay.AWAY)

    def _channel(self, name: str) -> Channel:
        key = name.encode(errors='surrogateescape')
        channel = self.channels.get(key)
        if channel is None:
            keys = keys_of(key, self._options.key_prefix)
            facility = self._options.facility_of_channel(name)
            if facility.has_history:
                channel = HistoryChannel(keys, facility.history_size)
                channel.past = self.histories
            else:
                channel = Channel(keys)
                channel.past = self._kept_messages
            channel.pattern = facility.pattern
            if facility.presence:
                channel.wants_events = True
                channel.observer = self.attendance
            channel.link = self._link_of(key)
            self.channels[key] = channel
            self._by_events[keys.events] = channel
        return channel

    def get(self, name: str) -> Channel | None:
        return self.channels.get(name.encode(errors='surrogateescape'))

    def holds(self, peer: Peer, name: str) -> bool:
        """Tell whether a peer is in a channel, or about to be."""
        channel = self.get(name)
        return channel is not None and channel.holds(peer)

    def leave(self, peer: Peer, names: Iterable[str]) -> None:
        """Let a peer leave some of its channels."""
        for name in names:
            channel = self.get(name)
            # One that is just told of its joining is in none of the channel's places.
            if channel is not None and channel in peer.channels:
                peer.channels = without_channel(peer.channels, channel)
                self._leave(peer, channel, at_once=True)

    def leave_all(self, peer: Peer, *, at_once: bool = False) -> None:
        """Let a peer leave all of its channels; ``at_once``: it is not expected back."""
        leaving, peer.channels = peer.channels, ()
        for channel in leaving:
            self._leave(peer, channel, at_once=at_once)

    def _leave(self, peer: Peer, channel: Channel, *, at_once: bool) -> None:
        request = channel.discard(peer)
        if channel.observer is not None:
            channel.observer.left(channel, peer, at_once=at_once)
        if request is not None:
            request.left()
        if not channel.is_wanted:
            self._changed[channel] = None

    def _note_change(self, channel: Channel) -> None:
        self._changed[channel] = None

    # Subscriptions

    def turn_end(self) -> bool:
        """Write subscriptions that have changed, and let peers join; tell whether there is more."""
        if self._changed:
            self._note_rush()
            self._write_changes()
        is_serving = self.histories.turn_end()
        return bool(self._changed) or is_serving

    def _note_rush(self) -> None:
        if not self._is_rush and len(self._changed) >= MANY_CHANNELS:
            self._is_rush = True
            self.collector_pause.begin(self)
            self.loop.call_later(LONGEST_RUSH_SECONDS, self.collector_pause.end, self)

    def _write_changes(self) -> None:
        clock = self.loop.timers.clock
        deadline = clock() + TURN_SECONDS
        for written, channel in enumerate(list(self._changed)):
            if written >= CHANGES_PER_TURN or (written % 16 == 15 and clock() >= deadline):
                break
            del self._changed[channel]
            self._update(channel)
        if not self._changed and self._is_rush:
            self._is_rush = False
            self.collector_pause.end(self)

    def _update(self, channel: Channel) -> None:
        if not channel.is_wanted:
            if not (isinstance(channel, HistoryChannel) and self.histories.linger(channel)):
                self._give_up(channel)
        elif self._is_to_be_asked(channel):
            self._subscribe(channel)
            channel.past.ask(channel)

    @property
    def has_changes(self) -> bool:
        """Tell whether subscriptions are still to be written."""
        return bool(self._changed)

    def _is_to_be_asked(self, channel: Channel) -> bool:
        link = channel.link
        if link is None or not link.is_connected:
            return False
        return bool(
            channel.joining
            or channel.resumes
            or (channel.wants_events and not channel.tells_events)
        )

    def _give_up(self, channel: Channel) -> None:
        self._unsubscribe(channel)
        if isinstance(channel, HistoryChannel):
            self.histories.forget(channel)
        if self.channels.get(channel.name) is channel:
            del self.channels[channel.name]
            del self._by_events[channel.keys.events]

    def _unsubscribe(self, channel: Channel) -> None:
        link = channel.link
        if link is not None and link.is_connected:
            if channel.subscribed:
                link.unsubscribe(channel.name)
            if channel.tells_events:
                link.unsubscribe(channel.keys.events)
        channel.subscribed = channel.tells_events = False

    def _subscribe(self, channel: Channel) -> None:
        # In one command: of what is published between two, the payload would come without its
        # header, or a header whose payload does not come be taken for the next one's.
        names = []
        if not channel.subscribed:
            channel.subscribed = True
            names.append(channel.name)
        if channel.wants_events and not channel.tells_events:
            channel.tells_events = True
            names.append(channel.keys.events)
        link = channel.link
        assert link is not None
        if names:
            link.subscribe(
                *names,
                confirmed=partial(self._confirmed, channel),
                refused=partial(self._subscription_refused, channel, link, names),
            )

    def send(
        self,
        channel: Channel,
        *words: bytes | str | int,
        replied: Replied = ignore,
        refused: Refused = ignore,
    ) -> None:
        """Queue a command about a channel that is subscribed, behind what subscribed it."""
        link = channel.link
        assert link is not None
        link.send(*words, replied=replied, refused=refused)

    def _confirmed(self, channel: Channel, push: object) -> None:
        if channel.refused:
            channel.refused = False
            logger.warning('Redis lets %r be subscribed to again', channel.name)

    def _subscription_refused(
        self, channel: Channel, link: BusLink, names: Sequence[bytes], error: Exception
    ) -> None:
        if channel.link is not link:
            return
        if not channel.refused:
            channel.refused = True
            which = ' and '.join(map(repr, names))
            logger.error('Redis refuses to subscribe to %s: %s', which, error)
        channel.subscribed = channel.tells_events = False
        channel.resumes = True
        if not self._refused:
            self.loop.call_later(REFUSED_SECONDS, self._try_refused_again)
        self._refused[channel] = None
        if isinstance(channel, HistoryChannel):
            channel.start_over()
        for request in channel.requests():
            request.delay(Delay.REFUSED)

    def _try_refused_again(self) -> None:
        refused, self._refused = self._refused, {}
        for channel in refused:
            if channel.is_wanted and not channel.subscribed:
                self._changed[channel] = None

    # What the links tell

    def connected(self, link: BusLink) -> int:
        """Subscribe to the channels of a link that is connected; return how many there are."""
        mine = [channel for channel in self.channels.values() if channel.link is link]
        self._changed.update(dict.fromkeys(mine))
        for name in self.own_listeners:
            if self._link_of(name) is link:
                self._listen(name, link)
        return len(mine)

    def listen(self, name: bytes, listener: OwnListener) -> None:
        """Let something of the process itself listen to a channel from now on."""
        self.own_listeners[name] = listener
        link = self._link_of(name)
        if link is not None and link.is_connected:
            self._listen(name, link)

    def _listen(self, name: bytes, link: BusLink) -> None:
        self.own_listeners[name].connected(link)

    def listening_refused(self, error: Exception) -> bool:
        """Take note that Redis refused an own listener; tell whether that passes by itself.

        It does where a slot of a Cluster is about to move.
        """
        return error_code(error) in MOVING_ERRORS

    def disconnected(self, link: BusLink) -> None:
        """Let the channels of a link that is lost start over when it is back."""
        self.histories.disconnected(link)
        for listener in self.own_listeners.values():
            listener.disconnected(link)
        for channel in self.channels.values():
            if channel.link is link:
                self._refused.pop(channel, None)
                self._start_over(channel)
                for request in channel.requests():
                    request.delay(Delay.AWAY)

    def _start_over(self, channel: Channel) -> None:
        channel.start_over()
        if not isinstance(channel, HistoryChannel):
            for audience in channel.audiences.values():
                for peer in audience:
                    peer.forget_own_under_way()

    def wants_messages(self) -> bool:
        return not self._fanout.is_congested

    def channel_of_events(self, name: bytes) -> Channel | None:
        """Return the channel that an events channel belongs to."""
        return self._by_events.get(name)

    def told(self, channel: Channel, event: bytes, told: NewEpoch | None) -> None:
        """Take what is told of a channel beside its publications."""
        if told is not None:
            if isinstance(channel, HistoryChannel):
                self.histories.new_epoch(channel, told)
            return
        listener = self.listeners.get(event[:1])
        if listener is not None:
            listener(channel, event)
