"""What has to be made anew when a test changes a setting."""

from __future__ import annotations

from ws4redis.broker.connections import drop_client


def follow_changed_setting(
    *,
    setting: str,
    **kwargs: object,
) -> None:
    """Let the Redis client and the websocket loop be made anew, when a test changes a setting."""
    if setting == 'WS4REDIS_CONNECTION':
        drop_client()
    if setting.startswith('WS4REDIS_'):
        # The websocket loop needs hiredis: that it is missing is for a system check to say.
        from ws4redis.servers.process import drop_websockets

        drop_websockets()
