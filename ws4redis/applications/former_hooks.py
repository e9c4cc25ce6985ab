"""What servers of 0.6 could be given and these have no use for: it is refused, not ignored.

A method that kept visitors out would otherwise silently let them in.
"""

from __future__ import annotations

from typing import Any

import redis
from django.core.exceptions import ImproperlyConfigured

from ws4redis.broker.connections import get_client

THE_LOOP = 'the websocket loop does this for all websockets'
SUCCESSORS = {
    'process_request': 'name a function with its body in WS4REDIS_PROCESS_REQUEST',
    'process_subscriptions': 'restrict channels by WS4REDIS_ALLOWED_CHANNELS',
    'assure_protocol_requirements': 'refuse requests in WS4REDIS_PROCESS_REQUEST by raising '
    'PermissionDenied',
    'upgrade_websocket': THE_LOOP,
    'select': THE_LOOP,
    'flush_websocket': THE_LOOP,
    'get_ws_file_descriptor': THE_LOOP,
}
ADDRESS = ('host', 'port', 'path', 'db')
SAME_HOST = {'127.0.0.1': 'localhost', '::1': 'localhost'}


def refuse_dead_hooks(server_class: type[Any]) -> None:
    """Raise ``ImproperlyConfigured`` if a class has a method that is not called any more."""
    for name, successor in SUCCESSORS.items():
        if hasattr(server_class, name):
            raise ImproperlyConfigured(
                f'{server_class.__qualname__}.{name}() is not called any more: {successor}. '
                'See "Upgrade from older packages" in the documentation.'
            )


def refuse_other_redis(connection: redis.Redis) -> None:
    """Raise ``ImproperlyConfigured`` unless a client leads to the Redis of the settings.

    The websocket loop makes connections of its own, from the settings.
    """
    given, used = _address(connection), _address(get_client())
    if given != used:
        raise ImproperlyConfigured(
            f'The server was given a connection to the Redis at {given}, but WS4REDIS_CONNECTION '
            f'leads to {used}. Name the right one there; the argument may go.'
        )


def _address(client: redis.Redis) -> dict[str, Any]:
    options = client.connection_pool.connection_kwargs
    address = {name: options[name] for name in ADDRESS if options.get(name) is not None}
    if 'path' in address:
        address.pop('host', None), address.pop('port', None)
    else:
        host = address.get('host', 'localhost')
        address['host'] = SAME_HOST.get(host, host)
    address['db'] = int(address.get('db', 0))
    return address
