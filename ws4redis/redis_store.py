"""Public names: messages, and the store on which publisher and subscriber are built."""

from __future__ import annotations

from ws4redis.publishing.identity import MEMBEROF_SESSION_KEY
from ws4redis.publishing.store import SELF, RedisMessage, RedisStore

__all__ = [
    'MEMBEROF_SESSION_KEY',
    'SELF',
    'RedisMessage',
    'RedisStore',
]
