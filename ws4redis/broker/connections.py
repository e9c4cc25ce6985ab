"""Build clients and connections of Redis; no other module does.

Two users, two kinds:

- Django's views share one ``redis.Redis`` client, from :func:`get_client`. Its pool is safe among
  threads, and :func:`get_client` never returns a client made before a fork.
- The websocket loop owns its connections: :func:`make_bus_connection` makes one, a pool's thread
  calls its blocking ``connect()``, then the loop takes the socket over.

Under ``gevent.monkey.patch_all()`` a socket belongs to the native thread that made it, since its
watchers belong to that thread's loop. There each native thread has a client of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import redis
from django.utils.functional import SimpleLazyObject
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry

from ws4redis.broker.cluster_client import ClusterClient
from ws4redis.broker.masters import Service, to_master
from ws4redis.broker.nodes import to_node, to_slot
from ws4redis.broker.slots import fetch_slots, node_arguments
from ws4redis.conf import conf
from ws4redis.settings.redis_options import RETRY_OPTIONS, bus_arguments, make_connection
from ws4redis.settings.topologies import Node, Target, Topology, target_of


class _Shared:
    """Hold a client, the process it was made in, and the generation of settings."""

    # One tuple, so that no thread sees the client of one process with the number of another.
    made: tuple[redis.Redis, int, int] | None = None
    cluster: tuple[ClusterClient, int, int] | None = None


_shared = _Shared()
_shared_by_native_thread: Any = None
_generation = 0


def _holder() -> _Shared:
    monkey = sys.modules.get('gevent.monkey')
    if monkey is None or not monkey.is_module_patched('socket'):
        return _shared
    global _shared_by_native_thread
    if _shared_by_native_thread is None:
        # threading.local itself may be patched, and then tells greenlets apart, not threads.
        _shared_by_native_thread = monkey.get_original('threading', 'local')()
    local = _shared_by_native_thread
    if not hasattr(local, 'shared'):
        local.shared = _Shared()
    shared: _Shared = local.shared
    return shared


def get_client() -> redis.Redis:
    """Return the client that all threads of this process share.

    Take it from here each time rather than keeping it, so that it follows the settings. Raise
    ``ImproperlyConfigured`` when ``WS4REDIS_CONNECTION`` is wrong.
    """
    holder = _holder()
    made_for = (os.getpid(), _generation)
    made = holder.made
    if made is None or made[1:] != made_for:
        # Two threads may both come here: the later client stays, both work.
        made = holder.made = (make_client(), *made_for)
    return made[0]


def generation() -> int:
    """Return a number that changes when clients have to be made anew."""
    return _generation


def drop_client() -> None:
    """Forget the shared client and close its idle connections; the next call makes another."""
    global _generation
    _generation += 1
    holder = _holder()
    made, holder.made = holder.made, None
    cluster, holder.cluster = holder.cluster, None
    if cluster is not None and cluster[1] == os.getpid():
        cluster[0].close()
    # That of a Cluster may not be connected yet, and closes what it holds when it is collected.
    if made is not None and made[1] == os.getpid() and type(made[0]) is redis.Redis:
        made[0].connection_pool.disconnect(inuse_connections=False)


def make_client() -> redis.Redis:
    """Return a new client as ``WS4REDIS_CONNECTION`` describes it; nothing is connected yet.

    A command is sent once: if the connection breaks before the reply, redis-py's
    ``ConnectionError`` is raised instead of publishing a message twice. Connections that broke
    while idle are noticed and replaced before use.

    Of a Cluster it is redis-py's client for Clusters, which does send commands again; ws4redis
    publishes through a :class:`~ws4redis.broker.cluster_client.ClusterClient`.
    """
    target = redis_target()
    if target.topology is Topology.CLUSTER:
        # It connects when it is made, so that is left to its first use.
        return cast(redis.Redis, SimpleLazyObject(partial(_redis_py_cluster, target)))
    if target.topology is Topology.SENTINEL:
        arguments = {**target.arguments, 'service': Service(target)}
        return _client(to_master(target.connection_class), arguments)
    return _client(target.connection_class, target.arguments)


def redis_target() -> Target:
    """Return where Redis is, by the settings; raise ``ImproperlyConfigured`` if they are wrong."""
    return target_of(conf.WS4REDIS_CONNECTION)


def _client(connection_class: type[Any], arguments: Mapping[str, Any]) -> redis.Redis:
    wanted = dict(arguments)
    max_connections = wanted.pop('max_connections', None)
    if not RETRY_OPTIONS & wanted.keys():
        wanted['retry'] = Retry(NoBackoff(), 0)
    pool = redis.ConnectionPool(
        connection_class,
        # redis-py 8 would allow 100, and raise an error in the 101st thread.
        max_connections=max_connections or 2**31,
        # RESP2 saves the extra command that RESP3 needs on each new connection.
        protocol=2,
        **wanted,
    )
    return redis.Redis(connection_pool=pool)


def _client_of_node(target: Target, node: Node) -> redis.Redis:
    return _client(to_node(target.connection_class), node_arguments(target.arguments, node))


def client_of_key(key: str) -> redis.Redis:
    """Return the client of the Redis that has a key; of a Cluster, a new one of that node."""
    if not conf.uses_cluster:
        return get_client()
    target = redis_target()
    node = fetch_slots(target).owner_of(key.encode())
    if node is None:
        raise redis.ConnectionError(f'nobody in the Cluster serves the slot of {key!r}')
    return _client_of_node(target, node)


def _redis_py_cluster(target: Target) -> RedisCluster:
    arguments = dict(target.arguments)
    arguments.pop('db', None)
    if issubclass(target.connection_class, redis.SSLConnection):
        arguments['ssl'] = True
    nodes = [ClusterNode(*node) for node in target.nodes]  # type: ignore[no-untyped-call]
    return RedisCluster(startup_nodes=nodes, **arguments)


def get_cluster() -> ClusterClient | None:
    """Return what runs commands on the Cluster of the settings; None without a Cluster.

    As :func:`get_client` it is shared, and made anew where that would be.
    """
    if not conf.uses_cluster:
        return None
    holder = _holder()
    made_for = (os.getpid(), _generation)
    made = holder.cluster
    if made is None or made[1:] != made_for:
        made = holder.cluster = (ClusterClient(redis_target(), _client_of_node), *made_for)
    return made[0]


def make_bus_connection(key: bytes | str = b'') -> Any:
    """Return a connection for the websocket loop, not connected yet.

    Its ``connect()`` blocks, for no longer than the time-outs, authenticates and selects the
    database; it raises redis-py's ``RedisError``. Then the caller owns the socket, ``_sock``:
    redis-py neither retries nor reads anything on its own. It speaks RESP3 (Redis 6.2 or newer).

    Each time it connects it leads to the Redis there is, or the master there is now: in a Cluster
    to that of a key's slot.
    """
    target = redis_target()
    connection_class, arguments = target.connection_class, bus_arguments(target.arguments)
    if target.topology is Topology.SENTINEL:
        connection_class = to_master(connection_class)
        arguments['service'] = Service(target)
    elif target.topology is Topology.CLUSTER:
        connection_class = to_slot(connection_class)
        arguments |= {'target': target, 'key': key.encode() if isinstance(key, str) else key}
    return make_connection(connection_class, arguments)


def make_node_connection(target: Target, node: Node) -> Any:
    """Return such a connection to one node of a Cluster."""
    arguments = node_arguments(bus_arguments(target.arguments), node)
    return make_connection(target.connection_class, arguments)
