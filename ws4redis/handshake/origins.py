"""Who may connect: the check of the ``Origin`` header (RFC 6455, section 10.2).

A browser sends with each handshake the origin of the page that makes it, and the user's cookies,
whatever page it is. Without this check any page could open websockets in the user's name.

Event streams are plain requests, and a page may make those without an origin: its own
``EventSource`` does, but so does ``fetch`` with the mode ``no-cors`` to any other site, which reads
no answer and holds the stream all the same. Then ``Sec-Fetch-Site`` tells the two apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from django.conf import settings
from django.http.request import split_domain_port
from django.utils.http import is_same_domain

from ws4redis.conf import conf

if TYPE_CHECKING:
    from django.http import HttpRequest

ORIGIN_HEADERS = ('HTTP_ORIGIN', 'HTTP_SEC_FETCH_SITE')
"""Those by which browsers say what page makes a handshake, as WSGI spells them."""

_ORIGIN = re.compile(r'([a-z][a-z0-9+.-]*)://([^/?#@\s]*)')
_DEFAULT_PORTS = {'http': '80', 'https': '443'}
# None: a browser that does not send it, one on a site without TLS, or none at all.
_OWN_SITES = frozenset({None, 'same-origin', 'none'})


def is_origin_allowed(request: HttpRequest) -> bool:
    """Tell whether the page that makes a handshake may.

    It may when it came from the request's own host, when ``CSRF_TRUSTED_ORIGINS`` or
    ``WS4REDIS_ALLOWED_ORIGINS`` names it, or when there is no ``Origin`` and ``Sec-Fetch-Site``
    does not say that the page is of another. Raise Django's ``DisallowedHost`` for a host that is
    not in ``ALLOWED_HOSTS``.
    """
    host = request.get_host()
    allowed = conf.WS4REDIS_ALLOWED_ORIGINS or ()
    if '*' in allowed:
        return True
    origin, site = map(request.META.get, ORIGIN_HEADERS)
    if origin is None:
        return site in _OWN_SITES
    match = _ORIGIN.fullmatch(origin.lower())
    if match is None:
        # `null`: a sandboxed or local page, which could be anybody's.
        return False
    scheme, netloc = match.groups()
    return _is_own(scheme, netloc, host.lower(), is_secure=request.is_secure()) or _is_named(
        scheme, netloc, (*allowed, *settings.CSRF_TRUSTED_ORIGINS)
    )


def _is_own(scheme: str, netloc: str, host: str, *, is_secure: bool) -> bool:
    """Tell whether a page came from the host that it connects to."""
    # On the site served by https, anybody in between can write a page of http. The reverse is a
    # proxy that speaks TLS and is not named in SECURE_PROXY_SSL_HEADER.
    if scheme != 'https' and (scheme != 'http' or is_secure):
        return False
    if _with_port(scheme, netloc) == _with_port(scheme, host):
        return True
    # In development, pages and websockets often come from two servers.
    return settings.DEBUG and split_domain_port(netloc)[0] == split_domain_port(host)[0] != ''


def _with_port(scheme: str, netloc: str) -> str:
    has_port = netloc.rpartition(':')[2].isdigit() and not netloc.endswith(']')
    return netloc if has_port else f'{netloc}:{_DEFAULT_PORTS.get(scheme, "")}'


def _is_named(scheme: str, netloc: str, allowed: Iterable[str]) -> bool:
    for entry in allowed:
        allowed_scheme, _, pattern = entry.lower().partition('://')
        if scheme != allowed_scheme:
            continue
        # Some have no host at all: `file://`.
        if netloc == pattern == '' and scheme not in _DEFAULT_PORTS:
            return True
        # `https://*.example.com` means all subdomains, as in CSRF_TRUSTED_ORIGINS.
        pattern = _with_port(scheme, pattern.removeprefix('*'))
        if netloc and is_same_domain(_with_port(scheme, netloc), pattern):
            return True
    return False
