"""The links to the nodes of a Cluster: two to each master, whoever that is by now.

The map of slots is fetched in a thread, one at a time. It is fetched anew when Redis says that a
slot is elsewhere, when a link is lost, and when a node says that it cannot reach the others or that
it knows of a later failover; all nodes are asked for that once in a while, over the links that are
there.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from ws4redis.broker.link import Commands, LinkUser, Refused, Replied, ignore, retry_delay
from ws4redis.broker.slots import SlotsMap, info_of, slot_of
from ws4redis.hub.bus_link import BusLink
from ws4redis.hub.cluster_bus import ClusterBus, NodeBusLink
from ws4redis.hub.cluster_publications import ClusterPublications, NodePublications
from ws4redis.hub.options import HubOptions
from ws4redis.hub.publications import PackPublication
from ws4redis.hub.statistics import Statistics
from ws4redis.loop.loop import Loop
from ws4redis.settings.topologies import Node

logger = logging.getLogger('ws4redis')

# Between two fetches of the map.
MIN_FETCH_SECONDS = 0.1
# How often nodes are asked whether they see the Cluster as we do.
WATCH_SECONDS = 1.0


class ClusterConnector(Protocol):
    """What blocks; it is called in threads."""

    def fetch_slots(self, known: SlotsMap | None) -> SlotsMap:
        """Ask the nodes for the map."""

    def connect(self, node: Node) -> socket.socket:
        """Return a connected and authenticated socket to a node that speaks RESP3."""


class _NodeLinks:
    """The two links to one master."""

    def __init__(self, bus_link: NodeBusLink, publications: NodePublications) -> None:
        self.bus_link = bus_link
        self.publications = publications

    def start(self) -> None:
        self.bus_link.start()
        self.publications.start()


class ClusterLinks:
    """The links of a process to a Cluster."""

    def __init__(
        self,
        loop: Loop,
        bus: ClusterBus,
        cluster: ClusterConnector,
        *,
        pack: PackPublication,
        statistics: Statistics,
        options: HubOptions,
    ) -> None:
        self._loop = loop
        self._bus = bus
        bus.links = self
        self._cluster = cluster
        self._pack = pack
        self._statistics = statistics
        self._timeout_seconds = options.redis_timeout_seconds
        self._slots: SlotsMap | None = None
        self.nodes: dict[Node, _NodeLinks] = {}
        self._former_reconnects = 0
        self._fetch: object | None = None
        self._fetched_at = float('-inf')
        self._wants_fetch = False
        self._failed_fetches = 0
        self._complaint: str | None = None
        self._stopped = False
        nowhere = self._make_publications(_nowhere, 'nowhere', lambda: False)
        self.publications = ClusterPublications(nowhere, self._queue_of, self._message_redirected)
        self._commands = ClusterCommands(self)

    @property
    def commands(self) -> Commands:
        return self._commands

    @property
    def is_connected(self) -> bool:
        return self._slots is not None and all(
            links.bus_link.is_connected and links.publications.is_connected
            for links in self.nodes.values()
        )

    @property
    def states(self) -> dict[str, bool]:
        return {
            link.name: link.is_connected
            for links in list(self.nodes.values())
            for link in (links.bus_link, links.publications)
        }

    @property
    def reconnects(self) -> int:
        return self._former_reconnects + sum(
            links.bus_link.reconnects + links.publications.reconnects
            for links in self.nodes.values()
        )

    def link_of(self, name: bytes) -> BusLink | None:
        node = None if self._slots is None else self._slots.owner_of(name)
        return None if node is None else self._links_to(node).bus_link

    def _queue_of(self, slot: int) -> NodePublications | None:
        node = None if self._slots is None else self._slots.owners[slot]
        return None if node is None else self._links_to(node).publications

    def queue_for(self, words: tuple[bytes | str | int, ...]) -> NodePublications | None:
        """Return the command link to the node that a command is for."""
        return self._queue_of(slot_of(words))

    def start(self) -> None:
        self.refresh()
        self._loop.call_later(WATCH_SECONDS, self._watch)

    def turn_end(self) -> bool:
        has_more = [links.bus_link.turn_end() for links in self.nodes.values()]
        return self.publications.turn_end() or any(has_more)

    def stop(self) -> None:
        self._stopped = True
        for links in self.nodes.values():
            links.bus_link.stop()
        self.publications.stop()

    # Links

    def _links_to(self, node: Node) -> _NodeLinks:
        links = self.nodes.get(node)
        if links is None:
            connect = partial(self._cluster.connect, node)
            bus_link = NodeBusLink(
                self._loop,
                connect,
                self._bus,
                name=f'pub/sub {node}',
                timeout_seconds=self._timeout_seconds,
            )
            publications = self._make_publications(
                connect, f'commands {node}', lambda: bus_link.is_subscribed
            )
            publications.users.append(self._commands)
            bus_link.users.append(_Refresher(self.refresh))
            self.publications.add(publications)
            links = self.nodes[node] = _NodeLinks(bus_link, publications)
            links.start()
        return links

    def _make_publications(
        self, connect: Callable[[], socket.socket], name: str, is_heard: Callable[[], bool]
    ) -> NodePublications:
        return NodePublications(
            self._loop,
            connect,
            pack=self._pack,
            is_heard=is_heard,
            moved=self.refresh,
            statistics=self._statistics,
            timeout_seconds=self._timeout_seconds,
            name=name,
        )

    def _drop(self, node: Node) -> None:
        links = self.nodes.pop(node)
        self._former_reconnects += links.bus_link.reconnects + links.publications.reconnects
        links.bus_link.stop()
        self.publications.remove(links.publications)
        logger.info('the node %s has no slots any more', node)

    # Redirections

    def moved(self, error: Exception) -> BusLink:
        """Learn from ``MOVED`` where a slot is, and return the link to it."""
        slot, node = _redirection(error)
        assert self._slots is not None
        self._slots.owners[slot] = node
        self.refresh()
        return self._links_to(node).bus_link

    def ask(
        self,
        error: Exception,
        words: tuple[bytes | str | int, ...],
        replied: Replied,
        refused: Refused,
    ) -> bool:
        """Repeat a command once where ``ASK`` says; tell whether that node is connected."""
        _, node = _redirection(error)
        link = self._links_to(node).bus_link
        if not link.is_connected:
            return False
        link.send(b'ASKING')
        link.send(*words, replied=replied, refused=refused)
        return True

    def _message_redirected(self, error: Exception) -> None:
        if str(error).startswith('MOVED '):
            self.moved(error)
        else:
            self.refresh()

    # The map

    def refresh(self) -> None:
        """Fetch the map, at once or when the last fetch is old enough."""
        if self._stopped or self._wants_fetch:
            return
        self._wants_fetch = True
        if self._fetch is None:
            wait = self._fetched_at + MIN_FETCH_SECONDS - self._loop.timers.clock()
            self._loop.call_later(max(0.0, wait), self._begin_fetch)

    def _begin_fetch(self) -> None:
        if self._stopped or self._fetch is not None:
            return
        self._wants_fetch = False
        fetch = self._fetch = object()
        self._loop.driver.submit_apart(
            partial(self._fetched, fetch), self._cluster.fetch_slots, self._slots
        )
        self._loop.call_later(2 * self._timeout_seconds, self._fetch_overdue, fetch)

    def _fetch_overdue(self, fetch: object) -> None:
        if fetch is self._fetch:
            self._fetched(fetch, None, TimeoutError('the nodes do not answer'))

    def _fetched(self, fetch: object, slots: SlotsMap | None, exc: BaseException | None) -> None:
        if fetch is not self._fetch or self._stopped:
            return
        self._fetch = None
        self._fetched_at = self._loop.timers.clock()
        if slots is None:
            self._not_fetched(exc)
        else:
            self._failed_fetches = 0
            if self._complaint is not None:
                logger.warning('the Cluster can be reached again')
                self._complaint = None
            self._use(slots)
        if self._wants_fetch:
            self._wants_fetch = False
            self.refresh()

    def _not_fetched(self, exc: BaseException | None) -> None:
        # Each change is logged once, not each attempt.
        if str(exc) != self._complaint:
            self._complaint = str(exc)
            logger.error('cannot find out who is in the Cluster: %s', exc)
        self._bus.nobody_knows()
        self._failed_fetches += 1
        self._loop.call_later(retry_delay(self._failed_fetches), self.refresh)

    def _use(self, slots: SlotsMap) -> None:
        self._slots = slots
        for node in slots.masters:
            self._links_to(node)
        self._bus.place_all(self.link_of)
        self.publications.replace()
        for node in [node for node in self.nodes if node not in slots.masters]:
            self._drop(node)
        self._commands.nodes_changed()
        if None in slots.owners:
            self._loop.call_later(WATCH_SECONDS, self.refresh)

    def _watch(self) -> None:
        if self._stopped:
            return
        self._loop.call_later(WATCH_SECONDS, self._watch)
        for links in self.nodes.values():
            if links.bus_link.is_connected:
                links.bus_link.send(b'CLUSTER', b'INFO', replied=self._seen)

    def _seen(self, reply: Any) -> None:
        info = info_of(reply)
        epoch = int(info.get('cluster_current_epoch', 0))
        is_known = self._slots is not None and epoch <= self._slots.epoch
        if info.get('cluster_state') != 'ok' or not is_known:
            self.refresh()


class _Refresher:
    """Fetch the map when a link is lost."""

    def __init__(self, refresh: Callable[[], object]) -> None:
        self._refresh = refresh

    def link_connected(self) -> None:
        pass

    def link_lost(self) -> None:
        self._refresh()


class ClusterCommands:
    """Commands of others than websockets, each to the node that its first key is on.

    They count as connected while all nodes are; who uses them begins anew after any loss.
    """

    def __init__(self, links: ClusterLinks) -> None:
        self.users: list[LinkUser] = []
        self.is_connected = False
        self._links = links

    def send(
        self, *words: bytes | str | int, replied: Replied = ignore, refused: Refused = ignore
    ) -> None:
        if words[0] == b'SCRIPT':
            for links in self._links.nodes.values():
                links.publications.send(*words)
            return
        queue = self._links.queue_for(words)
        if queue is not None and queue.is_connected:
            queue.send(*words, replied=replied, refused=partial(self._refused, refused))

    def _refused(self, refused: Refused, error: Exception) -> None:
        self._links.refresh()
        refused(error)

    # From the links

    def link_connected(self) -> None:
        self.nodes_changed()

    def link_lost(self) -> None:
        if self.is_connected:
            self.is_connected = False
            for user in self.users:
                user.link_lost()
        self._links.refresh()

    def nodes_changed(self) -> None:
        nodes = self._links.nodes.values()
        if not self.is_connected and all(links.publications.is_connected for links in nodes):
            self.is_connected = True
            for user in self.users:
                user.link_connected()


def _redirection(error: Exception) -> tuple[int, Node]:
    """Read ``MOVED 3999 127.0.0.1:6381``."""
    _, slot, address = str(error).split(' ')[:3]
    host, _, port = address.rpartition(':')
    return int(slot), Node(host, int(port))


def _nowhere() -> socket.socket:
    raise ConnectionRefusedError('there is no such node')
