"""Note in admin's log what somebody did on the live page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import apps

from ws4redis.dashboard.permissions import content_type

if TYPE_CHECKING:
    from django.http import HttpRequest


def log_action(request: HttpRequest, name: str, message: str) -> None:
    """Note an action on something with a name; without admin there is no log."""
    if not apps.is_installed('django.contrib.admin'):
        return
    from django.contrib.admin.models import CHANGE, LogEntry

    # PostgreSQL takes no NUL; what was done must be noted nevertheless.
    name, message = (text.replace('\0', '\ufffd') for text in (name[:200], message))
    LogEntry.objects.create(
        user_id=request.user.pk,
        content_type=content_type(),
        object_id=name,
        object_repr=name,
        action_flag=CHANGE,
        change_message=message,
    )
