"""The handlers that ``handlers.py`` measures."""

from __future__ import annotations

import time

from ws4redis.handlers import WebSocketHandler

WORK_SECONDS = 0.001


class Echo(WebSocketHandler):
    """Send each message back."""

    def on_message(self, message: str | bytes) -> None:
        self.send(message)


class Busy(WebSocketHandler):
    """Send each message back after a millisecond of the processor's time."""

    def on_message(self, message: str | bytes) -> None:
        end = time.thread_time() + WORK_SECONDS
        while time.thread_time() < end:
            pass
        self.send(message)


class Waiting(WebSocketHandler):
    """Send each message back after a millisecond of waiting, as for a database."""

    def on_message(self, message: str | bytes) -> None:
        time.sleep(WORK_SECONDS)
        self.send(message)
