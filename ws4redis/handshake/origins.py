"""Who may connect: the check of the ``Origin`` header (RFC 6455, section 10.2).

A browser sends with each handshake the origin of the page that makes it, and the user's cookies,
whatever page it is. Without this check any page could open websockets in the user's name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from django.conf import settings
from django.utils.http import is_same_domain

from ws4redis.conf import conf

if TYPE_CHECKING:
    from django.http import HttpRequest

_DEFAULT_PORTS = {'http': '80', 'https': '443', 'ws': '80', 'wss': '443'}


def is_origin_allowed(request: HttpRequest) -> bool:
    """Tell whether the page that makes a handshake may.

    It may when its host and port are those of the request, when ``CSRF_TRUSTED_ORIGINS`` or
    ``WS4REDIS_ALLOWED_ORIGINS`` names it, or when there is no ``Origin``, since then the client is
    no browser. Raise Django's ``DisallowedHost`` for a host that is not in ``ALLOWED_HOSTS``.
    """
    host = request.get_host()
    origin = request.META.get('HTTP_ORIGIN')
    if origin is None:
        return True
    allowed = conf.WS4REDIS_ALLOWED_ORIGINS or ()
    if '*' in allowed:
        return True
    try:
        scheme, netloc = urlsplit(origin.lower())[:2]
    except ValueError:
        return False
    if not netloc:
        # `null`: a sandboxed or local page, which could be anybody's.
        return False
    if _with_port(scheme, netloc) == _with_port(scheme, host.lower()):
        return True
    return _is_named(scheme, netloc, (*allowed, *settings.CSRF_TRUSTED_ORIGINS))


def _with_port(scheme: str, netloc: str) -> str:
    has_port = netloc.rpartition(':')[2].isdigit() and not netloc.endswith(']')
    return netloc if has_port else f'{netloc}:{_DEFAULT_PORTS.get(scheme, "")}'


def _is_named(scheme: str, netloc: str, allowed: Iterable[str]) -> bool:
    for entry in allowed:
        allowed_scheme, _, pattern = entry.lower().partition('://')
        # `https://*.example.com` means all subdomains, as in CSRF_TRUSTED_ORIGINS.
        if scheme == allowed_scheme and is_same_domain(netloc, pattern.removeprefix('*')):
            return True
    return False
