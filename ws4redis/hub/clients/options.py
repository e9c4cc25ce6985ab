"""The bounds of connections of the client protocol."""

from __future__ import annotations

from dataclasses import dataclass, field

from ws4redis.protocol.client.commands import CommandLimits


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Bounds and intervals. ``prefix`` is that of all channels in Redis, with its colon."""

    prefix: str = ''
    limits: CommandLimits = field(default_factory=CommandLimits)
    max_channels: int = 1000
    max_name_bytes: int = 255
    max_commands_per_second: float | None = 1000.0
    max_history_page: int = 500
    connect_timeout_seconds: float = 10.0
    call_timeout_seconds: float = 10.0
    # What a client has left to show another token after the end of its old one.
    expiry_grace_seconds: float = 25.0
    allows_anonymous: bool = True
