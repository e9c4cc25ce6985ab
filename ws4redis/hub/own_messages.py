"""What a websocket without ``echo`` has sent itself, so that it is not sent it back.

Two things are remembered: the content of the last message, which is not sent back whoever sends
it, as in earlier versions; and what is still under way through Redis, so that several messages sent
in a row are all recognised when they return.
"""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b

# Longer messages are remembered by their digest.
_VERBATIM_BYTES = 64
# A message may never come back: a subscriber's `publish_message` changed it, or Redis refused it.
# So the longest awaited are forgotten when this many are under way.
_MAX_UNDER_WAY = 1024


def fingerprint(payload: bytes) -> bytes:
    """Return something short that is equal for equal payloads, and for no others."""
    if len(payload) <= _VERBATIM_BYTES:
        return payload
    return blake2b(payload, digest_size=_VERBATIM_BYTES, person=b'ws4redis').digest() + b'\0'


class OwnMessages:
    """Recognise a websocket's own messages."""

    __slots__ = ('_last', '_under_way')

    def __init__(self) -> None:
        self._last: bytes | None = None
        self._under_way: Counter[bytes] = Counter()

    def sent(self, payload: bytes, *, copies: int) -> None:
        """Remember a message that will come back ``copies`` times."""
        self._last = fingerprint(payload)
        if copies:
            self._under_way[self._last] += copies
            if len(self._under_way) > _MAX_UNDER_WAY:
                del self._under_way[next(iter(self._under_way))]

    def recognises(self, payload: bytes) -> bool:
        """Tell whether a message is not to be sent back; called once for each that arrives."""
        mark = fingerprint(payload)
        if mark in self._under_way:
            self._under_way[mark] -= 1
            if not self._under_way[mark]:
                del self._under_way[mark]
            return True
        return mark == self._last

    def forget_under_way(self) -> None:
        """Expect nothing back any more: the connection on which it would come was lost."""
        self._under_way.clear()
