"""Connections of the client protocol: their handshakes, and the project's code for them."""

from __future__ import annotations

import io
import json
import logging
import sys
import zlib
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.core.handlers.wsgi import WSGIRequest
from django.utils.functional import SimpleLazyObject

from ws4redis.broker.client_names import ClientName
from ws4redis.broker.history import Page, PageRequest
from ws4redis.conf import conf
from ws4redis.exceptions import ClientError
from ws4redis.handshake.blocking import with_database
from ws4redis.handshake.grants import PUBLISH, is_undecided, may, may_at_once
from ws4redis.handshake.identity import identity_of
from ws4redis.handshake.policy import authenticate, authorise, verify_origin
from ws4redis.handshake.tokens import (
    expiry_of_grant,
    identity_of_ticket,
    identity_of_token,
    ticket_of,
)
from ws4redis.hub.clients.project import Grant, Visitor
from ws4redis.hub.identity import ANONYMOUS, Identity
from ws4redis.protocol.client.codes import ErrorCode
from ws4redis.publishing.broker import current_broker
from ws4redis.settings.hooks import call

if TYPE_CHECKING:
    from django.http import HttpRequest

    from ws4redis.hub.control import Control

logger = logging.getLogger('ws4redis')

# What only the handshake itself needs.
_NOT_KEPT = ('HTTP_SEC_WEBSOCKET_', 'HTTP_UPGRADE', 'HTTP_CONNECTION')


# The handshake


def claims_nothing(request: HttpRequest) -> bool:
    """Tell whether nobody has to be asked who it is that comes: he is anonymous."""
    return (
        conf.WS4REDIS_PROCESS_REQUEST is None
        and settings.SESSION_COOKIE_NAME not in request.COOKIES
    )


def visitor_of(request: HttpRequest) -> Visitor:
    """Return who opens a connection. May block unless the request claims nothing.

    Raise ``HandshakeError`` as :func:`ws4redis.handshake.policy.authorise` does.
    """
    if claims_nothing(request):
        verify_origin(request)
        identity = ANONYMOUS
    else:
        authorise(request)
        identity = identity_of(request, with_groups=True)
    return Visitor(identity, record_of(request))


def ticket_in(request: HttpRequest) -> str:
    """Return the ticket that a request shows, empty if none."""
    # Django would take all of the query string apart, which costs more than to check a ticket.
    for parameter in reversed(request.META.get('QUERY_STRING', '').split('&')):
        name, _, value = parameter.partition('=')
        if name == 'ticket':
            return unquote_plus(value)
    return ''


def visitor_by_ticket(request: HttpRequest, control: Control | None) -> Visitor | None:
    """Return who opens a connection with a ticket, None if none is shown or taken.

    Does not block. Raise ``HandshakeError`` for a foreign origin.
    """
    ticket = ticket_in(request)
    # Code of the project that looks at each handshake goes on doing so.
    if not ticket or conf.WS4REDIS_PROCESS_REQUEST is not None:
        return None
    session_key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    identity = identity_of_ticket(ticket, session_key, control)
    if identity is None:
        return None
    verify_origin(request)
    return Visitor(identity, record_of(request))


def record_of(request: HttpRequest) -> bytes | None:
    """Return what is kept of a handshake, to make a request of it for code of the project.

    None where no setting names any code, as each connection would keep it in memory.
    """
    if not _has_code():
        return None
    kept = {
        name: value
        for name, value in request.META.items()
        if isinstance(value, str) and not name.startswith(_NOT_KEPT)
    }
    kept['wsgi.url_scheme'] = request.scheme or 'http'
    return zlib.compress(json.dumps(kept).encode(), 1)


def _has_code() -> bool:
    options = [option for facility in conf.WS4REDIS_FACILITIES.values() for option in facility]
    return (
        conf.WS4REDIS_ALLOWED_CHANNELS is not None
        or bool(conf.WS4REDIS_RPC)
        or 'SUBSCRIBE' in options
        or 'PUBLISH' in options
    )


