"""Clients of Redis for coroutines: one for each event loop.

A client of redis-py's asyncio belongs to the event loop in which its connections were made. Loops
come and go: Django runs an asynchronous view under WSGI in a loop of its own. So a client is made
for each loop, and closed when that ends: ``asyncio.run`` and ``async_to_sync`` close the
asynchronous generators that their loop has begun, and one of them holds the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ws4redis.broker.cluster_client import AsyncClusterClient
from ws4redis.broker.connections import generation, redis_target
from ws4redis.broker.masters import Service, to_master
from ws4redis.broker.nodes import to_node
from ws4redis.broker.slots import node_arguments
from ws4redis.conf import conf
from ws4redis.settings.redis_options import RETRY_OPTIONS
from ws4redis.settings.topologies import Node, Target, Topology

# More coroutines than this wait for a connection to become free.
MAX_CONNECTIONS = 32

_CLASSES: dict[type[Any], type[Any]] = {
    redis.Connection: redis.asyncio.Connection,
    redis.SSLConnection: redis.asyncio.SSLConnection,
    redis.UnixDomainSocketConnection: redis.asyncio.UnixDomainSocketConnection,
}


class _Holder:
    """A client, the generator that closes it, and the generation of the settings."""

    def __init__(self, client: redis.asyncio.Redis | AsyncClusterClient, made_for: int) -> None:
        self.client = client
        self.made_for = made_for
        self.closing = _until_the_loop_ends(client)


async def _until_the_loop_ends(
    client: redis.asyncio.Redis | AsyncClusterClient,
) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        if isinstance(client, AsyncClusterClient):
            await client.aclose()
        else:
            await client.aclose(close_connection_pool=True)


_holders: WeakKeyDictionary[asyncio.AbstractEventLoop, _Holder] = WeakKeyDictionary()


async def get_async_client() -> redis.asyncio.Redis:
    """Return the client of the running event loop; take it from here each time.

    Raise ``ImproperlyConfigured`` when ``WS4REDIS_CONNECTION`` is wrong.
    """
    client = await _client_of_loop()
    assert isinstance(client, redis.asyncio.Redis)
    return client


async def _client_of_loop() -> redis.asyncio.Redis | AsyncClusterClient:
    loop = asyncio.get_running_loop()
    holder = _holders.get(loop)
    if holder is None or holder.made_for != generation():
        _let_go_of_closed_loops()
        outdated, holder = holder, _Holder(_make(), generation())
        _holders[loop] = holder
        # From now on the loop knows the generator, and closes it at its end.
        await anext(holder.closing)
        if outdated is not None:
            await outdated.closing.aclose()
    return holder.client


def _let_go_of_closed_loops() -> None:
    """Drop what holds the event loops that have ended: a client refers to its loop."""
    # A list made at once, since other threads have loops of their own.
    for reference in _holders.keyrefs():
        loop = reference()
        if loop is not None and loop.is_closed():
            _holders.pop(loop, None)


async def get_async_cluster() -> AsyncClusterClient | None:
    """Return what runs commands on the Cluster of the settings; None without a Cluster."""
    if not conf.uses_cluster:
        return None
    client = await _client_of_loop()
    assert isinstance(client, AsyncClusterClient)
    return client


def make_async_client() -> redis.asyncio.Redis:
    """Return a new client as ``WS4REDIS_CONNECTION`` describes it; nothing is connected yet.

    A command is sent once, as by the blocking client.
    """
    target = redis_target()
    connection_class, arguments = _CLASSES[target.connection_class], target.arguments
    if target.topology is Topology.SENTINEL:
        connection_class = to_master(connection_class)
        arguments = {**arguments, 'service': Service(target)}
    return _client(connection_class, arguments)


def _make() -> redis.asyncio.Redis | AsyncClusterClient:
    if conf.uses_cluster:
        return AsyncClusterClient(redis_target(), _client_of_node)
    return make_async_client()


def _client_of_node(target: Target, node: Node) -> redis.asyncio.Redis:
    connection_class = to_node(_CLASSES[target.connection_class])
    return _client(connection_class, node_arguments(target.arguments, node))


def _client(connection_class: type[Any], arguments: Mapping[str, Any]) -> redis.asyncio.Redis:
    wanted = dict(arguments)
    max_connections = wanted.pop('max_connections', None) or MAX_CONNECTIONS
    if not RETRY_OPTIONS & wanted.keys():
        wanted['retry'] = Retry(NoBackoff(), 0)
    pool = redis.asyncio.BlockingConnectionPool(
        max_connections=max_connections,
        timeout=wanted['socket_timeout'],
        connection_class=connection_class,
        protocol=2,
        **wanted,
    )
    return redis.asyncio.Redis(connection_pool=pool)
