"""The Django application: receivers and system checks are connected when Django is ready."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.db.models import signals
from django.dispatch import Signal


class Ws4redisConfig(AppConfig):
    """Connect ws4redis to Django."""

    name = 'ws4redis'
    verbose_name = 'Websockets through Redis'

    def ready(self) -> None:
        """Connect receivers and register system checks."""
        from ws4redis.applications.changed_settings import follow_changed_setting
        from ws4redis.dashboard.permissions import create_permissions
        from ws4redis.log_filter import escape_what_is_logged
        from ws4redis.publishing.receivers import store_groups_in_session
        from ws4redis.settings.checks import check_settings
        from ws4redis.settings.deployment_checks import check_deployment
        from ws4redis.settings.project_checks import check_project, check_publishing

        escape_what_is_logged()
        signals.post_migrate.connect(create_permissions, dispatch_uid='ws4redis.create_permissions')
        user_logged_in.connect(
            store_groups_in_session, dispatch_uid='ws4redis.store_groups_in_session'
        )
        setting_changed.connect(
            follow_changed_setting, dispatch_uid='ws4redis.follow_changed_setting'
        )
        self._let_grants_end()
        checks.register(check_settings, 'ws4redis')
        checks.register(check_project, 'ws4redis')
        checks.register(check_publishing, 'ws4redis')
        checks.register(check_deployment, 'ws4redis', checks.Tags.security, deploy=True)

    def _let_grants_end(self) -> None:
        """Tell the processes that hold connections when users, groups and sessions change."""
        from ws4redis.publishing import endings

        connections: list[tuple[str, Signal, Any]] = [
            ('user_logged_out', user_logged_out, None),
        ]
        try:
            user_model: Any = get_user_model()
        except ImproperlyConfigured:
            # A project without users: its AUTH_USER_MODEL is not installed.
            user_model = None
        else:
            connections += [
                ('user_saved', signals.post_save, user_model),
                # Before, since what is known of a deleted user may come from rows that are gone.
                ('user_deleted', signals.pre_delete, user_model),
            ]
        groups: Any = getattr(user_model, 'groups', None)
        through = getattr(groups, 'through', None)
        if through is not None:
            group_model = groups.rel.model
            connections += [
                ('groups_changed', signals.m2m_changed, through),
                ('group_ends', signals.pre_delete, group_model),
                ('group_saved', signals.post_save, group_model),
            ]
        for name, signal, sender in connections:
            signal.connect(getattr(endings, name), sender=sender, dispatch_uid=f'ws4redis.{name}')
        endings.tell_of_ended_sessions()