def request_of(visitor: Visitor, facility: str | None = None) -> HttpRequest:
    """Return a request of a visitor, as its handshake was; with the path of a facility, if given.

    Its user is the one in whose name the connection is.
    """
    kept = {} if visitor.record is None else json.loads(zlib.decompress(visitor.record))
    environ: dict[str, Any] = {
        'REQUEST_METHOD': 'GET',
        'PATH_INFO': '/',
        'SERVER_NAME': 'localhost',
        'SERVER_PORT': '80',
        'SERVER_PROTOCOL': 'HTTP/1.1',
        **kept,
        'wsgi.input': io.BytesIO(),
        'wsgi.errors': sys.stderr,
    }
    if facility is not None:
        path = conf.WEBSOCKET_URL.rstrip('/') + '/' + facility
        environ['PATH_INFO'] = path.encode(errors='surrogateescape').decode('latin-1')
    request = WSGIRequest(environ)
    authenticate(request)
    if visitor.is_by_token:
        lazy: Any = request
        lazy.user = SimpleLazyObject(lambda: _user_named(visitor.identity.user))
    return request


def _user_named(name: str | None) -> Any:
    # Its module needs the models, and this one is imported before they are loaded.
    from django.contrib.auth.models import AnonymousUser

    if name is None:
        return AnonymousUser()
    model: Any = get_user_model()
    user = model._default_manager.filter(**{model.USERNAME_FIELD: name}).first()
    return AnonymousUser() if user is None else user


# What connections need of the project


class DjangoProject:
    """The project's settings and code, for connections in the loop.

    ``control`` knows what has ended lately.
    """

    def __init__(self, control: Control | None = None) -> None:
        self._control = control
        self._has_told_of_undecided = False

    def decide(self, visitor: Visitor, verb: str, name: ClientName, token: str) -> Grant | None:
        if token:
            return None
        allowed = may_at_once(
            visitor.identity, name.facility, name.audience, verb, group=name.group
        )
        if verb == PUBLISH and allowed is False and is_undecided(name.facility, verb):
            self._tell_of_undecided(name.facility)
        return None if allowed is None else Grant(allowed)

    def _tell_of_undecided(self, facility: str) -> None:
        # Once, as clients choose the names.
        if not self._has_told_of_undecided:
            self._has_told_of_undecided = True
            logger.warning(
                'a client may not publish on %r: no setting says who may; set PUBLISH for it '
                'in WS4REDIS_FACILITIES',
                facility,
            )

    def may(self, visitor: Visitor, verb: str, name: ClientName, token: str) -> Grant:
        return with_database(self._may, visitor, verb, name, token)

    def _may(self, visitor: Visitor, verb: str, name: ClientName, token: str) -> Grant:
        expires = expiry_of_grant(token, name, visitor.identity) if token else None
        request = request_of(visitor, name.facility)
        allowed = may(
            request,
            visitor.identity,
            name.facility,
            name.audience,
            verb,
            group=name.group,
            has_token=bool(token),
        )
        return Grant(allowed, expires)

    def needs_identifying(self, visitor: Visitor, token: str) -> bool:
        return bool(token)

    def identify(self, visitor: Visitor, token: str) -> Identity:
        return with_database(identity_of_token, token, self._control)

    def ticket(self, identity: Identity) -> str | None:
        return ticket_of(identity)

    def call(self, visitor: Visitor, method: str, data: Any) -> Any:
        function = conf.rpc_function(method)
        if function is None:
            raise ClientError(ErrorCode.METHOD_NOT_FOUND, ErrorCode.METHOD_NOT_FOUND.message)
        return with_database(self._call, function, visitor, data)

    def _call(self, function: Any, visitor: Visitor, data: Any) -> Any:
        try:
            return call('WS4REDIS_RPC', function, request_of(visitor), data)
        except PermissionDenied:
            raise ClientError(
                ErrorCode.PERMISSION_DENIED, ErrorCode.PERMISSION_DENIED.message
            ) from None

    def read_page(self, request: PageRequest) -> Page:
        return current_broker().read_page(request)
