"""The two permissions of the live page, which has no model that Django would make them for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.apps import AppConfig

if TYPE_CHECKING:
    from django.contrib.contenttypes.models import ContentType

PERMISSIONS: Final = {
    'view_live': 'Can view the live page of websockets',
    'change_live': 'Can send messages and end connections from the live page',
}


def content_type(using: str | None = None) -> ContentType:
    """Return what the permissions, and entries of admin's log, belong to."""
    from django.contrib.contenttypes.models import ContentType

    found, _ = ContentType.objects.db_manager(using).get_or_create(
        app_label='ws4redis', model='live'
    )
    return found


def create_permissions(sender: AppConfig, using: str, **kwargs: Any) -> None:
    """Make the permissions after each `migrate`, as Django does for models.

    No signal is sent for an application without models, so this waits for that of the permissions.
    """
    if sender.label != 'auth':
        return
    from django.contrib.auth.models import Permission
    from django.contrib.contenttypes.models import ContentType
    from django.db import connections, router

    tables = set(connections[using].introspection.table_names())
    for model in (Permission, ContentType):
        if not router.allow_migrate_model(using, model) or model._meta.db_table not in tables:
            return
    owner = content_type(using)
    for codename, name in PERMISSIONS.items():
        Permission.objects.using(using).get_or_create(
            codename=codename, content_type=owner, defaults={'name': name}
        )
