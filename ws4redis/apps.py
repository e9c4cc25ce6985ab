"""The Django application: receivers and system checks are connected when Django is ready."""

from __future__ import annotations

from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in
from django.core import checks
from django.core.signals import setting_changed


class Ws4redisConfig(AppConfig):
    """Connect ws4redis to Django."""

    name = 'ws4redis'
    verbose_name = 'Websockets through Redis'

    def ready(self) -> None:
        """Connect receivers and register system checks."""
        from ws4redis.applications.changed_settings import follow_changed_setting
        from ws4redis.log_filter import escape_what_is_logged
        from ws4redis.publishing.receivers import store_groups_in_session
        from ws4redis.settings.checks import check_settings
        from ws4redis.settings.deployment_checks import check_deployment
        from ws4redis.settings.project_checks import check_project, check_publishing

        escape_what_is_logged()
        user_logged_in.connect(
            store_groups_in_session, dispatch_uid='ws4redis.store_groups_in_session'
        )
        setting_changed.connect(
            follow_changed_setting, dispatch_uid='ws4redis.follow_changed_setting'
        )
        checks.register(check_settings, 'ws4redis')
        checks.register(check_project, 'ws4redis')
        checks.register(check_publishing, 'ws4redis')
        checks.register(check_deployment, 'ws4redis', checks.Tags.security, deploy=True)
