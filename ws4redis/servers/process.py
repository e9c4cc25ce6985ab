"""The websockets of this process, made when the first of them is needed."""

from __future__ import annotations

import _socket
import gc
import logging
import os
import random
import socket
import ssl
import sys
from functools import lru_cache
from typing import Any

from django.db import close_old_connections
from redis import RedisError

from ws4redis.broker.connections import make_bus_connection, make_node_connection, redis_target
from ws4redis.broker.history import Kind
from ws4redis.broker.kept import KeptByClients
from ws4redis.broker.link import pack_command
from ws4redis.broker.masters import sentinel_connection
from ws4redis.broker.outgoing import Exchange, Outgoing, options_of_channel, route_to
from ws4redis.broker.slots import SlotsMap, fetch_slots
from ws4redis.conf import conf
from ws4redis.handshake.connection_limits import connection_limits
from ws4redis.handshake.look_ups import LookUps
from ws4redis.handshake.session_reader import SessionReader
from ws4redis.hub.hub import Hub
from ws4redis.hub.options import HubOptions, limits_of_websockets
from ws4redis.hub.publications import Packed, PackPublication
from ws4redis.loop.drivers import GeventDriver, ThreadDriver, choose_driver
from ws4redis.loop.native import original
from ws4redis.servers.shutdown import close_hub_at_exit
from ws4redis.servers.snapshots import tell_snapshots
from ws4redis.servers.statistics import log_statistics_every
from ws4redis.settings.checks import validate_settings
from ws4redis.settings.topologies import Node, Target, Topology

logger = logging.getLogger('ws4redis')

STOP_SECONDS = 5.0
# To look up a member of an enumeration takes ten times as long as to look up a name.
_TEXT = Kind.TEXT
_MULTI = pack_command(b'MULTI')
_EXEC = pack_command(b'EXEC')


class _Current:
    lock = original('_thread', 'allocate_lock')()
    hub: Hub | None = None
    pid = 0
    reader: tuple[Hub, SessionReader] | None = None
    driver_class: type[GeventDriver | ThreadDriver] | None = None


def get_hub() -> Hub:
    """Return the websockets of this process.

    They are made at the first call: uWSGI forks after it has loaded the application, and neither
    threads nor epoll survive that. Raise ``ImproperlyConfigured`` when a setting is wrong.
    """
    hub = _Current.hub
    if hub is None or _Current.pid != os.getpid():
        with _Current.lock:
            hub = _Current.hub
            if hub is None or _Current.pid != os.getpid():
                hub = make_hub()
                _keep_shared_memory_shared()
                hub.start()
                close_hub_at_exit(hub)
                if conf.WS4REDIS_SNAPSHOT_INTERVAL:
                    tell_snapshots(hub, conf.WS4REDIS_SNAPSHOT_INTERVAL)
                if conf.WS4REDIS_STATISTICS_INTERVAL:
                    log_statistics_every(hub, conf.WS4REDIS_STATISTICS_INTERVAL)
                _Current.hub = hub
                _Current.pid = os.getpid()
    return hub


def _keep_shared_memory_shared() -> None:
    """Let the garbage collector pass over what the application loaded before uWSGI forked.

    A collection writes into each object that it visits, and so would copy nearly all of the memory
    that this worker shares with the master: 16 MB in the example, 1 KB for each of 15,000
    websockets. It also spares each full collection the visit.
    """
    if 'uwsgi' in sys.modules:
        gc.freeze()


def use_driver(driver_class: type[GeventDriver | ThreadDriver]) -> None:
    """Say what the loop of this process runs under, where ``choose_driver`` could not tell.

    For servers that know what they are. Called before the first websocket.
    """
    _Current.driver_class = driver_class


def drop_hub() -> None:
    """Close the websockets of this process; the next handshake makes others.

    For tests that change the settings.
    """
    with _Current.lock:
        hub, _Current.hub = _Current.hub, None
    if hub is not None and _Current.pid == os.getpid():
        hub.loop.stop()
        hub.loop.driver.wait_stopped(STOP_SECONDS)


def session_reader(hub: Hub) -> SessionReader:
    """Return what reads sessions for the handshakes of a hub."""
    if _Current.reader is None or _Current.reader[0] is not hub:
        _Current.reader = (hub, SessionReader(hub.loop))
    return _Current.reader[1]


def existing_hub() -> Hub | None:
    """Return the websockets of this process if there ever were any."""
    return _Current.hub if _Current.pid == os.getpid() else None


def make_hub() -> Hub:
    """Build websockets from the settings, not yet started."""
    validate_settings()
    return Hub(
        (_Current.driver_class or choose_driver)(
            pool_size=conf.WS4REDIS_WORKER_THREADS, care=close_old_connections
        ),
        connect=connect_to_redis,
        **what_finds_redis(),
        pack=publication_packer(),
        give_back=connection_limits.give_back,
        checks=LookUps(),
        options=options_from_settings(),
    )


