"""Channels with a history on which nothing was ever published, as far as Redis can tell.

Redis forgets their numbering soon, lest strangers fill it by joining channels of any name. So
whoever holds one reads it now and then, which renews it: the first publication follows what all
have been told, however late it comes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from ws4redis.broker.history import EMPTY_SECONDS
from ws4redis.hub.history_channel import HistoryChannel, State

if TYPE_CHECKING:
    from ws4redis.loop.loop import Loop
    from ws4redis.loop.timers import Timer

# So that one read may fail, and the next is still in time.
RENEW_SECONDS = EMPTY_SECONDS / 3
# So many are read at once, then others have their turn.
STEP_CHANNELS = 100
STEP_SECONDS = 0.02


class EmptyChannels:
    """Call ``read`` with each empty channel that is held, again and again."""

    def __init__(self, loop: Loop, read: Callable[[HistoryChannel], object]) -> None:
        self._loop = loop
        self._read = read
        # When each is to be read, in that order.
        self._due: OrderedDict[HistoryChannel, float] = OrderedDict()
        self._timer: Timer | None = None

    def note(self, channel: HistoryChannel) -> None:
        """Note that a channel was read just now, and found empty or not."""
        self._due.pop(channel, None)
        if channel.is_empty:
            self._due[channel] = self._loop.timers.clock() + RENEW_SECONDS
            if self._timer is None:
                self._timer = self._loop.call_later(RENEW_SECONDS, self._renew)

    def forget(self, channel: HistoryChannel) -> None:
        self._due.pop(channel, None)

    def _renew(self) -> None:
        self._timer = None
        now = self._loop.timers.clock()
        for _ in range(STEP_CHANNELS):
            if not self._due:
                return
            channel, due = self._due.popitem(last=False)
            if due > now:
                self._due[channel] = due
                self._due.move_to_end(channel, last=False)
                break
            # Any other is read when it is live again; one that lingers may be wanted again.
            if channel.state is State.LIVE and channel.is_empty:
                self._read(channel)
        if self._due and self._timer is None:
            first = next(iter(self._due.values()))
            self._timer = self._loop.call_later(max(first - now, STEP_SECONDS), self._renew)
