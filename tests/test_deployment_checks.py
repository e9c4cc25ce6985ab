"""What `check --deploy` warns of."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import run_checks
from django.test import override_settings

from tests.check_messages import allowed_channels, ids, source_ids
from ws4redis.settings.deployment_checks import check_deployment

SAFE: dict[str, Any] = {'WS4REDIS_ALLOWED_CHANNELS': allowed_channels}

UNSAFE: list[tuple[str, dict[str, Any]]] = [
    ('W001', {'WS4REDIS_ALLOWED_CHANNELS': None}),
    ('W002', {'WS4REDIS_ALLOWED_ORIGINS': ['*']}),
    ('W003', {'ALLOWED_HOSTS': ['*']}),
    ('W004', {'WS4REDIS_HEARTBEAT': 'ping'}),
    ('W004', {'WS4REDIS_HEARTBEAT': 'heartbeat'}),
    ('W004', {'WS4REDIS_HEARTBEAT': '{"beat": 1}'}),
    ('W004', {'WS4REDIS_HEARTBEAT': 'I am here'}),
    ('W004', {'WS4REDIS_HEARTBEAT': '123456789'}),
    ('W005', {'WS4REDIS_CONNECTION': {'host': 'redis.example.com', 'password': 'x'}}),
    ('W005', {'WS4REDIS_CONNECTION': {'url': 'redis://:x@192.0.2.1'}}),
    ('W006', {'WS4REDIS_CONNECTION': {'host': 'redis.example.com'}}),
    ('W007', {'WS4REDIS_CONNECTION': {'url': 'rediss://:x@a.example/0?ssl_cert_reqs=none'}}),
    ('W007', {'WS4REDIS_CONNECTION': {'ssl': True, 'ssl_check_hostname': False}}),
    ('W008', {'WS4REDIS_CONNECTION': {'db': 3}}),
    ('W008', {'WS4REDIS_CONNECTION': {'url': 'redis://localhost/3'}}),
    ('W009', {'WS4REDIS_PING_INTERVAL': None}),
    ('W009', {'WS4REDIS_PING_INTERVAL': 0}),
    ('W010', {'SESSION_ENGINE': 'django.contrib.sessions.backends.signed_cookies'}),
    ('W011', {'WEBSOCKET_ACCEPT_ALL': True}),
]


@pytest.mark.parametrize(('number', 'changed'), UNSAFE)
def test_what_is_not_safe_in_public_is_warned_of(number: str, changed: dict[str, Any]) -> None:
    with override_settings(**{**SAFE, **changed}):
        (warning,) = check_deployment()
    assert warning.id == f'ws4redis.{number}'
    assert not warning.is_serious()
    assert warning.hint
    assert ':x@' not in warning.msg


def test_every_warning_of_a_deployment_is_tried() -> None:
    tried = {number for number, _ in UNSAFE}
    assert tried == {number for number in source_ids() if number.startswith('W0')}


@pytest.mark.parametrize(
    'changed',
    [
        {},
        {'WS4REDIS_HEARTBEAT': '--heartbeat--'},
        {'WS4REDIS_ALLOWED_ORIGINS': ['https://*.example.com']},
        {'WS4REDIS_CONNECTION': {'host': '127.0.0.2', 'password': 'x'}},
        {'WS4REDIS_CONNECTION': {'host': '::1', 'password': 'x'}},
        {'WS4REDIS_CONNECTION': {'unix_socket_path': '/run/redis.sock', 'password': 'x'}},
        {'WS4REDIS_CONNECTION': {'host': 'redis.example.com', 'password': 'x', 'ssl': True}},
        {'WS4REDIS_CONNECTION': {'url': 'rediss://:x@redis.example.com'}},
        {'WS4REDIS_CONNECTION': {'db': 3}, 'WS4REDIS_PREFIX': 'site'},
    ],
)
def test_what_is_safe_is_not_warned_of(changed: dict[str, Any]) -> None:
    with override_settings(**{**SAFE, **changed}):
        assert check_deployment() == []


@override_settings(WS4REDIS_ALLOWED_ORIGINS=5, WS4REDIS_HEARTBEAT=b'x')
def test_while_there_are_errors_there_are_no_warnings_of_the_deployment() -> None:
    assert check_deployment() == []


def test_manage_py_check_warns_of_the_deployment_only_when_asked_to() -> None:
    assert 'ws4redis.W001' not in ids(run_checks())
    assert 'ws4redis.W001' in ids(run_checks(include_deployment_checks=True))
    assert 'ws4redis.W001' in ids(run_checks(tags=['security'], include_deployment_checks=True))


@pytest.mark.parametrize(
    ('facilities', 'is_open'),
    [
        ({'*': {'SUBSCRIBE': 'anyone', 'PUBLISH': 'nobody'}}, False),
        ({'chat': {'HISTORY_SIZE': 3}, '*': {'SUBSCRIBE': 'anyone', 'PUBLISH': 'nobody'}}, True),
        ({'*': {'PUBLISH': 'nobody'}}, True),
        ({'chat': {'SUBSCRIBE': 'anyone', 'PUBLISH': 'nobody'}}, True),
    ],
)
def test_facilities_that_all_say_who_may_are_not_open(
    facilities: dict[str, Any], is_open: bool
) -> None:
    with override_settings(WS4REDIS_FACILITIES=facilities):
        found = ids(run_checks(include_deployment_checks=True))
    assert ('ws4redis.W001' in found) == is_open
