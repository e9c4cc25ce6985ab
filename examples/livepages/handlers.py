"""The handlers of the two pages: code that runs when a browser connects, sends, leaves."""

from __future__ import annotations

import random
from typing import Any

from livepages import presence
from ws4redis.handlers import WebSocketHandler


class RandomCounter(WebSocketHandler):
    """Count by random steps: each message of the browser asks for the next number.

    The counter belongs to one websocket: there is an instance of this class for each.
    """

    def on_connect(self) -> None:
        self.count = 0

    def on_message(self, message: str | bytes) -> None:
        step = random.randint(1, 9)
        self.count += step
        # How long the browser is to wait before it asks again. A handler that slept instead would
        # keep a thread busy for every visitor.
        self.send_json({'count': self.count, 'step': step, 'wait_ms': random.randint(300, 1500)})


class Visitor(WebSocketHandler):
    """Note who has the page open.

    Who is here is published, so that it reaches the visitors of all processes: the browser listens
    to that by a second websocket, on the facility ``visitors``.
    """

    def on_connect(self) -> None:
        self.visitor = presence.Visitor.of(self.request)

    def on_open(self, message: str | bytes) -> Any:
        # The first message of the browser, and no other, brings it in.
        presence.arrive(self.visitor)
        self.send_json({'you': self.visitor.id})
        self.tell_everyone()
        return True

    def on_message(self, message: str | bytes) -> None:
        # All later ones say that it is still here.
        presence.stay(self.visitor)

    def on_close(self, code: int) -> None:
        presence.leave(self.visitor)
        self.tell_everyone()

    def tell_everyone(self) -> None:
        self.publish(presence.as_json(), facility=presence.FACILITY, broadcast=True)
