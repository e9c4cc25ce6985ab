"""How late the loop is: a timer that fires four times a second tells by how much it was held up.

It costs nothing where nothing happens, and sees whatever holds the loop up, the garbage collector
and other processes included.
"""

from __future__ import annotations

from collections import deque

from ws4redis.loop.loop import Loop
from ws4redis.loop.metrics import histogram

TICK_SECONDS = 0.25
#: The last minute.
TICKS = 240

LAG = histogram(
    'loop_lag_seconds',
    'How late the loop came to a timer, four times a second',
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)


class LagMeter:
    """Measure the lag of a loop for as long as it runs."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._due = 0.0
        self._recent: deque[float] = deque(maxlen=TICKS)

    def start(self) -> None:
        """Begin; called in the loop."""
        self._due = self._loop.timers.clock() + TICK_SECONDS
        self._loop.call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        lag = max(0.0, self._loop.timers.clock() - self._due)
        self._recent.append(lag)
        LAG.observe(lag)
        self.start()

    def percentile(self, percent: float) -> float:
        """Return the lag, in seconds, that so many percent of the last minute's did not exceed."""
        recent = sorted(self._recent)
        if not recent:
            return 0.0
        return recent[min(len(recent) - 1, int(len(recent) * percent / 100))]
