"""System checks of what else in a project silently keeps websockets from working."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Warning  # noqa: A004 - Django's name

from ws4redis.settings.declared import SETTINGS
from ws4redis.settings.runserver import foreign_runserver

RUNSERVER_APPLICATION = 'ws4redis.django_runserver.application'
CONTEXT_PROCESSOR = 'ws4redis.context_processors.default'
# Views have their websockets under any application.
OF_VIEWS = {'WEBSOCKET_ACCEPT_ALL'}


def check_project(**kwargs: Any) -> list[CheckMessage]:
    """Return what is wrong beside the settings of ws4redis."""
    return [*check_runserver(), *check_prefix(), *check_settings_of_others()]


def check_runserver() -> list[CheckMessage]:
    """Warn when ``manage.py runserver`` serves no websockets though it ought to."""
    if settings.WSGI_APPLICATION != RUNSERVER_APPLICATION:
        if not (settings.DEBUG and uses_the_loop()):
            return []
        return [
            Warning(
                f'WSGI_APPLICATION is {settings.WSGI_APPLICATION!r}: manage.py runserver serves no '
                'websockets, except in views.',
                hint=f'Set WSGI_APPLICATION = {RUNSERVER_APPLICATION!r}, which production does not '
                'look at; or silence this if you do not use runserver.',
                id='ws4redis.W110',
            )
        ]
    foreign = foreign_runserver()
    if foreign is None:
        return []
    return [
        Warning(
            f'manage.py runserver is that of {foreign}, which does not look at WSGI_APPLICATION: '
            'it serves no websockets of ws4redis.',
            hint='Put django.contrib.staticfiles before that application in INSTALLED_APPS, or '
            'take it out.',
            id='ws4redis.W111',
        )
    ]


def uses_the_loop() -> bool:
    """Tell whether a project has set up anything that needs the websocket loop."""
    if any(hasattr(settings, name) for name in SETTINGS if name not in OF_VIEWS):
        return True
    engines: list[dict[str, Any]] = list(settings.TEMPLATES)
    return any(
        CONTEXT_PROCESSOR in engine.get('OPTIONS', {}).get('context_processors', ())
        for engine in engines
    )


def check_publishing(**kwargs: Any) -> list[CheckMessage]:
    """Say that every client may publish, as long as nothing restricts that."""
    publishing = ('WS4REDIS_ALLOWED_CHANNELS', 'WS4REDIS_SUBSCRIBER')
    facilities = getattr(settings, 'WS4REDIS_FACILITIES', None) or {}
    if (
        not uses_the_loop()
        or any(getattr(settings, name, None) is not None for name in publishing)
        or any('PUBLISH' in options for options in facilities.values())
    ):
        return []
    return [
        Info(
            'Every client may publish on every channel, and what it publishes is kept for those '
            'who come later: nothing restricts that.',
            hint='Say who may by PUBLISH in WS4REDIS_FACILITIES, such as '
            "{'*': {'PUBLISH': 'nobody'}}, or by a callable in WS4REDIS_ALLOWED_CHANNELS; or "
            'silence this if it is what you want.',
            id='ws4redis.I001',
        )
    ]


def check_prefix() -> list[CheckMessage]:
    prefix = getattr(settings, 'WEBSOCKET_URL', None)
    if prefix != '/' or settings.WSGI_APPLICATION != RUNSERVER_APPLICATION:
        return []
    return [
        Error(
            "WEBSOCKET_URL is '/': every path is that of a websocket, and none is left for the "
            'views of WSGI_APPLICATION.',
            hint="Give websockets a prefix, such as '/ws/'.",
            id='ws4redis.E060',
        )
    ]


def check_settings_of_others() -> list[CheckMessage]:
    if not hasattr(settings, 'WEBSOCKET_FACTORY_CLASS'):
        return []
    return [
        Warning(
            'WEBSOCKET_FACTORY_CLASS has no effect: ws4redis finds by itself which server runs.',
            hint='Remove this setting of dwebsocket.',
            id='ws4redis.W112',
        )
    ]
