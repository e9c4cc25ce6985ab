from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from ws4redis.conf import conf
from ws4redis.settings.checks import check_settings
from ws4redis.settings.facilities import DEFAULT_OPTIONS, FacilityOptions, matches


def may(request: Any, facility: str, audience: str) -> bool:
    return False


RIGHT: list[Any] = [
    {},
    {'*': {}},
    {'chat/*': {'HISTORY_SIZE': 10, 'HISTORY_SECONDS': 60, 'KEEP': None}, '*': {'KEEP': 0}},
    {'a*b': {'PRESENCE': True}, 'a*': {'SUBSCRIBE': 'authenticated', 'PUBLISH': 'nobody'}},
    {'a': {'SUBSCRIBE': may, 'PUBLISH': 'tests.test_facilities.may'}},
]
WRONG: list[Any] = [
    None,
    ['chat/*'],
    {1: {}},
    {'a': None},
    {'a': {'history_size': 1}},
    {'a': {'HISTORY': 1}},
    {'a': {'HISTORY_SIZE': -1}},
    {'a': {'HISTORY_SIZE': True}},
    {'a': {'HISTORY_SECONDS': 0}},
    {'a': {'KEEP': 1.5}},
    {'a': {'PRESENCE': 1}},
    {'a': {'SUBSCRIBE': 'everyone'}},
    {'a': {'PUBLISH': 'tests.test_facilities.nothing'}},
    {'a': {'SUBSCRIBE': len}},
    {'*': {}, 'chat': {}},
    {'a*': {}, 'ab*c': {}},
]


@pytest.mark.parametrize('value', RIGHT)
def test_right_facilities_pass(value: Any) -> None:
    with override_settings(WS4REDIS_FACILITIES=value):
        assert not check_settings()


@pytest.mark.parametrize('value', WRONG)
def test_wrong_facilities_are_an_error(value: Any) -> None:
    with override_settings(WS4REDIS_FACILITIES=value):
        assert [error.id for error in check_settings()] == ['ws4redis.E045']


def test_the_first_pattern_that_matches_counts() -> None:
    facilities = {'chat/*': {'HISTORY_SIZE': 7}, '*': {'KEEP': 5}}
    with override_settings(WS4REDIS_FACILITIES=facilities):
        options_of = conf.facility_options
        assert options_of('chat/a/b') == FacilityOptions(history_size=7)
        assert options_of('chat') == FacilityOptions(keep=5)
        assert options_of('') == FacilityOptions(keep=5)
    assert conf.facility_options('chat/a/b') is DEFAULT_OPTIONS


@pytest.mark.parametrize(
    ('pattern', 'facility', 'expected'),
    [
        ('*', 'a\nb', True),
        ('a*', 'a', True),
        ('a*c', 'abc', True),
        ('a*c', 'ab', False),
        ('a.c', 'abc', False),
        ('[a]', 'a', False),
        ('A', 'a', False),
    ],
)
def test_only_the_asterisk_has_a_meaning(pattern: str, facility: str, expected: bool) -> None:
    assert matches(pattern, facility) is expected
