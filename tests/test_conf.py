from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from tests.timeouts import SOON_SECONDS
from ws4redis.conf import conf, load
from ws4redis.settings.checks import validate_settings
from ws4redis.settings.declared import SETTINGS

REFERENCE = Path(__file__).parent.parent / 'docs' / 'reference' / 'settings.md'
NAMES = sorted(SETTINGS)


def documented_defaults() -> dict[str, Any]:
    found = re.findall(r'^### `(\w+)`\n\nDefault: `(.+?)`', REFERENCE.read_text(), re.MULTILINE)
    return {name: ast.literal_eval(default) for name, default in found}


def without(name: str) -> Any:
    """Return a context in which the project does not set a setting."""

    class Context(override_settings):
        def enable(self) -> None:
            super().enable()
            if hasattr(settings, name):
                delattr(settings, name)

    return Context()


def test_every_setting_is_documented_and_nothing_else() -> None:
    assert sorted(documented_defaults()) == NAMES


@pytest.mark.parametrize('name', NAMES)
def test_the_reference_begins_with_what_the_declaration_says(name: str) -> None:
    text = re.split(rf'^### `{name}`\n\n.*\n\n', REFERENCE.read_text(), flags=re.MULTILINE)[1]
    about = SETTINGS[name].__doc__
    assert about
    assert ' '.join(text.split()).startswith(about)


@pytest.mark.parametrize('name', NAMES)
def test_a_setting_that_the_project_does_not_set_has_the_documented_default(name: str) -> None:
    with without(name):
        assert getattr(conf, name) == documented_defaults()[name]


@pytest.mark.parametrize('name', sorted(set(NAMES) - {'WS4REDIS_CONNECTION'}))
def test_an_overridden_setting_takes_effect_at_once(name: str) -> None:
    value = 'HTTP_X' if name == 'WS4REDIS_CLIENT_ADDRESS_HEADER' else object()
    before = getattr(conf, name)
    with override_settings(**{name: value}):
        assert getattr(conf, name) == value
    assert getattr(conf, name) == before


# The connection


@override_settings(WS4REDIS_CONNECTION={'host': 'redis.example.com', 'ssl': True})
def test_defaults_are_filled_into_the_connection() -> None:
    assert conf.WS4REDIS_CONNECTION == {
        'host': 'redis.example.com',
        'port': 6379,
        'db': 0,
        'password': None,
        'ssl': True,
    }


@override_settings(WS4REDIS_CONNECTION={'url': 'redis://localhost'})
def test_no_defaults_are_added_to_a_url() -> None:
    assert conf.WS4REDIS_CONNECTION == {'url': 'redis://localhost'}


@override_settings(WS4REDIS_CONNECTION='redis://localhost')
def test_a_connection_that_is_no_dictionary_is_refused_by_name() -> None:
    with pytest.raises(ImproperlyConfigured, match=r'WS4REDIS_CONNECTION must be a dictionary'):
        _ = conf.WS4REDIS_CONNECTION


@pytest.mark.parametrize(
    ('name', 'key'),
    [
        ('X-Forwarded-For', 'HTTP_X_FORWARDED_FOR'),
        ('x-real-ip', 'HTTP_X_REAL_IP'),
        ('HTTP_X_REAL_IP', 'HTTP_X_REAL_IP'),
        (None, None),
    ],
)
def test_the_address_header_is_given_as_the_key_of_the_request(
    name: str | None, key: str | None
) -> None:
    with override_settings(WS4REDIS_CLIENT_ADDRESS_HEADER=name):
        assert key == conf.WS4REDIS_CLIENT_ADDRESS_HEADER


# Dotted paths


def callback(request: object, channels: object = ()) -> None:
    """Stand for a callable in a project."""


class Handler:
    """Stand for a handler in a project."""


@pytest.mark.parametrize('value', [callback, 'tests.test_conf.callback'])
@pytest.mark.parametrize(
    ('setting', 'loader'),
    [
        ('WS4REDIS_ALLOWED_CHANNELS', conf.load_allowed_channels),
        ('WS4REDIS_PROCESS_REQUEST', conf.load_process_request),
    ],
)
def test_a_callback_is_given_as_callable_or_by_its_path(
    setting: str, loader: Any, value: object
) -> None:
    with override_settings(**{setting: value}):
        assert loader().__qualname__ == 'callback'
    with override_settings(**{setting: None}):
        assert loader() is None


@override_settings(WS4REDIS_SUBSCRIBER='tests.test_conf.Handler')
def test_the_subscriber_is_loaded_by_its_path() -> None:
    assert conf.load_subscriber().__qualname__ == 'Handler'


@pytest.mark.parametrize(
    'path', ['nowhere.at.all', 'tests.test_conf.missing', 'plain', '', '.relative.path']
)
def test_a_path_that_does_not_import_is_refused_with_the_name_of_the_setting(path: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=r'^WS4REDIS_X names .* which does not import'):
        load('WS4REDIS_X', path)


def test_a_module_that_fails_while_it_is_imported_is_named_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'fails_at_import.py').write_text('1 / 0')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImproperlyConfigured, match='ZeroDivisionError'):
        load('WS4REDIS_X', 'fails_at_import.name')


def test_a_path_to_something_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match='must be a callable'):
        load('WS4REDIS_X', 'tests.timeouts.SOON_SECONDS')
    assert SOON_SECONDS


# At the start of the websocket loop


def test_right_settings_pass() -> None:
    validate_settings()


@override_settings(WS4REDIS_EXPIRE='1h', WS4REDIS_PREFIX=7)
def test_the_first_error_of_the_checks_is_raised() -> None:
    with pytest.raises(ImproperlyConfigured, match=r'^WS4REDIS_EXPIRE .*\(ws4redis\.E003\)$'):
        validate_settings()


@override_settings(WS4REDIS_EXPIER=5)
def test_a_mere_warning_does_not_stop_the_start() -> None:
    validate_settings()
