"""From a path to a handler."""

from __future__ import annotations

from typing import Any, cast

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory, override_settings

from tests.handlers.sample_handlers import Echo, Log, OldStyle
from ws4redis.handlers.routes import UnknownNamespace, routes_from_settings
from ws4redis.handlers.server import HandlerServer
from ws4redis.handlers.session import HandlerSession, takes_close_code

ECHO = 'tests.handlers.sample_handlers.Echo'
LOG = 'tests.handlers.sample_handlers.Log'


class NoHandler:
    """Has the methods, but not the base class that has send()."""

    def on_open(self, message: str) -> None: ...
    def on_message(self, message: str) -> None: ...
    def on_close(self) -> None: ...


def test_the_default_handler_is_at_the_default_url() -> None:
    with override_settings(DEFAULT_WS_HANDLERS={'default': ECHO}):
        match = routes_from_settings().match('/socket')
    assert match is not None
    assert match.handler_class is Echo
    assert match.kwargs == {}


@pytest.mark.parametrize('path', ['/socketx', '/sock', '/a/socket', '/', '/socket/more'])
def test_a_path_has_to_match_as_a_whole(path: str) -> None:
    with override_settings(DEFAULT_WS_HANDLERS={'default': ECHO}):
        assert routes_from_settings().match(path) is None


def test_a_slash_at_the_end_of_a_path_makes_no_difference() -> None:
    with override_settings(DEFAULT_WS_HANDLERS={'default': ECHO}):
        assert routes_from_settings().match('/socket/') is not None


def test_a_named_group_chooses_the_namespace() -> None:
    with override_settings(DEFAULT_WS_HANDLERS={'default': ECHO, 'log': LOG}):
        routes = routes_from_settings(r'^/socket(/(?P<namespace>\w+))?$')
    log, default = routes.match('/socket/log'), routes.match('/socket')
    assert log is not None
    assert log.handler_class is Log
    assert log.kwargs == {'namespace': 'log'}
    assert default is not None
    assert default.handler_class is Echo


def test_an_empty_namespace_is_the_default() -> None:
    with override_settings(DEFAULT_WS_HANDLERS={'default': ECHO, 'log': LOG}):
        routes = routes_from_settings(r'/socket/(?P<namespace>\w*)')
    match = routes.match('/socket/')
    assert match is not None
    assert match.handler_class is Echo
    request = RequestFactory().get('/socket/')
    session = HandlerSession(match.handler_class, request, match.kwargs, cast('Any', None))
    assert session.handler.namespace == 'default'


@pytest.mark.parametrize('setting', ['WS4REDIS_HANDLERS', 'DEFAULT_WS_HANDLERS'])
def test_a_test_that_changes_a_setting_gets_other_handlers(setting: str) -> None:
    server = HandlerServer()
    key = 'default' if setting.startswith('DEFAULT') else '/socket'
    for handler_class, path in ((Echo, ECHO), (Log, LOG)):
        with override_settings(**{setting: {key: path}}):
            match = server.routes.match('/socket')
            assert match is not None
            assert match.handler_class is handler_class
            assert server.routes is server.routes
    assert not server.serves('/socket')


def test_an_unknown_namespace_is_told_from_a_path_that_is_not_ours() -> None:
    with override_settings(DEFAULT_WS_HANDLERS={'default': ECHO}):
        routes = routes_from_settings(r'/socket/(?P<namespace>\w+)')
    with pytest.raises(UnknownNamespace):
        routes.match('/socket/nowhere')
    assert routes.serves('/socket/nowhere')
    assert not routes.serves('/other')


def test_handlers_by_url_come_before_those_by_namespace() -> None:
    handlers = {r'/rooms/(?P<room>\d+)': LOG, r'/n/(?P<namespace>\w+)': {'default': ECHO}}
    with override_settings(WS4REDIS_HANDLERS=handlers, DEFAULT_WS_HANDLERS={'default': ECHO}):
        routes = routes_from_settings()
    room = routes.match('/rooms/7')
    assert room is not None
    assert room.handler_class is Log
    assert room.kwargs == {'room': '7'}
    assert routes.match('/n/default') is not None
    assert routes.match('/socket') is not None


@pytest.mark.parametrize(
    ('handlers', 'words'),
    [
        ({'other': ECHO}, ["DEFAULT_WS_HANDLERS has no 'default'"]),
        ({'default': 'no.such.module.Handler'}, ["DEFAULT_WS_HANDLERS['default']", 'no.such']),
        ({'default': 'tests.handlers.test_routes.NoHandler'}, ['WebSocketHandler', 'default']),
        ({'default': 'os.path.join'}, ['DEFAULT_WS_HANDLERS', 'WebSocketHandler']),
    ],
)
def test_what_leads_to_no_handler_is_an_error_that_names_the_setting(
    handlers: dict[str, str], words: list[str]
) -> None:
    with override_settings(DEFAULT_WS_HANDLERS=handlers), pytest.raises(ImproperlyConfigured) as e:
        routes_from_settings()
    for word in words:
        assert word in str(e.value)


def test_an_on_close_of_the_old_style_is_recognised() -> None:
    assert takes_close_code(Echo)
    assert takes_close_code(Log)
    assert not takes_close_code(OldStyle)
