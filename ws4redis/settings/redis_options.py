"""What ``WS4REDIS_CONNECTION`` may hold, and what redis-py makes of it."""

from __future__ import annotations

import functools
import inspect
import os
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import redis
from django.core.exceptions import ImproperlyConfigured
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from ws4redis.settings.judges import is_filled_string, is_positive, is_whole_number, or_none

CONNECTION_DEFAULTS: Mapping[str, Any] = {
    'host': 'localhost',
    'port': 6379,
    'db': 0,
    'password': None,
}
SOCKET_TIMEOUT_SECONDS = 5.0
LARGEST_PORT = 65535

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
# What names Sentinels or a Cluster in place of one Redis; see ``topologies``.
TOPOLOGY_OPTIONS = frozenset({'cluster', 'sentinels', 'service_name', 'sentinel_kwargs'})
ADDRESS_OPTIONS = frozenset({'host', 'port', 'unix_socket_path', 'ssl'})
RETRY_OPTIONS = frozenset({'retry', 'retry_on_error', 'retry_on_timeout'})
TCP_OPTIONS = frozenset({'host', 'port', 'socket_keepalive', 'socket_keepalive_options'})


@functools.cache
def known_options() -> frozenset[str]:
    """Return the options that ``WS4REDIS_CONNECTION`` may hold with the installed redis-py."""
    accepted = inspect.signature(redis.Redis.__init__).parameters.keys()
    return frozenset({'url', *accepted}) - {'self'} - REFUSED_OPTIONS.keys()


def with_defaults(given: Any) -> dict[str, Any]:
    """Return the options of the connection with the defaults filled in.

    With ``url``, Sentinels or a Cluster no defaults are filled in, since these say it all.
    """
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(
            f'WS4REDIS_CONNECTION must be a dictionary, not {type(given).__name__}.'
        )
    says_where = 'url' in given or not TOPOLOGY_OPTIONS.isdisjoint(given)
    return dict(given) if says_where else {**CONNECTION_DEFAULTS, **given}


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


def bus_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a connection as the websocket loop needs it; see ``connections``."""
    wanted = dict(arguments)
    for option in {'max_connections', *RETRY_OPTIONS}:
        wanted.pop(option, None)
    # Someone who lets views wait for ever still does not want the loop to.
    for timeout in ('socket_timeout', 'socket_connect_timeout'):
        wanted[timeout] = wanted[timeout] or SOCKET_TIMEOUT_SECONDS
    return {**wanted, 'retry': Retry(NoBackoff(), 0), 'protocol': 3, 'health_check_interval': 0}


def make_connection(connection_class: type[Any], arguments: Mapping[str, Any]) -> Any:
    """Return a connection, not connected yet; raise ``ImproperlyConfigured`` if it cannot be.

    It is made without a pool, since redis-py's pools turn maintenance notifications on for RESP3.
    """
    try:
        return connection_class(**arguments)
    except (TypeError, ValueError, redis.RedisError) as exc:
        raise ImproperlyConfigured(f'WS4REDIS_CONNECTION is not valid: {exc}') from exc


def is_port(value: Any) -> bool:
    if isinstance(value, str):
        return value.isdecimal() and is_port(int(value))
    return is_whole_number(value) and 0 < value <= LARGEST_PORT


def is_database_number(value: Any) -> bool:
    if isinstance(value, str):
        return value.isdecimal()
    return is_whole_number(value) and value >= 0


CONNECTION_OPTIONS: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ('host', 'a string', is_filled_string),
    ('port', f'a number from 1 to {LARGEST_PORT}', is_port),
    ('db', 'a whole number', or_none(is_database_number)),
    ('username', 'a string', or_none(lambda value: isinstance(value, str))),
    ('password', 'a string', or_none(lambda value: isinstance(value, str | bytes))),
    ('socket_timeout', 'a number of seconds', or_none(is_positive)),
    ('socket_connect_timeout', 'a number of seconds', or_none(is_positive)),
)
