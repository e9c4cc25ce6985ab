"""The bounds and intervals of a hub."""

from __future__ import annotations

from dataclasses import dataclass, field

from ws4redis.protocol.connection import Limits

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class HubOptions:
    """Bounds and intervals; ``None`` switches a limit or an interval off."""

    limits: Limits = field(default_factory=Limits)
    max_queue_bytes: int = MEBIBYTE
    max_total_queue_bytes: int = 256 * MEBIBYTE
    max_messages_per_second: float | None = None
    ping_interval_seconds: float | None = 20.0
    ping_timeout_seconds: float = 20.0
    close_timeout_seconds: float = 5.0
    heartbeat: bytes | None = None
    heartbeat_interval_seconds: float = 4.0
    redis_timeout_seconds: float = 30.0
    # For how long messages are kept, unless who publishes says otherwise.
    expire_seconds: int | None = None
