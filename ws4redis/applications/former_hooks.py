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
    'Subscriber': 'name the class in WS4REDIS_SUBSCRIBER',
    'possible_channels': 'list options in the subscriber class, in its subscription_channels and '
    'publish_channels',
}
ADDRESS = ('host', 'port', 'path', 'db')
SAME_HOST = {'127.0.0.1': 'localhost', '::1': 'localhost'}


class RefusesFormerHooks:
    """Refuse what 0.6 called or looked at, be it in a subclass or set on an instance.

    Raise ``ImproperlyConfigured`` with the name, and what to use instead.
    """

    def __init__(self) -> None:
        for name in SUCCESSORS:
            if hasattr(type(self), name):
                raise self._refusal(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in SUCCESSORS:
            raise self._refusal(name)
        super().__setattr__(name, value)

    def _refusal(self, name: str) -> ImproperlyConfigured:
        return ImproperlyConfigured(
            f'{type(self).__qualname__}.{name} is not used any more: {SUCCESSORS[name]}. '
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
