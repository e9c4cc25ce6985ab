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

import functools
import inspect
import os
import ssl
import sys
from collections.abc import Mapping
from typing import Any

import redis
from django.core.exceptions import ImproperlyConfigured
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, parse_url
from redis.retry import Retry

from ws4redis.conf import conf

SOCKET_TIMEOUT_SECONDS = 5.0

# What redis-py can do, but would break ws4redis.
REFUSED_OPTIONS = {
    'cache': 'kept messages must be read from Redis',
    'cache_config': 'kept messages must be read from Redis',
    'charset': 'names are UTF-8',
    'connection_pool': 'the pool is made by ws4redis',
    'decode_responses': 'messages are bytes',
    'encoding': 'names are UTF-8',
    'encoding_errors': 'names are UTF-8',
    'errors': 'names are UTF-8',
    'event_dispatcher': 'the pool is made by ws4redis',
    'maint_notifications_config': 'the websocket loop reads its connection itself',
    'oss_cluster_maint_notifications_handler': 'the websocket loop reads its connection itself',
    'protocol': 'ws4redis chooses the version of the protocol',
    'single_connection_client': 'the client is shared among threads',
}
ADDRESS_OPTIONS = frozenset({'host', 'port', 'unix_socket_path', 'ssl'})
RETRY_OPTIONS = frozenset({'retry', 'retry_on_error', 'retry_on_timeout'})
TCP_OPTIONS = frozenset({'host', 'port', 'socket_keepalive', 'socket_keepalive_options'})


@functools.cache
def known_options() -> frozenset[str]:
    """Return the options that ``WS4REDIS_CONNECTION`` may hold with the installed redis-py."""
    accepted = inspect.signature(redis.Redis.__init__).parameters.keys()
    return frozenset({'url', *accepted}) - {'self'} - REFUSED_OPTIONS.keys()


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
    connection_class, arguments = connection_arguments(conf.WS4REDIS_CONNECTION)
    for option in {'max_connections', *RETRY_OPTIONS}:
        arguments.pop(option, None)
    # Someone who lets views wait for ever still does not want the loop to.
    for timeout in ('socket_timeout', 'socket_connect_timeout'):
        arguments[timeout] = arguments[timeout] or SOCKET_TIMEOUT_SECONDS
    arguments.update(retry=Retry(NoBackoff(), 0), protocol=3, health_check_interval=0)
    # Made without a pool, since redis-py's pools turn maintenance notifications on for RESP3.
    try:
        connection: AbstractConnection = connection_class(**arguments)
    except (TypeError, ValueError, redis.RedisError) as exc:
        raise ImproperlyConfigured(f'WS4REDIS_CONNECTION is not valid: {exc}') from exc
    return connection


def connection_arguments(options: Mapping[str, Any]) -> tuple[type[Any], dict[str, Any]]:
    """Return redis-py's class for a connection, and its arguments.

    ``options`` are those of ``WS4REDIS_CONNECTION``, defaults included. Raise
    ``ImproperlyConfigured`` when redis-py does not know one, or one breaks ws4redis.
    """
    _refuse_unknown(options)
    arguments: dict[str, Any] = {
        'socket_timeout': SOCKET_TIMEOUT_SECONDS,
        'socket_connect_timeout': SOCKET_TIMEOUT_SECONDS,
        **options,
    }
    url = arguments.pop('url', None)
    if url is not None:
        connection_class = _arguments_from_url(url, arguments)
    else:
        connection_class = _arguments_from_options(arguments)
    if connection_class is redis.UnixDomainSocketConnection:
        for option in TCP_OPTIONS:
            arguments.pop(option, None)
    else:
        arguments.setdefault('socket_keepalive', True)
    if connection_class is not redis.SSLConnection:
        _refuse_tls_options(arguments)
    elif arguments.get('ssl_cert_reqs', 'required') in {'required', ssl.CERT_REQUIRED}:
        # redis-py before 6 does not check the host's name unless told to.
        arguments.setdefault('ssl_check_hostname', True)
    return connection_class, arguments


def _arguments_from_options(arguments: dict[str, Any]) -> type[Any]:
    use_tls = arguments.pop('ssl', None)
    path = arguments.pop('unix_socket_path', None)
    if use_tls is not None and not use_tls:
        # Switched off on purpose: redis-py would ignore what else is said about TLS as well.
        for option in [option for option in arguments if option.startswith('ssl_')]:
            del arguments[option]
    if path is None:
        return redis.SSLConnection if use_tls else redis.Connection
    if use_tls:
        raise ImproperlyConfigured(
            "WS4REDIS_CONNECTION holds 'ssl' and 'unix_socket_path': there is no TLS on a Unix "
            'socket.'
        )
    arguments['path'] = os.fspath(path)
    return redis.UnixDomainSocketConnection


def _arguments_from_url(url: str, arguments: dict[str, Any]) -> type[Any]:
    try:
        from_url = parse_url(url)  # type: ignore[no-untyped-call]
    except (ValueError, AttributeError, TypeError):
        # Neither the URL nor redis-py's message is shown: either may hold the password.
        raise ImproperlyConfigured(
            "WS4REDIS_CONNECTION['url'] must look like redis://host:6379/0, rediss://host:6379/0 "
            'or unix:///path/of/the/socket?db=0; quote special characters in a password.'
        ) from None
    connection_class: type[Any] = from_url.pop('connection_class', redis.Connection)
    _refuse_unknown({name: value for name, value in from_url.items() if name != 'path'})
    arguments.update(from_url)
    return connection_class


def _refuse_tls_options(arguments: Mapping[str, Any]) -> None:
    for name in arguments:
        if name.startswith('ssl_'):
            raise ImproperlyConfigured(
                f"WS4REDIS_CONNECTION holds {name!r}, but neither 'ssl': True nor a rediss:// URL."
            )


def _refuse_unknown(options: Mapping[str, Any]) -> None:
    for name in options:
        if name in REFUSED_OPTIONS:
            raise ImproperlyConfigured(
                f'WS4REDIS_CONNECTION must not hold {name!r}: {REFUSED_OPTIONS[name]}.'
            )
        if name not in known_options():
            raise ImproperlyConfigured(
                f'WS4REDIS_CONNECTION holds {name!r}, which redis-py {redis.__version__} '
                'does not know.'
            )
    if 'url' in options and (twice := sorted(ADDRESS_OPTIONS & options.keys())):
        raise ImproperlyConfigured(
            f"WS4REDIS_CONNECTION holds 'url' and {twice[0]!r}: the URL says where Redis is."
        )
