"""What anonymous handshakes are granted is remembered while nothing that counts differs."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from django.conf import settings
from django.test import RequestFactory, override_settings

from ws4redis.handshake.policy import admit
from ws4redis.handshake.strangers import MAX_REMEMBERED, Strangers, key_of


def environ(path: str = '/ws/x', query: str = 'subscribe-broadcast', **more: Any) -> dict[str, Any]:
    return RequestFactory().get(f'{path}?{query}', **more).environ


@pytest.fixture
def strangers() -> Strangers:
    return Strangers()


def remember(strangers: Strangers, environ: dict[str, Any]) -> Any:
    admission = admit(RequestFactory().get('/ws/x?subscribe-broadcast'))
    strangers.remember(key_of(environ), admission)
    return admission


def test_who_asks_for_the_same_gets_the_same(strangers: Strangers) -> None:
    admission = remember(strangers, environ())
    assert strangers.find(key_of(environ())) is admission
    # Whose subscriber is nobody's alone, and so is not released with a handshake.
    assert admission is not None
    assert admission.is_shared


@pytest.mark.parametrize(
    'other',
    [
        {'path': '/ws/y'},
        {'query': 'subscribe-broadcast&echo'},
        {'HTTP_HOST': 'evil.example'},
        {'HTTP_ORIGIN': 'http://evil.example'},
        {'HTTP_SEC_FETCH_SITE': 'cross-site'},
        {'HTTP_X_FORWARDED_HOST': 'evil.example'},
        {'HTTP_X_FORWARDED_PORT': '1'},
        {'SCRIPT_NAME': '/other'},
        {'wsgi.url_scheme': 'https'},
        {'SERVER_NAME': 'other'},
    ],
)
def test_who_differs_in_what_the_policy_looks_at_is_looked_at(
    strangers: Strangers, other: dict[str, Any]
) -> None:
    remember(strangers, environ())
    assert strangers.find(key_of(environ(**other))) is None


class Watched(dict[str, Any]):
    """Note what is looked at."""

    def __init__(self, environ: dict[str, Any]) -> None:
        super().__init__(environ)
        self.looked_at: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.looked_at.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.looked_at.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.looked_at.add(str(key))
        return super().__contains__(key)


@pytest.mark.parametrize('origin', [{}, {'origin': 'http://testserver'}])
@override_settings(USE_X_FORWARDED_HOST=True, USE_X_FORWARDED_PORT=True)
def test_all_that_the_policy_looks_at_counts(origin: dict[str, str]) -> None:
    request = RequestFactory().get('/ws/x?subscribe-broadcast', headers=origin)
    request.META = request.environ = watched = Watched(request.environ)
    admit(request)
    # Cookies are taken apart, and nobody looks at what they say.
    deciding = watched.looked_at - {'HTTP_COOKIE'}
    watched.looked_at.clear()
    key_of(watched)
    assert {'HTTP_ORIGIN', 'QUERY_STRING'} <= deciding <= watched.looked_at


@override_settings(SECURE_PROXY_SSL_HEADER=('HTTP_X_SCHEME', 'https'))
def test_the_header_that_tells_of_tls_counts(strangers: Strangers) -> None:
    remember(strangers, environ())
    assert strangers.find(key_of(environ(HTTP_X_SCHEME='https'))) is None


def test_other_settings_may_mean_another_policy(strangers: Strangers) -> None:
    remember(strangers, environ())
    with override_settings(ALLOWED_HOSTS=['only.example']):
        assert strangers.find(key_of(environ())) is None
    assert strangers.find(key_of(environ())) is not None
    strangers.forget()
    assert strangers.find(key_of(environ())) is None


def test_no_request_is_kept_for_what_it_was_granted(strangers: Strangers) -> None:
    request = RequestFactory().get('/ws/x?subscribe-broadcast')
    gone = weakref.ref(request)
    strangers.remember(key_of(request.environ), admit(request))
    del request
    gc.collect()
    assert gone() is None


def test_no_more_is_remembered_than_may(strangers: Strangers) -> None:
    assert settings.configured
    for number in range(MAX_REMEMBERED + 10):
        remember(strangers, environ(query=f'n={number}'))
    assert len(strangers._admissions) == 10
