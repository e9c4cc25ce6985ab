"""Requests that outlive their handshake."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

from django.core.handlers.wsgi import WSGIRequest

from ws4redis.servers.opening import make_request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed.wsgi import WSGIEnvironment


def lasting_environ(environ: Mapping[str, Any]) -> dict[str, str]:
    """Return what of a WSGI environment makes sense when the request has ended: the strings.

    Among what is left out are the server's objects, through which a websocket would keep the
    request's buffers alive.
    """
    return {sys.intern(name): value for name, value in environ.items() if isinstance(value, str)}


def make_lasting_request(environ: Mapping[str, Any]) -> WSGIRequest:
    """Build Django's request from an environment; raise ``HandshakeError`` 400 if it is broken."""
    lasting: WSGIEnvironment = dict(lasting_environ(environ))
    lasting['wsgi.input'] = io.BytesIO()
    return make_request(lasting)
