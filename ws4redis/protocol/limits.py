"""What a client may cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

#: Default of ``max_message_size``.
DEFAULT_MAX_MESSAGE_BYTES: Final = 1 << 20

UNBOUNDED: Final = 1 << 62

#: A message may have this many fragments in any case, and more if they carry something: on average
#: ``_MIN_MEAN_FRAGMENT_BYTES`` of the largest message.
_MIN_MAX_FRAGMENTS: Final = 1024
_MIN_MEAN_FRAGMENT_BYTES: Final = 16

#: Deflated, a message that cannot be compressed is a little larger than before.
_DEFLATE_OVERHEAD_SHARE: Final = 8
_DEFLATE_OVERHEAD_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bound what one connection may make us hold or do. Shared by all connections.

    ``max_message_size`` is the size of a message's payload in bytes, when inflated;
    ``max_fragments`` the number of frames that a message may consist of (0: derived from the
    size); ``max_queued_pong_bytes`` how much may wait in answer to pings before only the latest is
    answered (RFC 6455, section 5.5.3).

    ``max_frames_at_once`` and ``max_inflated_bytes_at_once`` say when ``receive_data`` leaves the
    rest for another call; by default it takes all.
    """

    max_message_size: int = DEFAULT_MAX_MESSAGE_BYTES
    max_fragments: int = 0
    max_queued_pong_bytes: int = 16384
    max_frames_at_once: int = UNBOUNDED
    max_inflated_bytes_at_once: int = UNBOUNDED
    #: The largest payload that takes the direct path; see ``connection.py``.
    direct_bytes: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.max_message_size < 1:
            raise ValueError(f'max_message_size must be 1 or more, not {self.max_message_size}')
        if self.max_fragments < 1:
            derived = max(_MIN_MAX_FRAGMENTS, self.max_message_size // _MIN_MEAN_FRAGMENT_BYTES)
            object.__setattr__(self, 'max_fragments', derived)
        object.__setattr__(self, 'direct_bytes', min(125, self.max_message_size))

    def max_received_bytes(self, *, compressed: bool) -> int:
        """Return how many bytes of payload a message may have as it is received."""
        size = self.max_message_size
        if compressed:
            size += size // _DEFLATE_OVERHEAD_SHARE + _DEFLATE_OVERHEAD_BYTES
        return size
