"""Which pages may open websockets."""

from __future__ import annotations

import pytest
from django.core.exceptions import DisallowedHost
from django.test import RequestFactory, override_settings

from ws4redis.handshake.origins import is_origin_allowed


def is_allowed(
    origin: str | None,
    *,
    host: str = 'example.com',
    secure: bool = False,
    site: str | None = None,
) -> bool:
    given = {'host': host, 'origin': origin, 'sec-fetch-site': site}
    headers = {name: value for name, value in given.items() if value is not None}
    with override_settings(ALLOWED_HOSTS=['.example.com', '[::1]', 'localhost']):
        return is_origin_allowed(RequestFactory().get('/ws/x', secure=secure, headers=headers))


@pytest.mark.parametrize(
    ('origin', 'host'),
    [
        (None, 'example.com'),
        ('http://example.com', 'example.com'),
        ('http://EXAMPLE.com', 'example.COM'),
        ('http://example.com:80', 'example.com'),
        ('http://example.com', 'example.com:80'),
        ('http://example.com:8000', 'example.com:8000'),
        # A proxy that speaks TLS may hand on plain HTTP, with the host alone.
        ('https://example.com', 'example.com'),
        ('https://example.com:443', 'example.com'),
        ('http://[::1]:8000', '[::1]:8000'),
        ('http://[::1]', '[::1]'),
    ],
)
def test_the_pages_own_host_may(origin: str | None, host: str) -> None:
    assert is_allowed(origin, host=host)


@pytest.mark.parametrize(
    ('origin', 'host'),
    [
        ('http://evil.example', 'example.com'),
        ('http://example.com.evil.example', 'example.com'),
        ('http://sub.example.com', 'example.com'),
        ('http://example.com:8001', 'example.com:8000'),
        ('http://example.com', 'example.com:8000'),
        ('null', 'example.com'),
        ('', 'example.com'),
        ('example.com', 'example.com'),
        ('file://', 'example.com'),
        ('http://', 'example.com'),
        ('http://[broken', 'example.com'),
        ('http://example.com@evil.example', 'example.com'),
    ],
)
def test_any_other_page_may_not(origin: str, host: str) -> None:
    assert not is_allowed(origin, host=host)


@pytest.mark.parametrize(
    ('origin', 'secure', 'allowed'),
    [
        ('https://example.com', True, True),
        # Anybody between client and server can write a page of http.
        ('http://example.com', True, False),
        ('http://example.com:443', True, False),
        ('https://example.com', False, True),
        ('http://example.com', False, True),
        ('ftp://example.com', False, False),
        ('chrome-extension://example.com:80', False, False),
    ],
)
def test_the_scheme_counts(origin: str, secure: bool, allowed: bool) -> None:
    host = 'example.com:80' if origin.startswith('chrome') else 'example.com'
    assert is_allowed(origin, host=host, secure=secure) is allowed


@override_settings(SECURE_PROXY_SSL_HEADER=('HTTP_X_FORWARDED_PROTO', 'https'))
@pytest.mark.parametrize(('proto', 'allowed'), [('https', False), ('http', True)])
def test_a_proxy_that_speaks_tls_is_believed_where_a_setting_names_its_header(
    proto: str, allowed: bool
) -> None:
    headers = {'host': 'localhost', 'origin': 'http://localhost', 'x-forwarded-proto': proto}
    request = RequestFactory().get('/ws/x', headers=headers)
    with override_settings(ALLOWED_HOSTS=['localhost']):
        assert is_origin_allowed(request) is allowed


@pytest.mark.parametrize(
    ('origin', 'allowed'),
    [
        ('http://localhost:3000', True),
        ('http://localhost', True),
        ('http://example.com:8000', False),
        ('http://localhost.evil.example:8000', False),
        ('http://:8000', False),
        ('null', False),
    ],
)
def test_in_development_a_page_may_come_from_any_port_of_the_host(
    origin: str, allowed: bool
) -> None:
    with override_settings(DEBUG=True):
        assert is_allowed(origin, host='localhost:8000') is allowed
    assert not is_allowed(origin, host='localhost:8000')


@override_settings(
    WS4REDIS_ALLOWED_ORIGINS=['file://', 'capacitor://localhost', 'https://app.example:443']
)
@pytest.mark.parametrize(
    ('origin', 'allowed'),
    [
        ('file://', True),
        ('file://host', False),
        ('capacitor://localhost', True),
        ('https://', False),
        ('https://app.example', True),
        ('https://app.example:444', False),
    ],
)
def test_origins_of_apps_may_be_named(origin: str, allowed: bool) -> None:
    assert is_allowed(origin) is allowed


@override_settings(WS4REDIS_ALLOWED_ORIGINS=['https://app.example', 'https://*.example.net'])
@pytest.mark.parametrize(
    ('origin', 'allowed'),
    [
        ('https://app.example', True),
        ('https://APP.example', True),
        ('http://app.example', False),
        ('https://app.example:8443', False),
        ('https://a.example.net', True),
        ('https://a.b.example.net', True),
        ('https://evilexample.net', False),
        ('http://example.com', True),
    ],
)
def test_named_origins_may_besides(origin: str, allowed: bool) -> None:
    assert is_allowed(origin) is allowed


@override_settings(CSRF_TRUSTED_ORIGINS=['https://trusted.example'])
def test_origins_that_may_post_forms_may_open_websockets() -> None:
    assert is_allowed('https://trusted.example')
    assert not is_allowed('https://other.example')


@pytest.mark.parametrize(
    ('site', 'allowed'),
    [
        (None, True),
        ('same-origin', True),
        # The user's own doing: an address that was typed in.
        ('none', True),
        ('same-site', False),
        ('cross-site', False),
        ('', False),
        ('what-comes-next', False),
    ],
)
def test_a_page_that_names_no_origin_must_not_be_of_another_site(site: str, allowed: bool) -> None:
    assert is_allowed(None, site=site) is allowed


@override_settings(WS4REDIS_ALLOWED_ORIGINS=['https://app.example'])
def test_where_an_origin_is_named_it_alone_counts() -> None:
    assert is_allowed('https://app.example', site='cross-site')
    assert not is_allowed(None, site='cross-site')
    assert not is_allowed('http://evil.example', site='same-origin')


@override_settings(WS4REDIS_ALLOWED_ORIGINS=['*'])
def test_an_asterisk_lets_every_page() -> None:
    assert is_allowed('http://evil.example')
    assert is_allowed('null')
    assert is_allowed(None, site='cross-site')


def test_a_host_that_is_not_ours_is_an_error_whatever_the_origin() -> None:
    for origin in (None, 'http://evil.example'):
        with pytest.raises(DisallowedHost):
            is_allowed(origin, host='evil.example')
