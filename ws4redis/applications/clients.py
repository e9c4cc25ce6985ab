"""Handshakes of the client protocol, and what the connections of a process share."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ws4redis.conf import conf
from ws4redis.exceptions import HandshakeError
from ws4redis.handshake.clients import (
    DjangoProject,
    claims_nothing,
    ticket_in,
    visitor_by_ticket,
    visitor_of,
)
from ws4redis.handshake.machine import Steps, Until
from ws4redis.handshake.policy import user_to_count
from ws4redis.hub.clients.connection import ClientConnection
from ws4redis.hub.clients.options import ClientOptions
from ws4redis.hub.clients.project import Visitor
from ws4redis.hub.clients.service import ClientService
from ws4redis.hub.clients.websocket import ClientWebSocket
from ws4redis.hub.clients.wire import client_wire
from ws4redis.protocol.handshake import CLIENT_PROTOCOL
from ws4redis.servers.opening import Opening, make_request

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from django.core.handlers.wsgi import WSGIRequest

    from ws4redis.hub.hub import Hub
    from ws4redis.protocol.wire import WireFormat

logger = logging.getLogger('ws4redis')

# How long a ticket waits until the process knows what has ended.
CONTROL_SECONDS = 2.0
PROTOBUF = 'centrifuge-protobuf'

_services: WeakKeyDictionary[Hub, ClientService] = WeakKeyDictionary()


def service_of(hub: Hub) -> ClientService:
    """Return what connections of a hub share; made from the settings when the first one comes."""
    service = _services.get(hub)
    if service is None:
        # Two threads may make one each at the same moment; one of them stays.
        control = None if hub.endings is None else hub.endings.control
        project = DjangoProject(control)
        service = _services.setdefault(hub, ClientService(hub, project, client_options()))
    return service


def takes_body(path: str) -> bool:
    """Tell whether requests at a path have a body that is read."""
    path = path.encode('latin-1', 'replace').decode(errors='replace')
    return endpoint_of(path) in (Endpoint.HTTP_STREAM, Endpoint.EMULATION)


def client_options() -> ClientOptions:
    return ClientOptions(
        prefix=conf.key_prefix,
        max_channels=conf.WS4REDIS_MAX_CHANNELS_PER_CONNECTION,
        max_name_bytes=conf.WS4REDIS_MAX_CHANNEL_NAME_BYTES,
        max_commands_per_second=conf.WS4REDIS_MAX_COMMANDS_PER_SECOND,
        connect_timeout_seconds=conf.WS4REDIS_HANDSHAKE_TIMEOUT,
        call_timeout_seconds=conf.WS4REDIS_RPC_TIMEOUT,
        allows_anonymous=conf.WS4REDIS_CLIENT_ANONYMOUS,
    )


class Endpoint(StrEnum):
    """Where the client protocol is spoken: beside the path of websockets."""

    WEBSOCKET = 'websocket'
    SSE = 'sse'
    HTTP_STREAM = 'http_stream'
    EMULATION = 'emulation'


_BESIDE = {each.value: each for each in Endpoint if each is not Endpoint.WEBSOCKET}


def endpoint_of(path: str) -> Endpoint | None:
    """Return what of the client protocol has a path; None for any other."""
    websocket = conf.path_of_clients(conf.WEBSOCKET_URL)
    if websocket is None:
        return None
    if path == websocket:
        return Endpoint.WEBSOCKET
    folder, _, name = path.rpartition('/')
    endpoint = _BESIDE.get(name)
    if endpoint is None or folder != websocket.rpartition('/')[0]:
        return None
    return endpoint


def offers_protocol(opening: Opening) -> bool:
    """Tell whether a client offers the protocol among its subprotocols."""
    return CLIENT_PROTOCOL in {name.strip() for name in opening.offered.split(',')}


def client_steps(environ: WSGIEnvironment, start_response: StartResponse | None) -> Steps[None]:
    """Return the machine that opens a connection of the client protocol."""
    opening = Opening(environ, start_response)
    try:
        if offers_protocol(opening):
            opening.speaks = CLIENT_PROTOCOL
        elif PROTOBUF in opening.offered:
            raise HandshakeError(400, 'Only the JSON form of the protocol is spoken here.')
        request = make_request(environ)
        visitor, user = yield from visit(opening, request)
        if user is not None:
            opening.count_user(user)
        open_connection(opening, visitor, tuple(conf.WS4REDIS_CLIENT_CHANNELS))
        opening.check_still_due()
        opening.complete()
    except BaseException:
        opening.abandon()
        raise


def visit(opening: Opening, request: WSGIRequest) -> Steps[tuple[Visitor, str | None]]:
    """Return who opens a connection, and the user for whom it counts, if it does."""
    endings = opening.hub.endings
    control = None if endings is None else endings.control
    if control is not None and not control.is_current and ticket_in(request):
        # A process that has just begun takes no ticket before it knows what has ended; and all
        # that come back at once had better not be looked up.
        seconds = min(CONTROL_SECONDS, opening.seconds_left)
        yield Until(opening.hub.loop, control.when_current, seconds)
    visitor = visitor_by_ticket(request, control)
    if visitor is not None:
        counts = conf.WS4REDIS_MAX_CONNECTIONS_PER_USER is not None
        return visitor, visitor.identity.user if counts else None
    if claims_nothing(request):
        return visitor_of(request), None
    return (yield from opening.admit(_visitor_and_user, request))


def _visitor_and_user(request: WSGIRequest) -> tuple[Visitor, str | None]:
    return visitor_of(request), user_to_count(request)


def open_connection(
    opening: Opening,
    visitor: Visitor,
    names: tuple[str, ...] = (),
    *,
    joins: tuple[str, ...] = (),
    is_classic: bool = False,
    echo: bool = True,
    since: str | None = None,
) -> ClientWebSocket:
    """Make the connection and its websocket, which has no socket yet.

    The server subscribes it to channels: ``names`` are as clients give them, ``joins`` full ones.
    """
    service = service_of(opening.hub)
    connection = ClientConnection(
        service, visitor, names, joins=joins, is_classic=is_classic, since=since
    )

    def wire_over(base: WireFormat) -> WireFormat:
        return client_wire(base, service.options.prefix, as_text=is_classic)

    websocket = opening.make_websocket(
        connection, echo=echo, websocket_class=ClientWebSocket, wire_over=wire_over
    )
    assert isinstance(websocket, ClientWebSocket)
    opening.identify(visitor.identity)
    opening.hub.loop.call_soon(connection.begin, websocket)
    return websocket
