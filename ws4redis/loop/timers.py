"""Timers of the loop: a heap of single calls, by the monotonic clock.

Timers that concern every websocket (pings, heartbeats) are not kept here one by one; see
:mod:`ws4redis.hub.keepalive`.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from typing import Any

# Cancelled timers stay in the heap until they are due; past this many it is rebuilt without them.
_TOLERATED_CANCELLATIONS = 512


class Timer:
    """One call that is due at a moment of the monotonic clock."""

    __slots__ = ('args', 'function', 'is_queued')

    def __init__(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.function: Callable[..., object] | None = function
        self.args = args
        self.is_queued = True


class Timers:
    """Keep calls and run those that are due."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def call_later(self, seconds: float, function: Callable[..., object], *args: Any) -> Timer:
        timer = Timer(function, args)
        heapq.heappush(self._heap, (self.clock() + seconds, next(self._order), timer))
        return timer

    def cancel(self, timer: Timer) -> None:
        """Forget a timer; one that has run or is cancelled already is left alone."""
        if timer.function is None:
            return
        timer.function = None
        timer.args = ()
        if not timer.is_queued:
            # Taken out as due; an earlier one of that turn cancels it.
            return
        self._cancelled += 1
        if self._cancelled > max(_TOLERATED_CANCELLATIONS, len(self._heap) // 2):
            self._heap = [entry for entry in self._heap if entry[2].function is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next_deadline(self) -> float | None:
        """Return the moment at which the next timer is due, ``None`` without timers."""
        while self._heap and self._heap[0][2].function is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else None

    def due(self) -> list[Timer]:
        """Take out the timers that are due, in their order."""
        now = self.clock()
        due: list[Timer] = []
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            if timer.function is None:
                self._cancelled -= 1
            else:
                timer.is_queued = False
                due.append(timer)
        return due
