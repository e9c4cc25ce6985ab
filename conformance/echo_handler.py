"""A handler that echoes: for the native door."""

from __future__ import annotations

from ws4redis.handlers import WebSocketHandler


class Echo(WebSocketHandler):
    """Send each message back."""

    def on_message(self, message: str | bytes) -> None:
        self.send(message)
