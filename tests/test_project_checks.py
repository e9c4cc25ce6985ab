"""Warnings of what else a project does."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from django.core.management.commands.runserver import Command as Runserver
from django.test import override_settings

from tests.check_messages import allowed_channels, ids
from ws4redis.settings import runserver
from ws4redis.settings.declared import SETTINGS
from ws4redis.settings.project_checks import check_project, check_publishing

NOT_OURS = 'project.wsgi.application'
PROJECTS: list[tuple[str | None, dict[str, Any]]] = [
    (None, {}),
    ('E060', {'WEBSOCKET_URL': '/'}),
    (None, {'WEBSOCKET_URL': '/', 'WSGI_APPLICATION': NOT_OURS}),
    ('W110', {'WSGI_APPLICATION': NOT_OURS, 'DEBUG': True}),
    ('W110', {'WSGI_APPLICATION': None, 'DEBUG': True, 'WS4REDIS_CONNECTION': None}),
    (None, {'WSGI_APPLICATION': NOT_OURS, 'DEBUG': False}),
    ('W112', {'WEBSOCKET_FACTORY_CLASS': 'dwebsocket.backends.default.factory.Factory'}),
]


@pytest.mark.parametrize(('number', 'changed'), PROJECTS)
def test_what_else_keeps_websockets_from_working_is_found(
    number: str | None, changed: dict[str, Any]
) -> None:
    with override_settings(**changed):
        assert ids(check_project()) == ([] if number is None else [f'ws4redis.{number}'])


@pytest.mark.parametrize(
    ('changed', 'is_open'),
    [
        ({'WEBSOCKET_URL': '/ws/'}, True),
        ({'WS4REDIS_ALLOWED_CHANNELS': allowed_channels}, False),
        ({'WS4REDIS_SUBSCRIBER': 'ws4redis.subscriber.RedisSubscriber'}, False),
        ({'WS4REDIS_FACILITIES': {'news': {'PUBLISH': 'staff'}}}, False),
        ({'WS4REDIS_FACILITIES': {'news': {'HISTORY_SIZE': 3}}}, True),
    ],
)
def test_as_long_as_every_client_may_publish_the_check_says_so(
    changed: dict[str, Any], is_open: bool
) -> None:
    with override_settings(**changed):
        assert ids(check_publishing()) == (['ws4redis.I001'] if is_open else [])


def test_a_project_that_has_websockets_in_views_alone_is_not_bothered() -> None:
    unset = {name: None for name in SETTINGS if hasattr(settings, name)}
    with override_settings(DEBUG=True, WSGI_APPLICATION=NOT_OURS, TEMPLATES=[], **unset):
        for name in unset:
            delattr(settings, name)
        assert check_project() == []
        with override_settings(WEBSOCKET_ACCEPT_ALL=True):
            assert check_project() == []


class ServerOfItsOwn(Runserver):
    """Run another server than Django's."""

    def inner_run(self, *args: Any, **options: Any) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ('provider', 'is_foreign'),
    [
        ('django.core', False),
        ('django.contrib.staticfiles', False),
        (Runserver(), False),
        (ServerOfItsOwn(), True),
    ],
)
def test_another_package_s_runserver_in_front_of_django_s_is_found(
    monkeypatch: pytest.MonkeyPatch, provider: object, is_foreign: bool
) -> None:
    monkeypatch.setattr(runserver, 'get_commands', lambda: {'runserver': provider})
    messages = check_project()
    assert ids(messages) == (['ws4redis.W111'] if is_foreign else [])
    assert not is_foreign or __name__ in messages[0].msg
