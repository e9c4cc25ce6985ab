"""Keep Python's garbage collector from running while very many channels are subscribed at once.

What each of ten thousand channels takes for a moment makes the collector look through all objects
of the process, several times, and for a tenth of a second each: longer than all else that the loop
does in a turn, and more than all of it together. No cycles come up meanwhile that had to be
collected.
"""

from __future__ import annotations

import gc

# Fewer channels are subscribed before the collector would take notice.
MANY_CHANNELS = 1000
# Clients that come and go without end must not keep the collector from running for good.
LONGEST_RUSH_SECONDS = 60.0


class CollectorPause:
    """Pause the collector, if it runs at all, until nobody has a reason any more."""

    def __init__(self) -> None:
        self._reasons: set[object] = set()

    def begin(self, reason: object) -> None:
        if self._reasons or gc.isenabled():
            self._reasons.add(reason)
            gc.disable()

    def end(self, reason: object) -> None:
        if reason in self._reasons:
            self._reasons.remove(reason)
            if not self._reasons:
                gc.enable()

    def end_all(self) -> None:
        for reason in list(self._reasons):
            self.end(reason)
