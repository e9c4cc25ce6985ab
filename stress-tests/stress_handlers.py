"""The handlers that ``handlers.py`` measures."""

from __future__ import annotations

import time

from ws4redis.handlers import WebSocketHandler
from ws4redis.servers.process import existing_hub

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


class WaitingBesideBusyLoop(Waiting):
    """Do as ``Waiting``, in a process whose loop computes nearly all the time."""

    _is_busy = False

    def on_connect(self) -> None:
        if not WaitingBesideBusyLoop._is_busy:
            WaitingBesideBusyLoop._is_busy = True
            hub = existing_hub()
            assert hub is not None
            hub.loop.at_turn_end(_compute)


def _compute() -> bool:
    """Compute for a while at the end of each turn, and ask for the next turn at once."""
    end = time.thread_time() + WORK_SECONDS
    while time.thread_time() < end:
        pass
    return True
