"""The example's settings, with pings that come often: the tests' proxies are impatient."""

from __future__ import annotations

from chatserver.settings import *  # noqa: F403

# A websocket without any message is to be kept open by pings alone.
WS4REDIS_HEARTBEAT = None
WS4REDIS_PING_INTERVAL = 1
WS4REDIS_PING_TIMEOUT = 5
WS4REDIS_DRAIN_SECONDS = 0.2
