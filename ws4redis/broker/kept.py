"""How much clients may make Redis keep.

A client chooses the names of facilities, and so of keys: without a bound, one that sends little,
and compressed, could fill Redis for as long as messages are kept.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

logger = logging.getLogger('ws4redis')

# What a key costs Redis, and its entry here, beyond its name and value. So the default bound allows
# for some 100,000 short messages, and their entries take 30 MB.
KEY_OVERHEAD_BYTES = 512
WARN_SECONDS = 60.0
# What an entry of a stream costs beyond its payload.
ENTRY_OVERHEAD_BYTES = 128


class NotKept(Exception):
    """Tell that clients make Redis keep too much for one more message of a history."""


class KeptByClients:
    """Count what clients of this process make Redis keep, up to a bound in bytes; None: no bound.

    A key that is kept already may be replaced as long as that takes no more than the bound: what is
    in use stays in use. Not safe among threads; the loop uses it.
    """

    def __init__(
        self, max_bytes: int | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        # By key: size, and when Redis drops it. The first one is dropped first, as long as all are
        # kept for the same time.
        self._keys: dict[bytes, tuple[int, float]] = {}
        self._streams: dict[bytes, deque[int]] = {}
        self.bytes = 0
        self._warned_at = float('-inf')

    def admits(self, key: bytes, message: bytes, expire: int) -> bool:
        """Tell whether a message may be kept for ``expire`` seconds, and count it if so."""
        if self._max_bytes is None:
            return True
        now = self._clock()
        self._forget_expired(now)
        self._forget(key)
        size = len(key) + len(message) + KEY_OVERHEAD_BYTES
        if self.bytes + size > self._max_bytes:
            self._warn(now)
            return False
        self._keys[key] = (size, now + expire)
        self.bytes += size
        return True

    def admit_entry(self, stream: bytes, message: bytes, entries: int, expire: int) -> None:
        """Count a message that is put into a stream of at most so many entries.

        Raise ``NotKept`` where there is no room: a history with a hole would not tell of it.
        """
        if self._max_bytes is None:
            return
        now = self._clock()
        self._forget_expired(now)
        before, _ = self._keys.get(stream, (0, 0.0))
        sizes = self._streams.get(stream) or deque()
        size = len(message) + ENTRY_OVERHEAD_BYTES
        after = (before or len(stream) + 2 * KEY_OVERHEAD_BYTES) + size
        if len(sizes) >= entries:
            after -= sizes[0]
        if after > before and self.bytes - before + after > self._max_bytes:
            self._warn(now)
            raise NotKept
        if len(sizes) >= entries:
            sizes.popleft()
        self._forget(stream)
        sizes.append(size)
        self._streams[stream] = sizes
        self._keys[stream] = (after, now + expire)
        self.bytes += after

    def _forget_expired(self, now: float) -> None:
        while self._keys:
            key, (_, expires_at) = next(iter(self._keys.items()))
            if expires_at > now:
                return
            self._forget(key)

    def _forget(self, key: bytes) -> None:
        size, _ = self._keys.pop(key, (0, 0.0))
        self._streams.pop(key, None)
        self.bytes -= size

    def _warn(self, now: float) -> None:
        if now - self._warned_at >= WARN_SECONDS:
            self._warned_at = now
            logger.warning(
                'clients make Redis keep WS4REDIS_MAX_KEPT_BYTES (%d): what they send on further '
                'channels is published, and not kept',
                self._max_bytes,
            )
