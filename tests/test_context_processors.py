from __future__ import annotations

import json

import pytest
from django.template import engines
from django.test import RequestFactory, override_settings
from django.urls import clear_script_prefix, set_script_prefix

from ws4redis.context_processors import default

HEARTBEATS = [None, '--heartbeat--', '</script><b>', 'a"b\\c\n', "it's & <!--", 'größe\u2028']


def render(source: str, *, secure: bool = False, host: str = 'testserver') -> str:
    request = RequestFactory().get('/', secure=secure, headers={'host': host})
    return engines['django'].from_string(source).render({}, request)


def test_the_uri_is_made_of_the_host_and_the_prefix() -> None:
    assert render('{{ WEBSOCKET_URI }}', host='localhost:8000') == 'ws://localhost:8000/ws/'


def test_a_secure_page_gets_a_secure_uri() -> None:
    assert render('{{ WEBSOCKET_URI }}', secure=True) == 'wss://testserver/ws/'


@override_settings(SECURE_PROXY_SSL_HEADER=('HTTP_X_FORWARDED_PROTO', 'https'))
def test_behind_a_proxy_with_tls_the_uri_is_secure() -> None:
    request = RequestFactory().get(
        '/', headers={'host': 'testserver', 'x-forwarded-proto': 'https'}
    )
    assert default(request)['WEBSOCKET_URI'] == 'wss://testserver/ws/'


@override_settings(WEBSOCKET_URL='/sockets/')
def test_the_prefix_is_that_of_the_setting() -> None:
    assert render('{{ WEBSOCKET_URI }}') == 'ws://testserver/sockets/'


@override_settings(WEBSOCKET_URL='/sockets')
def test_the_prefix_ends_in_a_slash_even_if_the_setting_does_not() -> None:
    assert render('{{ WEBSOCKET_URI }}') == 'ws://testserver/sockets/'


def test_under_a_mount_point_the_uri_begins_with_it() -> None:
    set_script_prefix('/app/')
    try:
        assert render('{{ WEBSOCKET_URI }}') == 'ws://testserver/app/ws/'
    finally:
        clear_script_prefix()


@override_settings(WS4REDIS_HEARTBEAT=None)
def test_without_a_heartbeat_the_literal_is_null() -> None:
    assert render('heartbeat_msg: {{ WS4REDIS_HEARTBEAT }}') == 'heartbeat_msg: null'


@override_settings(WS4REDIS_HEARTBEAT='--heartbeat--')
def test_the_heartbeat_is_a_quoted_string() -> None:
    assert render('{{ WS4REDIS_HEARTBEAT }}') == '"--heartbeat--"'


@pytest.mark.parametrize('heartbeat', HEARTBEATS)
def test_no_heartbeat_breaks_out_of_its_script(heartbeat: str | None) -> None:
    with override_settings(WS4REDIS_HEARTBEAT=heartbeat):
        literal = render('{{ WS4REDIS_HEARTBEAT }}')
    assert json.loads(literal) == heartbeat
    assert not set(literal) & set("<>&'\n\u2028")
