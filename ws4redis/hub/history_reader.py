"""Read histories over the connections of the bus, one at a time for each channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ws4redis.broker.history import Position, Reading, parse_reading, read_command
from ws4redis.broker.link import error_code
from ws4redis.broker.scripts import script_of

if TYPE_CHECKING:
    from ws4redis.hub.bus import Bus
    from ws4redis.hub.bus_link import BusLink
    from ws4redis.hub.history_channel import HistoryChannel
    from ws4redis.hub.statistics import Statistics

Replied = Callable[[Reading], object]
Failed = Callable[['HistoryChannel', Exception], object]


class HistoryReader:
    """Write reads, and hand on what they bring.

    ``failed`` is called with the channel and the error where Redis does not let it be read.
    """

    def __init__(self, bus: Bus, *, statistics: Statistics, max_bytes: int, failed: Failed) -> None:
        self._bus = bus
        self._statistics = statistics
        self._max_bytes = max_bytes
        self._failed = failed
        # Where Redis has the script for sure, unless somebody flushes its scripts.
        self._with_script: set[BusLink] = set()

    def disconnected(self, link: BusLink) -> None:
        """Take note that the next connection may lead to another Redis."""
        self._with_script.discard(link)

    def read(
        self,
        channel: HistoryChannel,
        since: Position | None,
        replied: Replied,
        *,
        has_seen: bool = False,
    ) -> None:
        """Read where a channel is, and what came after a position."""
        command = read_command(channel.keys, since, has_seen=has_seen, max_bytes=self._max_bytes)
        text = script_of(command).with_text(command)
        self._statistics.history_reads += 1

        def take(reply: Any) -> None:
            replied(parse_reading(reply))

        def refused(error: Exception) -> None:
            if error_code(error) == 'NOSCRIPT':
                self._bus.send(channel, *text, replied=take, refused=failed)
            else:
                failed(error)

        def failed(error: Exception) -> None:
            self._failed(channel, error)

        # With its text once, so that the thousands that may follow need not be repeated.
        link = channel.link
        assert link is not None
        words = command if link in self._with_script else text
        self._with_script.add(link)
        self._bus.send(channel, *words, replied=take, refused=refused)
