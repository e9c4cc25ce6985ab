"""Sessions that are read together: each once, in one round trip, and with what its store says."""

from __future__ import annotations

import sys
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import RequestFactory, override_settings

from ws4redis.handshake import sessions
from ws4redis.handshake.sessions import (
    READ_SESSION,
    Read,
    can_read_many,
    session_of,
)

CACHE = 'django.contrib.sessions.backends.cache'
DATABASE = 'django.contrib.sessions.backends.db'
BOTH = 'django.contrib.sessions.backends.cached_db'
FILES = 'django.contrib.sessions.backends.file'


def stored(**data: Any) -> str:
    from django.conf import settings

    store = import_module(settings.SESSION_ENGINE).SessionStore()
    store.update(data)
    store.save()
    return str(store.session_key)


def request_with(cookie: str | None) -> Any:
    request = RequestFactory().get('/ws/x')
    if cookie is not None:
        request.COOKIES['sessionid'] = cookie
    return request


@pytest.mark.django_db
@pytest.mark.parametrize('engine', [CACHE, DATABASE, BOTH])
def test_each_of_djangos_stores_is_read_as_it_reads_itself(engine: str) -> None:
    with override_settings(SESSION_ENGINE=engine):
        key = stored(name='john', nested={'a': [1]})
        gone = 'a' * 32
        found = sessions._read_many([key, gone])
        assert found[key] == {'name': 'john', 'nested': {'a': [1]}}
        # A session that the cache has not is asked for again where it may be in the database.
        assert (gone in found) is (engine != BOTH)
        request = request_with(key)
        setattr(request, READ_SESSION, Read(key, found[key]))
        session = session_of(request, key)
        assert (session['name'], session.session_key) == ('john', key)


@override_settings(SESSION_ENGINE=CACHE)
def test_each_of_those_who_have_the_same_session_may_change_it() -> None:
    key = stored(nested={'a': [1]})
    first, second = sessions.read_sessions([key, key])
    assert first is not None
    assert second is not None
    assert first.data is not None
    first.data['nested']['a'].append(2)
    assert second.data == {'nested': {'a': [1]}}


@override_settings(SESSION_ENGINE=CACHE)
def test_what_is_no_session_is_left_to_its_store() -> None:
    key = stored(name='john')
    store: Any = import_module(CACHE).SessionStore(key)
    store._cache.set(store.cache_key, 'no session')
    assert sessions.read_sessions([key]) == [None]


@override_settings(SESSION_ENGINE=CACHE)
def test_a_session_that_does_not_exist_is_an_empty_one_without_a_key() -> None:
    request = request_with('b' * 32)
    setattr(request, READ_SESSION, Read('b' * 32, None))
    session = session_of(request, 'b' * 32)
    assert session.is_empty()
    assert session.session_key is None


@override_settings(SESSION_ENGINE=CACHE)
def test_what_was_read_for_another_key_is_not_believed() -> None:
    key = stored(name='mary')
    request = request_with(key)
    setattr(request, READ_SESSION, Read('c' * 32, {'name': 'john'}))
    assert session_of(request, key)['name'] == 'mary'


@pytest.mark.parametrize(
    ('engine', 'cookie', 'expected'),
    [
        (CACHE, 'e' * 32, True),
        (DATABASE, 'e' * 32, True),
        (BOTH, 'e' * 32, True),
        (FILES, 'e' * 32, False),
        (CACHE, None, False),
        (CACHE, 'a b', False),
        (CACHE, 'x' * 1000, False),
    ],
)
def test_only_djangos_stores_and_keys_are_read_together(
    engine: str, cookie: str | None, *, expected: bool
) -> None:
    with override_settings(SESSION_ENGINE=engine):
        assert can_read_many(request_with(cookie)) is expected
        with override_settings(WS4REDIS_PROCESS_REQUEST='tests.handshake.test_sessions.stored'):
            assert not can_read_many(request_with(cookie))


@pytest.mark.parametrize(
    ('engine', 'own', 'expected'),
    [
        (CACHE, {'cache_key_prefix': 'own'}, True),
        (CACHE, {'load': lambda store: {}}, False),
        (CACHE, {'cache_key': property(lambda store: f'tenant.{store.session_key}')}, False),
        (DATABASE, {'_get_session_from_db': lambda store: None}, False),
        (BOTH, {'cache_key': property(lambda store: f'tenant.{store.session_key}')}, False),
    ],
)
def test_a_store_that_finds_sessions_by_itself_is_asked_for_each(
    engine: str, own: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *, expected: bool
) -> None:
    store = type('SessionStore', (import_module(engine).SessionStore,), own)
    monkeypatch.setitem(sys.modules, 'own_engine', SimpleNamespace(SessionStore=store))
    sessions._reader_of.cache_clear()
    with override_settings(SESSION_ENGINE='own_engine'):
        assert can_read_many(request_with('e' * 32)) is expected
    sessions._reader_of.cache_clear()
