"""Handlers: classes that react to what websockets send."""

from ws4redis.handlers.handler import WebSocketHandler

__all__ = ['WebSocketHandler']
