"""Tests of a project's own websockets: of its views, and of the URLs under ``WEBSOCKET_URL``."""

from ws4redis.test.cases import WebSocketTestCase
from ws4redis.test.client import WebSocketClient

__all__ = ['WebSocketClient', 'WebSocketTestCase']
