"""All websockets of a process, and what they share: the loop, Redis, the limits, the statistics."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ws4redis.broker.history import Kind, Position
from ws4redis.broker.presence import ChangeKind
from ws4redis.hub.attendance import Attendance
from ws4redis.hub.bus import Bus
from ws4redis.hub.bus_link import BusLink
from ws4redis.hub.channel import Channel, Delay, Joined, Outcome, Request
from ws4redis.hub.cluster_bus import ClusterBus
from ws4redis.hub.cluster_links import ClusterConnector, ClusterLinks
from ws4redis.hub.endings import Checks, Endings
from ws4redis.hub.fanout import Fanout
from ws4redis.hub.identity import Identity
from ws4redis.hub.intake import Intake
from ws4redis.hub.joining import Joining
from ws4redis.hub.keepalive import Heartbeats, Pings
from ws4redis.hub.kept import KeptFrames
from ws4redis.hub.links import Links, OneRedis, PublishesForClients
from ws4redis.hub.master_watch import Sentinels
from ws4redis.hub.mirrors import Mirrors
from ws4redis.hub.options import HubOptions
from ws4redis.hub.output import QueueMemory
from ws4redis.hub.peer import Peer
from ws4redis.hub.presence import Presence
from ws4redis.hub.publications import Done, PackPublication
from ws4redis.hub.receiver import kind_of
from ws4redis.hub.statistics import Statistics
from ws4redis.hub.websocket import Phase, WebSocket
from ws4redis.loop.drivers import Driver
from ws4redis.loop.loop import Loop
from ws4redis.protocol.frames import CloseCode, Opcode
from ws4redis.protocol.wire import WireFormat

logger = logging.getLogger('ws4redis')

DRAIN_STEP_SECONDS = 0.02
MOMENT_SECONDS = 0.05


class Hub:
    """Open websockets, connect them with Redis, and close them.

    ``connect`` returns a connected and authenticated socket to Redis that speaks RESP3; it may
    block, and raises when Redis cannot be reached; in its stead ``cluster`` finds the nodes of a
    Cluster; ``sentinels`` tell when it leads to another Redis. ``pack`` turns a message into the
    commands that publish it. ``give_back`` is called with the ``place`` of each websocket that
    ends. ``checks`` looks identities up; without it nobody is asked, and nothing that was granted
    ends.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        connect: Callable[[], socket.socket],
        cluster: ClusterConnector | None = None,
        sentinels: Sentinels | None = None,
        pack: PackPublication,
        give_back: Callable[[Any], object] | None = None,
        checks: Checks | None = None,
        options: HubOptions | None = None,
    ) -> None:
        self._give_back = give_back
        self.options = options or HubOptions()
        self.statistics = Statistics()
        self.loop = Loop(driver)
        self.kept_frames = KeptFrames()
        self.queues = QueueMemory(self.options.max_total_queue_bytes)
        self.intake = Intake(self.loop, self.options)
        self.fanout = Fanout(self.statistics, self.loop.timers.clock)
        make_bus = Bus if cluster is None else ClusterBus
        self.bus = make_bus(
            self.loop,
            self._link_of,
            fanout=self.fanout,
            statistics=self.statistics,
            options=self.options,
        )
        self.links = self._make_links(connect, cluster, sentinels, pack)
        self.publications: PublishesForClients = self.links.publications
        self.publish_word = b'PUBLISH' if cluster is None else b'SPUBLISH'
        self.presence = Presence(
            self.loop,
            self.links.commands,
            prefix=self.options.key_prefix,
            publish=self.publish_word,
            renewed=self._changes_may_be_missing,
        )
        self.mirrors = Mirrors(self.loop, self.presence)
        self.bus.attendance = Attendance(self.presence)
        self.bus.resubscribed = self._changes_may_be_missing
        for letter in ChangeKind:
            self.bus.listeners[letter.encode()] = self._change_told
        self.links.commands.users.append(self.presence)
        self.endings = (
            None
            if checks is None
            else Endings(
                self,
                checks,
                prefix=self.options.key_prefix,
                publish=self.publish_word,
                sweep_seconds=self.options.revalidate_seconds,
            )
        )
        self.highest_fd = 0
        self._second = 0
        self._moment = 0.0
        self.open_count = 0
        # The code and reason with which websockets are closed, once the server stops.
        self.farewell: tuple[CloseCode, str] | None = None
        # What is taken in goes out in the same turn.
        self.loop.at_turn_end(self.intake.turn_end)
        # Deliver first: what then has to be written to Redis goes out in the same turn.
        self.loop.at_turn_end(self.fanout.turn_end)
        self.loop.at_turn_end(self.bus.turn_end)
        self.loop.at_turn_end(self.presence.turn_end)
        self.loop.at_turn_end(self.links.turn_end)
        self.loop.at_turn_end(self.queues.turn_end)
        self.loop.at_close(self._close_all)

    def _change_told(self, channel: Channel, event: bytes) -> None:
        self.mirrors.event_received(channel.name, event)

    def _changes_may_be_missing(self) -> None:
        self.mirrors.read_all()

    def _make_links(
        self,
        connect: Callable[[], socket.socket],
        cluster: ClusterConnector | None,
        sentinels: Sentinels | None,
        pack: PackPublication,
    ) -> Links:
        statistics, options = self.statistics, self.options
        if cluster is None:
            return OneRedis(
                self.loop,
                self.bus,
                connect,
                pack=pack,
                statistics=statistics,
                options=options,
                sentinels=sentinels,
            )
        assert isinstance(self.bus, ClusterBus)
        return ClusterLinks(
            self.loop, self.bus, cluster, pack=pack, statistics=statistics, options=options
        )

    def _link_of(self, name: bytes) -> BusLink | None:
        return self.links.link_of(name)

    def start(self) -> None:
        """Start the loop and connect to Redis. Called once, from outside the loop."""
        self.loop.call_soon(self._start_timers)
        self.loop.call_soon(self.links.start)
        self.loop.driver.start(self.loop)

    def _start_timers(self) -> None:
        options = self.options
        if options.ping_interval_seconds:
            Pings(self, options.ping_interval_seconds, options.ping_timeout_seconds).start()
        if options.heartbeat is not None:
            Heartbeats(self, options.heartbeat, options.heartbeat_interval_seconds).start()
        if self.endings is not None:
            self.endings.start()

    def __iter__(self) -> Iterator[WebSocket]:
        """Iterate over the websockets that have a socket, in the loop."""
        for handler in list(self.loop.handlers.values()):
            if isinstance(handler, WebSocket):
                yield handler

    @property
    def is_draining(self) -> bool:
        """Tell whether the server stops, so that no more handshakes are accepted."""
        return self.farewell is not None

    # In whose name a connection is open

    def identify(self, peer: Peer, identity: Identity, asked_at: float) -> None:
        """Note who a connection belongs to; ``asked_at``: when that was asked, by the loop's clock.

        Without a session, a user or an expiry there is nothing to note.
        """
        if self.endings is not None and peer.phase <= Phase.OPEN:
            self.endings.identities.remove(peer)
            self.endings.identify(peer, identity, asked_at)

    def connections_of(self, *, user: str | None = None, session: str | None = None) -> list[Peer]:
        """Return the connections of a user by name, of a session by its key."""
        return (
            [] if self.endings is None else self.endings.connections_of(user=user, session=session)
        )

    # Channels of a peer

    def join(
        self,
        peer: Peer,
        name: str,
        done: Callable[[Joined], object],
        since: Position | None = None,
        *,
        delayed: Callable[[Delay], object] | None = None,
    ) -> None:
        """Let a peer join a channel, given by its full name.

        ``done`` is called once, be it before this returns, with what the peer is to be sent: the
        kept message, or what came after ``since``. When it has returned, the peer is in the
        audience, and what follows is delivered to it.

        ``delayed`` may be called before that, and more than once: Redis is away, or refuses the
        channel. The peer joins all the same as soon as it can, unless it leaves.
        """
        if peer.phase > Phase.OPEN:
            done(Joined(Outcome.LEFT))
        elif self.bus.holds(peer, name):
            done(Joined(Outcome.OK))
        else:
            self.bus.join(peer, name, Request(done, since, delayed))

    def join_all(self, websocket: WebSocket, names: Iterable[str], joining: Joining) -> None:
        """Let a plain websocket join channels; ``joining`` is told when Redis has answered."""
        if websocket.phase <= Phase.OPEN:
            requests = {
                name: joining.request(name)
                for name in dict.fromkeys(names)
                if not self.bus.holds(websocket, name)
            }
            for name, request in requests.items():
                self.bus.join(websocket, name, request)
            if requests:
                return
        joining.proceed()

    def leave(self, peer: Peer, names: Iterable[str]) -> None:
        """Let a peer leave some of its channels."""
        self.bus.leave(peer, names)

    def rewire(self, peer: Peer, wire: WireFormat) -> None:
        """Give a peer another wire format for what arrives from now on."""
        if wire is peer.wire:
            return
        channels = [
            channel for channel in peer.channels if peer in channel.audiences.get(peer.wire, ())
        ]
        for channel in channels:
            channel.discard(peer)
        peer.wire = wire
        for channel in channels:
            channel.add(peer)

    def leave_channels(self, peer: Peer, *, at_once: bool = False) -> None:
        """Let a peer leave all of its channels; ``at_once``: it is not expected back."""
        if peer.channels:
            self.bus.leave_all(peer, at_once=at_once)

    def publish(
        self,
        peer: Peer,
        channels: tuple[str, ...],
        payload: bytes,
        *,
        kind: Kind = Kind.TEXT,
        once: str | None = None,
        done: Done | None = None,
    ) -> None:
        """Publish what a peer sends; hold it back where others do not keep up.

        ``once`` is an idempotency key, for channels with a history. ``done`` takes the positions
        of the publication, by channel, or ``NotPublished``; without it the peer is closed when its
        message is not published.
        """
        peer.remember_own(payload, channels)
        self.publications.publish(peer, channels, payload, kind, once, done)
        if self.fanout.may_be_behind:
            for name in channels:
                channel = self.bus.get(name)
                if channel is not None:
                    self.fanout.hold_back(peer, channel)

    # What websockets tell

    def opened(self, websocket: WebSocket) -> None:
        self.open_count += 1
        self.statistics.connections[websocket.transport] += 1
        self.statistics.connections_of_kind[kind_of(websocket)] += 1
        second = int(time.time())
        if second != self._second:
            self._second = second
        # One object for all that open in a second.
        websocket.since = self._second
        self.statistics.handshakes[websocket.status] += 1
        self.highest_fd = max(self.highest_fd, websocket.fd)

    def moment(self) -> float:
        """Return the loop's time; one object for all who ask within a moment."""
        now = self.loop.timers.clock()
        if now - self._moment > MOMENT_SECONDS:
            self._moment = now
        return self._moment

    def count_refused_handshake(self, status: int) -> None:
        self.statistics.handshakes[status] += 1

    def closed(self, websocket: WebSocket, code: int, reason: str, *, was_opened: bool) -> None:
        self.publications.forget(websocket)
        if self.endings is not None:
            self.endings.identities.remove(websocket)
        if self._give_back is not None and websocket.place is not None:
            self._give_back(websocket.place)
        if was_opened:
            self.open_count -= 1
            self.statistics.connections[websocket.transport] -= 1
            self.statistics.connections_of_kind[kind_of(websocket)] -= 1
            self.statistics.closes[code] += 1
        try:
            websocket.receiver.websocket_closed(websocket, code, reason)
        except Exception:
            # This may be in the middle of a delivery, which others wait for.
            logger.exception('telling of the end of %r failed', websocket)

    # The end

    def drain(
        self,
        code: CloseCode,
        reason: str,
        *,
        spread_seconds: float,
        close_timeout_seconds: float | None = None,
    ) -> None:
        """Close all websockets, then end the loop.

        The closes are spread over a time, so that the clients do not come back all at once. What is
        queued for a websocket goes out before its close frame. Those that have not answered
        ``close_timeout_seconds`` after the last close frame are given up; by default the time-out
        of the options.
        """
        if self.farewell is not None:
            return
        self.farewell = code, reason
        if close_timeout_seconds is None:
            close_timeout_seconds = self.options.close_timeout_seconds
        steps = max(1, round(spread_seconds / DRAIN_STEP_SECONDS))
        remaining = list(self)
        logger.info('closing %d websockets with %d (%s)', len(remaining), code, reason)
        self._drain_step(remaining, -(-len(remaining) // steps), close_timeout_seconds)

    def _drain_step(
        self, remaining: list[WebSocket], at_once: int, close_timeout_seconds: float
    ) -> None:
        assert self.farewell is not None
        for websocket in remaining[:at_once]:
            websocket.close(*self.farewell)
        del remaining[:at_once]
        if remaining:
            self.loop.call_later(
                DRAIN_STEP_SECONDS, self._drain_step, remaining, at_once, close_timeout_seconds
            )
        else:
            # Not in this turn: a socket whose handshake was answered just now may be on its way to
            # the loop, and is to be told why it is closed.
            deadline = self.loop.timers.clock() + close_timeout_seconds
            self.loop.call_later(DRAIN_STEP_SECONDS, self._await_drained, deadline)

    def _await_drained(self, deadline: float) -> None:
        # What subscribers and handlers have to do about the end counts as well.
        is_done = (
            not self.open_count
            and not self.publications.unanswered_bytes
            and not self.loop.driver.workers.unfinished
        )
        if is_done or self.loop.timers.clock() >= deadline:
            self.loop.stop()
        else:
            self.loop.call_later(DRAIN_STEP_SECONDS, self._await_drained, deadline)

    def _close_all(self) -> None:
        for websocket in self:
            websocket.lost()
        self.links.stop()
        self.bus.collector_pause.end_all()


class PublishingReceiver:
    """Publish what websockets send on the channels that they chose; one serves all."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    def receive_message(self, websocket: WebSocket, opcode: Opcode, payload: bytes) -> None:
        if not websocket.publishes:
            return
        self.hub.publish(websocket, websocket.publishes, payload)

    def websocket_drained(self, websocket: WebSocket) -> None:
        pass

    def websocket_closed(self, websocket: WebSocket, code: int, reason: str) -> None:
        pass
