"""Run commands on the nodes of a Redis Cluster: one pipeline per node, blocking or not.

redis-py has clients of a Cluster, which send again what a broken connection left without an answer,
and so publish it twice. These send a command again only where Redis has said that it did nothing.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import redis
import redis.asyncio

from ws4redis.broker.cluster_exchange import ClusterExchange, Unit, pause_seconds
from ws4redis.broker.nodes import NotConnected
from ws4redis.broker.publication import Command
from ws4redis.broker.slots import SlotsMap, fetch_slots
from ws4redis.settings.redis_options import SOCKET_TIMEOUT_SECONDS
from ws4redis.settings.topologies import Node, Target

Client = TypeVar('Client')


class _Nodes(Generic[Client]):
    """The map of a Cluster, and a client for each node that was used."""

    def __init__(self, target: Target, make_client: Callable[[Target, Node], Client]) -> None:
        self._target = target
        self._make_client = make_client
        self._slots: SlotsMap | None = None
        self._clients: dict[Node, Client] = {}
        # For how long a command may be sent again.
        self._patience = target.arguments['socket_timeout'] or SOCKET_TIMEOUT_SECONDS

    def _client_of(self, node: Node) -> Client:
        client = self._clients.get(node)
        if client is None:
            client = self._clients[node] = self._make_client(self._target, node)
        return client

    def _use(self, slots: SlotsMap) -> list[Client]:
        """Take a new map, and return the clients of nodes that are not in it."""
        self._slots = slots
        # A copy: other threads add clients meanwhile.
        gone = [node for node in list(self._clients) if node not in slots.nodes]
        return [self._clients.pop(node) for node in gone]


class _Attempts:
    """How often, and for how long, commands are sent again."""

    def __init__(self, patience: float) -> None:
        self._deadline = time.monotonic() + patience
        self._pauses = 0

    def pause(self, exchange: ClusterExchange) -> float:
        """Return how long to wait before the next attempt; give up what has no time left."""
        if not exchange.open or not exchange.wants_pause:
            return 0.0
        pause = pause_seconds(self._pauses)
        self._pauses += 1
        if time.monotonic() + pause > self._deadline:
            exchange.give_up()
            return 0.0
        return pause


class ClusterClient(_Nodes[redis.Redis]):
    """Run commands, many in one round trip to each node. Safe among threads."""

    def __init__(self, target: Target, make_client: Callable[[Target, Node], redis.Redis]) -> None:
        super().__init__(target, make_client)
        self._fetching = threading.Lock()

    def execute(self, commands: Sequence[Command], *, transaction: bool) -> list[Any]:
        """Return the reply to each command, errors among them.

        With ``transaction`` Redis does what follows each other in one slot together or not at all.
        """
        exchange = ClusterExchange(commands, transaction=transaction)
        attempts = _Attempts(self._patience)
        slots = self._known_slots()
        while exchange.open:
            for node, units in exchange.batches(slots).items():
                self._send(exchange, node, units)
            if exchange.wants_slots:
                slots = self._newer_slots(slots)
            time.sleep(attempts.pause(exchange))
        return exchange.replies

    def execute_on_masters(self, command: Command) -> list[Any]:
        """Run a command that names no key on each master; raise the first error."""
        masters = self._newer_slots(self._slots).masters
        return [
            self._client_of(node).execute_command(*command)  # type: ignore[no-untyped-call]
            for node in masters
        ]

    def _send(self, exchange: ClusterExchange, node: Node, units: list[Unit]) -> None:
        commands = [command for unit in units for command in unit.to_send()]
        client = self._client_of(node)
        try:
            with client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
                exchange.take(node, units, pipeline.execute(raise_on_error=False))
        except (redis.ConnectionError, redis.TimeoutError, OSError) as exc:
            _note_failure(exchange, units, exc)

    def _known_slots(self) -> SlotsMap:
        return self._slots or self._newer_slots(None)

    def _newer_slots(self, outdated: SlotsMap | None) -> SlotsMap:
        with self._fetching:
            if self._slots is None or self._slots is outdated:
                for client in self._use(fetch_slots(self._target, outdated)):
                    client.connection_pool.disconnect(inuse_connections=False)
            assert self._slots is not None
            return self._slots

    def close(self) -> None:
        """Close the connections that are idle."""
        for client in list(self._clients.values()):
            client.connection_pool.disconnect(inuse_connections=False)


class AsyncClusterClient(_Nodes[redis.asyncio.Redis]):
    """Do the same for the coroutines of one event loop."""

    def __init__(
        self, target: Target, make_client: Callable[[Target, Node], redis.asyncio.Redis]
    ) -> None:
        super().__init__(target, make_client)
        self._fetching = asyncio.Lock()

    async def execute(self, commands: Sequence[Command], *, transaction: bool) -> list[Any]:
        """Do as :meth:`ClusterClient.execute`, all nodes at a time."""
        exchange = ClusterExchange(commands, transaction=transaction)
        attempts = _Attempts(self._patience)
        slots = self._slots or await self._newer_slots(None)
        while exchange.open:
            batches = exchange.batches(slots)
            await asyncio.gather(
                *(self._send(exchange, node, units) for node, units in batches.items())
            )
            if exchange.wants_slots:
                slots = await self._newer_slots(slots)
            await asyncio.sleep(attempts.pause(exchange))
        return exchange.replies

    async def _send(self, exchange: ClusterExchange, node: Node, units: list[Unit]) -> None:
        commands = [command for unit in units for command in unit.to_send()]
        client = self._client_of(node)
        try:
            async with client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                exchange.take(node, units, await pipeline.execute(raise_on_error=False))
        except (redis.ConnectionError, redis.TimeoutError, OSError) as exc:
            _note_failure(exchange, units, exc)

    async def _newer_slots(self, outdated: SlotsMap | None) -> SlotsMap:
        async with self._fetching:
            if self._slots is None or self._slots is outdated:
                # It blocks.
                slots = await asyncio.to_thread(fetch_slots, self._target, outdated)
                for client in self._use(slots):
                    await client.aclose(close_connection_pool=True)
            assert self._slots is not None
            return self._slots

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose(close_connection_pool=True)


def _note_failure(exchange: ClusterExchange, units: list[Unit], error: Exception) -> None:
    if isinstance(error, NotConnected):
        exchange.not_connected(units, error)
    else:
        exchange.failed(units, error)
