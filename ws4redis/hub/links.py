"""Which connections to Redis a process has, and which of them a channel is on.

Here is what is the same wherever Redis is, and the links to one Redis; those to the nodes of a
Cluster are in ``cluster_links.py``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

from ws4redis.broker.history import Kind
from ws4redis.broker.link import Commands
from ws4redis.hub.bus import Bus
from ws4redis.hub.bus_link import BusLink
from ws4redis.hub.master_watch import MasterWatch, Sentinels
from ws4redis.hub.options import HubOptions
from ws4redis.hub.peer import Peer
from ws4redis.hub.publications import Done, PackPublication, Publications
from ws4redis.hub.statistics import Statistics
from ws4redis.loop.loop import Loop


class PublishesForClients(Protocol):
    """Publish what websockets send."""

    @property
    def unanswered(self) -> int:
        """The number of messages that Redis has not answered."""

    @property
    def unanswered_bytes(self) -> int: ...

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

    def forget(self, peer: Peer) -> None:
        """Let go of a peer that has closed; what it sent is published all the same."""


class Links(Protocol):
    """The connections to Redis of a process."""

    @property
    def publications(self) -> PublishesForClients: ...

    @property
    def commands(self) -> Commands:
        """What sends commands for others than websockets."""

    @property
    def is_connected(self) -> bool:
        """Whether every connection that is wanted is there."""

    @property
    def states(self) -> dict[str, bool]:
        """Whether a connection is there, by its name."""

    @property
    def reconnects(self) -> int: ...

    def link_of(self, name: bytes) -> BusLink | None:
        """Return the link that a channel is on; None while nobody knows."""

    def start(self) -> None:
        """Begin to connect."""

    def turn_end(self) -> bool:
        """Write what is queued; tell whether there is more to do."""

    def stop(self) -> None:
        """Close all connections."""


class OneRedis:
    """One link for subscriptions and one for publications: to one Redis, or to a master."""

    def __init__(
        self,
        loop: Loop,
        bus: Bus,
        connect: Callable[[], socket.socket],
        *,
        pack: PackPublication,
        statistics: Statistics,
        options: HubOptions,
        sentinels: Sentinels | None = None,
    ) -> None:
        timeout = options.redis_timeout_seconds
        self.bus_link = BusLink(loop, connect, bus, timeout_seconds=timeout)
        self.publications = Publications(
            loop,
            connect,
            pack=pack,
            is_heard=lambda: self.bus_link.is_subscribed,
            moved=lambda: self.bus_link.lost('Redis has become a replica'),
            statistics=statistics,
            timeout_seconds=timeout,
        )
        self.watch: MasterWatch | None = None
        if sentinels is not None:
            self.watch = MasterWatch(
                loop, sentinels, switched=self._follow, timeout_seconds=timeout
            )

    def _follow(self) -> None:
        """Connect to the new master: the connections there are may lead to a former one."""
        for link in (self.bus_link, self.publications):
            link.start_over('there is another master')

    @property
    def commands(self) -> Commands:
        return self.publications

    @property
    def is_connected(self) -> bool:
        return self.bus_link.is_connected and self.publications.is_connected

    @property
    def states(self) -> dict[str, bool]:
        links = [self.bus_link, self.publications, *([self.watch] if self.watch else [])]
        return {link.name: link.is_connected for link in links}

    @property
    def reconnects(self) -> int:
        return self.bus_link.reconnects + self.publications.reconnects

    def link_of(self, name: bytes) -> BusLink:
        return self.bus_link

    def start(self) -> None:
        self.bus_link.start()
        self.publications.start()
        if self.watch is not None:
            self.watch.start()

    def turn_end(self) -> bool:
        has_more = self.bus_link.turn_end()
        if self.watch is not None:
            self.watch.flush()
        return self.publications.turn_end() or has_more

    def stop(self) -> None:
        self.bus_link.stop()
        self.publications.stop()
        if self.watch is not None:
            self.watch.stop()
