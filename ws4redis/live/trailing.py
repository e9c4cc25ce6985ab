"""Tell what was held back by the bound on messages per second, once that lets it.

One thread for all tasks of a process, started when it is needed and ended when it has been idle:
a thousand tasks need no thousand timers. A fork leaves the thread behind; the child makes its own.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
from typing import Protocol

logger = logging.getLogger('ws4redis')

IDLE_SECONDS = 10.0


class Telling(Protocol):
    """What has something to tell later."""

    def tell_trailing(self) -> None: ...


class Trailing:
    """Call ``tell_trailing()`` of those that were added, when it is time."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._wake = threading.Condition()
        self._order = itertools.count()
        self._queue: list[tuple[float, int, Telling]] = []
        self._waiting: set[Telling] = set()
        self._thread: threading.Thread | None = None

    def add(self, telling: Telling, due: float) -> None:
        """Call at a monotonic time; nothing happens if it waits already."""
        if self._pid != os.getpid():
            self._reset()
        if telling in self._waiting:
            return
        with self._wake:
            self._waiting.add(telling)
            heapq.heappush(self._queue, (due, next(self._order), telling))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name='ws4redis-progress', daemon=True
                )
                self._thread.start()
            elif self._queue[0][2] is telling:
                self._wake.notify()

    def discard(self, telling: Telling) -> None:
        """Forget one that has told all."""
        self._waiting.discard(telling)

    def _run(self) -> None:
        while (telling := self._next()) is not None:
            try:
                telling.tell_trailing()
            except Exception:
                # The thread serves others too.
                logger.exception('telling the progress of a task failed')
            del telling

    def _next(self) -> Telling | None:
        """Wait for the next that is due; None when there was none for long."""
        with self._wake:
            idle_until = time.monotonic() + IDLE_SECONDS
            while True:
                now = time.monotonic()
                if self._queue:
                    due, _, telling = self._queue[0]
                    if due <= now:
                        heapq.heappop(self._queue)
                        if telling in self._waiting:
                            self._waiting.discard(telling)
                            return telling
                    else:
                        self._wake.wait(due - now)
                elif now >= idle_until:
                    self._thread = None
                    return None
                else:
                    self._wake.wait(idle_until - now)


trailing = Trailing()
