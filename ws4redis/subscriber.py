"""Public names: the subscriber, to be subclassed by projects."""

from __future__ import annotations

from ws4redis.handshake.subscriber import RedisSubscriber, WebSocketProxy

__all__ = ['RedisSubscriber', 'WebSocketProxy']
