"""System checks of the settings: each by itself, and what they have to do with each other.

``manage.py check`` runs :func:`check_settings`; the websocket loop raises its first error when it
starts. Ids are stable: a project may silence one by ``SILENCED_SYSTEM_CHECKS``. They are described
in ``docs/reference/checks.md``.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's name
from django.core.exceptions import ImproperlyConfigured

from ws4redis.settings.declared import SETTINGS, conf


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Return what is wrong with the settings of ws4redis, errors first."""
    errors = [message for setting in SETTINGS.values() for message in setting.check()]
    errors += check_hiredis()
    # A comparison of settings makes sense once each is right by itself.
    return errors + check_unknown_settings() + ([] if errors else check_sizes())


def validate_settings() -> None:
    """Raise ``ImproperlyConfigured`` with the first error that the system checks find.

    The websocket loop calls this when it starts, since no one may have run the checks.
    """
    for error in check_settings():
        if error.is_serious():
            raise ImproperlyConfigured(f'{error.msg} {error.hint} ({error.id})')


def check_hiredis() -> list[CheckMessage]:
    if importlib.util.find_spec('hiredis') is not None:
        return []
    return [
        Error(
            'hiredis is not installed: the websocket loop of ws4redis reads Redis with it.',
            hint='Run `pip install hiredis`.',
            id='ws4redis.E030',
        )
    ]


def check_unknown_settings() -> list[CheckMessage]:
    """Warn of settings that look like ours and are not: a misspelt one has no effect."""
    return [
        Warning(
            f'{name} is no setting of ws4redis.',
            hint='Is it misspelt? See the reference of settings.',
            id='ws4redis.W101',
        )
        for name in sorted(dir(settings))
        if name.startswith('WS4REDIS_') and name not in SETTINGS
    ]


def check_sizes() -> list[CheckMessage]:
    messages: list[CheckMessage] = []
    if conf.WS4REDIS_MAX_QUEUE_BYTES < conf.WS4REDIS_MAX_MESSAGE_SIZE:
        messages.append(
            Warning(
                'WS4REDIS_MAX_QUEUE_BYTES is smaller than WS4REDIS_MAX_MESSAGE_SIZE: a message '
                'that one client may send can close another.',
                hint='Let more bytes wait for a websocket than a message may have.',
                id='ws4redis.W102',
            )
        )
    if conf.WS4REDIS_MAX_TOTAL_QUEUE_BYTES < conf.WS4REDIS_MAX_QUEUE_BYTES:
        messages.append(
            Warning(
                'WS4REDIS_MAX_TOTAL_QUEUE_BYTES is smaller than WS4REDIS_MAX_QUEUE_BYTES: one slow '
                'client is closed before its own bound is reached.',
                hint='Let more wait for all websockets together than for one.',
                id='ws4redis.W104',
            )
        )
    return messages
