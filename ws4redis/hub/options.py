"""The bounds and intervals of a loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ws4redis.protocol.limits import DEFAULT_MAX_MESSAGE_BYTES, Limits
from ws4redis.settings.facilities import DEFAULT_OPTIONS, FacilityOptions

MEBIBYTE = 1024 * 1024
# About half a millisecond of work; see intake.py.
MAX_FRAMES_AT_ONCE = 16
MAX_INFLATED_BYTES_AT_ONCE = 256 * 1024


def limits_of_websockets(
    max_message_size: int = DEFAULT_MAX_MESSAGE_BYTES,
    *,
    max_messages_per_second: float | None = None,
) -> Limits:
    """Return the protocol's limits for websockets that share a loop."""
    frames = MAX_FRAMES_AT_ONCE
    if max_messages_per_second is not None:
        # Rates are looked at between two slices.
        frames = max(1, min(frames, int(max_messages_per_second)))
    return Limits(
        max_message_size,
        max_frames_at_once=frames,
        max_inflated_bytes_at_once=MAX_INFLATED_BYTES_AT_ONCE,
    )


@dataclass(frozen=True)
class HubOptions:
    """Bounds and intervals; ``None`` switches a limit or an interval off."""

    limits: Limits = field(default_factory=limits_of_websockets)
    max_queue_bytes: int = MEBIBYTE
    max_total_queue_bytes: int = 256 * MEBIBYTE
    max_messages_per_second: float | None = None
    max_bytes_per_second: float | None = None
    max_pings_per_second: float | None = None
    ping_interval_seconds: float | None = 20.0
    ping_timeout_seconds: float = 20.0
    close_timeout_seconds: float = 5.0
    heartbeat: bytes | None = None
    heartbeat_interval_seconds: float = 4.0
    redis_timeout_seconds: float = 30.0
    # For how long messages are kept, unless who publishes says otherwise.
    expire_seconds: int | None = None
    # With its colon.
    key_prefix: str = ''
    # What a channel's facility has.
    facility_of_channel: Callable[[str], FacilityOptions] = lambda name: DEFAULT_OPTIONS
    # How much memory the last publications of all channels take that have a history.
    max_tail_bytes: int = 64 * MEBIBYTE
    # How often each identity is looked up, whether or not there was a signal.
    revalidate_seconds: float | None = 300.0
