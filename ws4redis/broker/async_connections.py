"""Clients of Redis for coroutines: one for each event loop.

A client of redis-py's asyncio belongs to the event loop in which its connections were made. Loops
come and go: Django runs an asynchronous view under WSGI in a loop of its own. So a client is made
for each loop, and closed when that ends: ``asyncio.run`` and ``async_to_sync`` close the
asynchronous generators that their loop has begun, and one of them holds the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ws4redis.broker.connections import generation
from ws4redis.conf import conf
from ws4redis.settings.redis_options import RETRY_OPTIONS, connection_arguments

# More coroutines than this wait for a connection to become free.
MAX_CONNECTIONS = 32

_CLASSES: dict[type[Any], type[Any]] = {
    redis.Connection: redis.asyncio.Connection,
    redis.SSLConnection: redis.asyncio.SSLConnection,
    redis.UnixDomainSocketConnection: redis.asyncio.UnixDomainSocketConnection,
}


class _Holder:
    """A client, the generator that closes it, and the generation of the settings."""

    def __init__(self, client: redis.asyncio.Redis, made_for: int) -> None:
        self.client = client
        self.made_for = made_for
        self.closing = _until_the_loop_ends(client)


async def _until_the_loop_ends(client: redis.asyncio.Redis) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await client.aclose(close_connection_pool=True)


_holders: WeakKeyDictionary[asyncio.AbstractEventLoop, _Holder] = WeakKeyDictionary()


async def get_async_client() -> redis.asyncio.Redis:
    """Return the client of the running event loop; take it from here each time.

    Raise ``ImproperlyConfigured`` when ``WS4REDIS_CONNECTION`` is wrong.
    """
    loop = asyncio.get_running_loop()
    holder = _holders.get(loop)
    if holder is None or holder.made_for != generation():
        outdated, holder = holder, _Holder(make_async_client(), generation())
        _holders[loop] = holder
        # From now on the loop knows the generator, and closes it at its end.
        await anext(holder.closing)
        if outdated is not None:
            await outdated.closing.aclose()
    return holder.client


def make_async_client() -> redis.asyncio.Redis:
    """Return a new client as ``WS4REDIS_CONNECTION`` describes it; nothing is connected yet.

    A command is sent once, as by the blocking client.
    """
    connection_class, arguments = connection_arguments(conf.WS4REDIS_CONNECTION)
    max_connections = arguments.pop('max_connections', None) or MAX_CONNECTIONS
    if not RETRY_OPTIONS & arguments.keys():
        arguments['retry'] = Retry(NoBackoff(), 0)
    pool = redis.asyncio.BlockingConnectionPool(
        max_connections=max_connections,
        timeout=arguments['socket_timeout'],
        connection_class=_CLASSES[connection_class],
        protocol=2,
        **arguments,
    )
    return redis.asyncio.Redis(connection_pool=pool)
