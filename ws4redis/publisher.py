"""Public names: publish and fetch messages."""

from __future__ import annotations

from ws4redis.broker.publication import in_transaction, publication_commands
from ws4redis.publishing.publisher import RedisPublisher
from ws4redis.publishing.store import SELF, RedisMessage

__all__ = ['SELF', 'RedisMessage', 'RedisPublisher', 'in_transaction', 'publication_commands']
