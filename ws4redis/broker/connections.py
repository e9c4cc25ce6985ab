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
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry

from ws4redis.conf import conf
from ws4redis.settings.redis_options import RETRY_OPTIONS, bus_connection, connection_arguments


class _Shared:
    """Hold a client, the process it was made in, and the generation of settings."""

    # One tuple, so that no thread sees the client of one process with the number of another.
    made: tuple[redis.Redis, int, int] | None = None


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
    if made is not None and made[1] == os.getpid():
        made[0].connection_pool.disconnect(inuse_connections=False)


def make_client() -> redis.Redis:
    """Return a new client as ``WS4REDIS_CONNECTION`` describes it; nothing is connected yet.

    A command is sent once: if the connection breaks before the reply, redis-py's
    ``ConnectionError`` is raised instead of publishing a message twice. Connections that broke
    while idle are noticed and replaced before use.
    """
    connection_class, arguments = connection_arguments(conf.WS4REDIS_CONNECTION)
    max_connections = arguments.pop('max_connections', None)
    if not RETRY_OPTIONS & arguments.keys():
        arguments['retry'] = Retry(NoBackoff(), 0)
    pool = redis.ConnectionPool(
        connection_class,
        # redis-py 8 would allow 100, and raise an error in the 101st thread.
        max_connections=max_connections or 2**31,
        # RESP2 saves the extra command that RESP3 needs on each new connection.
        protocol=2,
        **arguments,
    )
    return redis.Redis(connection_pool=pool)


def make_bus_connection() -> AbstractConnection:
    """Return a connection for the websocket loop, not connected yet.

    Its ``connect()`` blocks, for no longer than the time-outs, authenticates and selects the
    database; it raises redis-py's ``RedisError``. Then the caller owns the socket, ``_sock``:
    redis-py neither retries nor reads anything on its own. It speaks RESP3 (Redis 6.2 or newer).
    """
    return bus_connection(conf.WS4REDIS_CONNECTION)
