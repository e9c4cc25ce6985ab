"""Public names: publish and fetch messages."""

from __future__ import annotations

from typing import Any

from redis import StrictRedis

from ws4redis.broker.connections import get_client
from ws4redis.broker.publication import in_transaction, publication_commands
from ws4redis.publishing.publisher import RedisPublisher
from ws4redis.publishing.store import SELF, RedisMessage

__all__ = [
    'SELF',
    'RedisMessage',
    'RedisPublisher',
    'StrictRedis',
    'in_transaction',
    'publication_commands',
]


def __getattr__(name: str) -> Any:
    # Made when it is asked for: to import this module takes no settings.
    if name == 'redis_connection_pool':
        return get_client().connection_pool
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
