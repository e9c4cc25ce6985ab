"""Tests of a project: of what it publishes, in memory, and of its websockets, with Redis."""

from ws4redis.test.cases import WebSocketTestCase
from ws4redis.test.client import WebSocketClient
from ws4redis.test.memory import MemoryBroker, Publication, PublishingMixin, publish_in_memory

__all__ = [
    'MemoryBroker',
    'Publication',
    'PublishingMixin',
    'WebSocketClient',
    'WebSocketTestCase',
    'publish_in_memory',
]
