"""What tests find in Redis, apart from what processes share."""

from __future__ import annotations

import redis

# The control channel, which saving a user writes to, and what processes tell of themselves.
_OF_PROCESSES = (b'ws4redis:control', b'ws4redis:{processes}')


def stored_keys(client: redis.Redis) -> list[bytes]:
    """Return the names of all keys but those that processes share, in their order."""
    keys: list[bytes] = client.keys()  # type: ignore[assignment]
    return sorted(key for key in keys if not any(name in key for name in _OF_PROCESSES))
