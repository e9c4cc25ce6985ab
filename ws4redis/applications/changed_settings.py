"""What has to be made anew when a test changes a setting."""

from __future__ import annotations

from ws4redis.broker.connections import drop_client
from ws4redis.handshake.strangers import strangers


def follow_changed_setting(
    *,
    setting: str,
    **kwargs: object,
) -> None:
    """Let what was made from a setting be made anew, when a test changes the setting."""
    strangers.forget()
    if setting == 'WS4REDIS_CONNECTION':
        drop_client()
    if setting in ('WS4REDIS_HANDLERS', 'DEFAULT_WS_HANDLERS'):
        from ws4redis.handlers.routes import routes_from_settings

        routes_from_settings.cache_clear()
    if setting.startswith('WS4REDIS_'):
        # The websocket loop needs hiredis; a system check reports that it is missing.
        from ws4redis.servers.process import drop_hub

        drop_hub()
