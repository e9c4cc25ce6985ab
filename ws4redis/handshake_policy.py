"""Public names: the default of `WS4REDIS_PROCESS_REQUEST`."""

from __future__ import annotations

from ws4redis.handshake.policy import process_request

__all__ = [
    'process_request',
]
