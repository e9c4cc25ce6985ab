"""What came live of late, so that an older kept message is not delivered behind a newer one.

After a reconnection the kept message of a channel may be one that was published meanwhile, or one
that came live long ago, before messages that were not kept. Its content alone does not tell: a
state that goes from "on" to "off", and back to "on" while the connection is lost, has to be
delivered. But Redis tells for how long a key will still live, and so when it was set.
"""

from __future__ import annotations

# About 10 MB. Of what came before, a kept message is delivered once too often rather than never.
MAX_REMEMBERED = 65536
# Between Redis setting a key and the loop reading the message that came with it.
TOLERANCE_SECONDS = 0.1


class RecentMessages:
    """Remember when messages came, and tell whether a kept message is one of them."""

    def __init__(self, expire_seconds: int) -> None:
        self._expire_seconds = expire_seconds
        self._came_at: dict[int, float] = {}

    def came(self, channel: bytes, payload: bytes, at: float) -> None:
        """Note a message that came live at a time of the loop's clock."""
        came_at = self._came_at
        key = hash((channel, payload))
        came_at.pop(key, None)
        came_at[key] = at
        if len(came_at) > MAX_REMEMBERED:
            del came_at[next(iter(came_at))]

    def includes(
        self, channel: bytes, kept: bytes, *, remaining_ms: int | None, now: float
    ) -> bool:
        """Tell whether a kept message came live when it was set.

        ``remaining_ms`` is what ``PTTL`` says of its key, ``None`` if Redis does not tell. For a
        message that was kept for another time than the usual one, this says no.
        """
        came_at = self._came_at.get(hash((channel, kept)))
        if came_at is None or remaining_ms is None:
            return False
        set_at = now + remaining_ms / 1000 - self._expire_seconds
        return abs(set_at - came_at) < TOLERANCE_SECONDS
