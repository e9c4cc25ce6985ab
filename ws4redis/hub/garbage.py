"""Keep Python's garbage collector from running while all channels are subscribed again.

What each of ten thousand channels takes for a moment makes the collector look through all objects
of the process, several times, and for a tenth of a second each: longer than all else that the loop
does in a turn. No cycles come up meanwhile that had to be collected.
"""

from __future__ import annotations

import gc

# Fewer channels are subscribed before the collector would take notice.
MANY_CHANNELS = 1000


class CollectorPause:
    """Pause the collector, if it runs at all, and let it go on."""

    def __init__(self) -> None:
        self._is_paused = False

    def begin(self, channels: int) -> None:
        if channels >= MANY_CHANNELS and gc.isenabled():
            self._is_paused = True
            gc.disable()

    def end(self) -> None:
        if self._is_paused:
            self._is_paused = False
            gc.enable()
