"""Keys of sessions that a client made up, in every store that Django has."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings

from ws4redis.handshake.policy import admit
from ws4redis.publisher import SELF, RedisPublisher

pytestmark = pytest.mark.django_db

ENGINES = ['db', 'cache', 'cached_db', 'file', 'signed_cookies']
MADE_UP = 'made-up-by-the-client'


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    name = f'django.contrib.sessions.backends.{request.param}'
    with override_settings(SESSION_ENGINE=name, SESSION_FILE_PATH=str(tmp_path)):
        yield import_module(name)


def request_with(key: str) -> HttpRequest:
    request = RequestFactory().get('/ws/foo?subscribe-session&publish-session')
    request.COOKIES['sessionid'] = key
    return request


def saved_key(engine: Any) -> str:
    session = engine.SessionStore()
    session['name'] = 'value'
    session.save()
    return str(session.session_key)


def channels_in_a_handshake(key: str) -> list[str]:
    subscriber = admit(request_with(key)).subscriber
    names: list[str] = subscriber._subscription.names
    assert set(names) == subscriber._publishers
    return names


def channels_in_a_view(key: str) -> list[str]:
    channels: list[str] = []

    def view(request: HttpRequest) -> HttpResponse:
        for _ in range(2):
            publisher = RedisPublisher(facility='foo', sessions=[SELF], request=request)
            channels.extend(publisher._publishers)
        return HttpResponse()

    SessionMiddleware(view)(request_with(key))
    return channels


def test_a_session_that_exists_has_its_channel(engine: Any) -> None:
    key = saved_key(engine)
    name = f'session:{key.replace(":", "%3A")}:foo'
    assert channels_in_a_handshake(key) == [name]
    assert channels_in_a_view(key) == [name, name]


def test_a_session_that_does_not_exist_has_no_channel(engine: Any) -> None:
    assert channels_in_a_handshake(MADE_UP) == []
    assert channels_in_a_view(MADE_UP) == []
