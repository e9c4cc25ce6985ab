"""What the test suite needs more than an ordinary server allows."""

from __future__ import annotations

from typing import Final

#: The largest message of Autobahn's cases.
MAX_MESSAGE_BYTES: Final = 16 << 20

#: What may wait for a client: the largest message several times over.
MAX_QUEUE_BYTES: Final = 64 << 20

#: Small messages are compressed too, so that each compression case tests something.
MINIMUM_COMPRESSED_BYTES: Final = 1