def options_from_settings() -> HubOptions:
    heartbeat = conf.WS4REDIS_HEARTBEAT
    return HubOptions(
        limits=limits_of_websockets(
            conf.WS4REDIS_MAX_MESSAGE_SIZE,
            max_messages_per_second=conf.WS4REDIS_MAX_MESSAGES_PER_SECOND,
        ),
        max_queue_bytes=conf.WS4REDIS_MAX_QUEUE_BYTES,
        max_total_queue_bytes=conf.WS4REDIS_MAX_TOTAL_QUEUE_BYTES,
        max_messages_per_second=conf.WS4REDIS_MAX_MESSAGES_PER_SECOND,
        max_bytes_per_second=conf.WS4REDIS_MAX_BYTES_PER_SECOND,
        max_pings_per_second=conf.WS4REDIS_MAX_PINGS_PER_SECOND,
        ping_interval_seconds=conf.WS4REDIS_PING_INTERVAL,
        ping_timeout_seconds=conf.WS4REDIS_PING_TIMEOUT,
        close_timeout_seconds=conf.WS4REDIS_CLOSE_TIMEOUT,
        heartbeat=None if heartbeat is None else heartbeat.encode(),
        redis_timeout_seconds=conf.WS4REDIS_REDIS_TIMEOUT,
        expire_seconds=conf.WS4REDIS_EXPIRE,
        key_prefix=conf.key_prefix,
        facility_of_channel=options_of_channel,
        max_tail_bytes=conf.WS4REDIS_TAIL_BYTES,
        revalidate_seconds=conf.WS4REDIS_REVALIDATE_SECONDS,
    )


def connect_to_redis(key: str = '') -> Any:
    """Return a connected, authenticated socket to Redis that speaks RESP3. Blocks.

    In a Cluster it leads to the node that has a key.

    redis-py builds the connection; its socket is then taken over, since redis-py can read only
    while blocking. Raise ``RedisError`` or ``OSError`` when Redis cannot be reached.
    """
    return take_socket(make_bus_connection(key))


def what_finds_redis() -> dict[str, Any]:
    """Return what tells a hub where Redis is by now, where that changes."""
    target = redis_target()
    if target.topology is Topology.CLUSTER:
        return {'cluster': Cluster(target)}
    if target.topology is Topology.SENTINEL:
        return {'sentinels': Sentinels(target)}
    return {}


class Sentinels:
    """The Sentinels that the settings name."""

    def __init__(self, target: Target) -> None:
        self.service_name = target.service_name
        self._target = target

    def connect(self) -> Any:
        """Return a socket to one of them that answers. Blocks."""
        complaint: Exception | None = None
        for node in random.sample(self._target.nodes, len(self._target.nodes)):
            try:
                return take_socket(sentinel_connection(self._target, node, protocol=3))
            except (RedisError, OSError) as exc:
                complaint = exc
        assert complaint is not None
        raise complaint


class Cluster:
    """The nodes of the Cluster that the settings name. All of it blocks."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def fetch_slots(self, known: SlotsMap | None) -> SlotsMap:
        """Ask the nodes who has which slots; see ``slots``."""
        return fetch_slots(self._target, known)

    def connect(self, node: Node) -> Any:
        """Return a socket to a node as :func:`connect_to_redis` does."""
        return take_socket(make_node_connection(self._target, node))


def take_socket(connection: Any) -> Any:
    """Connect, and return the socket that redis-py made. Blocks."""
    connection.connect()
    sock: socket.socket = connection._sock
    # redis-py closes what it holds when it is collected.
    connection._sock = None
    if isinstance(sock, ssl.SSLSocket):
        return sock
    # Under gevent's monkey patching the object belongs to this thread; the descriptor does not.
    return _socket.socket(fileno=sock.detach())


def publication_packer() -> PackPublication:
    """Return what packs the commands that publish a message, as the settings have them now."""
    kept = KeptByClients(conf.WS4REDIS_MAX_KEPT_BYTES)
    # Names of facilities are the clients' choice, so not all of them are remembered.
    find = lru_cache(maxsize=4096)(route_to)

    @lru_cache(maxsize=4096)
    def plain_words(channels: tuple[str, ...]) -> tuple[bytes, bytes] | None:
        """Return how to publish where one command does: on one channel that keeps nothing."""
        if len(channels) != 1:
            return None
        name, options, keep, word = find(channels[0])
        return None if keep or options.has_history else (word, name)

    def pack(outgoing: Outgoing, tag: str, again: bool) -> Packed:  # noqa: FBT001 - a callback
        words = plain_words(outgoing.channels)
        if (
            words is not None
            and outgoing.kind is _TEXT
            and outgoing.expire is None
            and outgoing.once is None
        ):
            # Much traffic is of this kind, and it needs nothing to be remembered.
            return pack_command(*words, outgoing.payload), 1, None
        exchange = Exchange(outgoing, kept=kept, tag=tag, again=again, find=find)
        packed = [pack_command(*command) for command in exchange.commands]
        if exchange.has_history:
            # Each script is all or nothing; in a transaction one that Redis does not know would
            # spoil the others.
            return b''.join(packed), len(packed), exchange
        if len(packed) > 1:
            # As in_transaction() has it, packed once for all.
            packed = [_MULTI, *packed, _EXEC]
        return b''.join(packed), len(packed), None

    return pack
