"""How long a publication takes to its recipients: measured by publications of the process itself.

Once a second it publishes something on a channel of its own, over the connection that its clients'
messages take. What comes back waits its turn in the fan-out as a message for one more websocket
would. So one clock measures the whole way, and no delivery costs more for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ws4redis.broker.keys import keys_of
from ws4redis.broker.link import ignore
from ws4redis.broker.snapshots import probe_channel
from ws4redis.hub.channel import Channel
from ws4redis.loop.metrics import histogram

if TYPE_CHECKING:
    from ws4redis.hub.bus_link import BusLink
    from ws4redis.hub.hub import Hub

PROBE_SECONDS: Final = 1.0
#: A probe that was lost on the way is followed by another after this.
LOST_SECONDS: Final = 30.0

PUBLISH_TO_SEND: Final = histogram(
    'publish_to_send_seconds',
    'From publishing until websockets are sent it, measured once a second',
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)


class Probe:
    """Measure how long a hub's publications take. All of it runs in the loop."""

    def __init__(self, hub: Hub, process: str) -> None:
        self._hub = hub
        self._name = probe_channel(process).encode()
        self._channel = Channel(keys_of(self._name, hub.options.key_prefix))
        self._is_listening = False
        self._sent_at: float | None = None

    def start(self) -> None:
        """Measure from now on; called in the loop."""
        self._hub.bus.listen(self._name, self)
        self._hub.loop.call_later(PROBE_SECONDS, self._tick)

    # What the bus tells

    def connected(self, link: BusLink) -> None:
        link.subscribe(self._name, confirmed=self._confirmed, refused=ignore)

    def disconnected(self, link: BusLink) -> None:
        self._is_listening = False
        self._sent_at = None

    def heard(self, payload: bytes) -> None:
        if self._sent_at is not None:
            self._hub.fanout.call_in_turn(self._channel, self._delivered)

    def _confirmed(self, push: object) -> None:
        self._is_listening = True

    # Measuring

    def _tick(self) -> None:
        self._hub.loop.call_later(PROBE_SECONDS, self._tick)
        now = self._clock()
        is_under_way = self._sent_at is not None and now - self._sent_at < LOST_SECONDS
        commands = self._hub.links.commands
        if self._is_listening and not is_under_way and commands.is_connected:
            self._sent_at = now
            commands.send(self._hub.publish_word, self._name, b'')

    def _delivered(self) -> None:
        if self._sent_at is not None:
            PUBLISH_TO_SEND.observe(self._clock() - self._sent_at)
            self._sent_at = None

    def _clock(self) -> float:
        return self._hub.loop.timers.clock()
