"""Who waits for the project's code when all come back at once: a queue with a bound.

The pool works in the order in which handshakes came. Who would wait in vain, until the time of the
handshake is over, is better told at once when to come again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from ws4redis.conf import conf
from ws4redis.exceptions import HandshakeError
from ws4redis.loop.native import original

# Over how long it is measured how fast handshakes are admitted.
WINDOW_SECONDS = 1.0
# So few never wait for long, whatever was measured.
FEW = 100
LONGEST_RETRY_SECONDS = 60


class Admissions:
    """Count the handshakes that wait for admission, and how fast they get it. Thread safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = original('_thread', 'allocate_lock')()
        self.waiting = 0
        self._rate = 0.0
        self._done = 0
        self._since = clock()

    def enter(self, seconds: float) -> None:
        """Let one more wait, who has so many seconds.

        Raise ``HandshakeError`` 503 if there are too many, or the time would not suffice.
        """
        with self._lock:
            wait = self._expected_seconds()
            if self.waiting >= conf.WS4REDIS_MAX_WAITING_HANDSHAKES or (
                self.waiting > FEW and wait > seconds
            ):
                retry = min(LONGEST_RETRY_SECONDS, max(1, math.ceil(wait)))
                raise HandshakeError(
                    503, 'Too many clients come at once.', {'Retry-After': str(retry)}
                )
            if not self.waiting:
                # What was measured before says nothing of now.
                self._since, self._done, self._rate = self._clock(), 0, 0.0
            self.waiting += 1

    def leave(self) -> None:
        """Note that one waits no more, whatever came of it."""
        with self._lock:
            self.waiting -= 1
            self._done += 1
            elapsed = self._clock() - self._since
            if elapsed >= WINDOW_SECONDS:
                self._rate = self._done / elapsed
                self._since += elapsed
                self._done = 0

    def _expected_seconds(self) -> float:
        return self.waiting / self._rate if self._rate else 0.0


admissions = Admissions()
"""Those of this process."""
