"""What everybody wants to show: progress, live HTML, notifications and live models."""

from ws4redis.live.fragments import Fragments
from ws4redis.live.models import live_id, live_model, publish_deleted, publish_saved
from ws4redis.live.notifications import mark_read, notify, unread_count, unread_notifications
from ws4redis.live.progress import Progress

__all__ = [
    'Fragments',
    'Progress',
    'live_id',
    'live_model',
    'mark_read',
    'notify',
    'publish_deleted',
    'publish_saved',
    'unread_count',
    'unread_notifications',
]
