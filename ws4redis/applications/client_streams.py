"""The client protocol where websockets are blocked: its streams, and what their clients say."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from ws4redis.applications.clients import Endpoint, service_of, visit
from ws4redis.conf import conf
from ws4redis.exceptions import HandshakeError
from ws4redis.handshake.machine import Steps, Until
from ws4redis.handshake.policy import verify_origin
from ws4redis.hub.clients.connection import ClientConnection
from ws4redis.hub.clients.sessions import REDIS_SECONDS, Fate
from ws4redis.hub.clients.stream import ClientStream
from ws4redis.protocol.client.streams import (
    HTTP_STREAM,
    MAX_BODY_BYTES,
    SSE,
    EmulatedFrame,
    StreamKind,
    check_opening,
    decode_emulated,
)
from ws4redis.protocol.event_stream import MEDIA_TYPE, cors_headers
from ws4redis.protocol.frames import Opcode
from ws4redis.servers.bodies import Response, read_body
from ws4redis.servers.opening import Opening, make_request
from ws4redis.servers.process import get_hub

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_PREFLIGHT_SECONDS: Final = 600
_AGAIN: Final = {'Retry-After': '1'}

_KINDS: Final = {Endpoint.SSE: SSE, Endpoint.HTTP_STREAM: HTTP_STREAM}
_REFUSALS: Final = {
    Fate.NOBODY: (404, 'There is no such stream: connect again.'),
    Fate.TOO_MUCH: (429, 'The client sends more than it may.'),
    Fate.TOO_LARGE: (413, 'What the client says is larger than WS4REDIS_MAX_MESSAGE_SIZE.'),
    Fate.AWAY: (503, 'Redis cannot be reached.'),
}


def stream_steps(
    environ: WSGIEnvironment, start_response: StartResponse | None, endpoint: Endpoint
) -> Steps[Response | None]:
    """Return the machine that answers a request at an endpoint of streams or of emulation."""
    kind = _KINDS.get(endpoint)
    method = environ['REQUEST_METHOD']
    expected = 'POST' if kind is None else kind.method
    if method == 'OPTIONS':
        return _preflight(environ, expected)
    if method != expected:
        raise HandshakeError(405, f'Use {expected} here.', {'Allow': f'{expected}, OPTIONS'})
    if kind is None:
        response: Response = yield from _emulate(environ)
        return response
    yield from _open(environ, start_response, kind)
    return None


def _preflight(environ: WSGIEnvironment, method: str) -> Response:
    """Answer what a browser asks before a page of another site may ask anything."""
    verify_origin(make_request(environ))
    headers = [
        *cors_headers(environ.get('HTTP_ORIGIN')),
        # Clients may ask by OPTIONS themselves whether a server is there, and browsers ask before.
        ('Access-Control-Allow-Methods', f'{method}, OPTIONS'),
        ('Access-Control-Allow-Headers', 'Content-Type'),
        ('Access-Control-Max-Age', str(_PREFLIGHT_SECONDS)),
    ]
    return Response(200, headers, b'')


# Streams


def _open(
    environ: WSGIEnvironment, start_response: StartResponse | None, kind: StreamKind
) -> Steps[None]:
    request = make_request(environ)
    if kind is SSE:
        _check_accepts(environ.get('HTTP_ACCEPT', ''))
        commands = request.GET.get('cf_connect', '').encode(errors='replace')
    else:
        _check_json(environ)
        commands = read_body(environ, MAX_BODY_BYTES)
    opening = Opening(environ, start_response, media_type=kind.media_type)
    try:
        service = service_of(opening.hub)
        check_opening(commands, service.options.limits)
        visitor, user = yield from visit(opening, request)
        if user is not None:
            opening.count_user(user)
        # Else another process, which may get the client's next request, could not pass it on.
        seconds = min(REDIS_SECONDS, opening.seconds_left)
        yield Until(opening.hub.loop, service.sessions.listen, seconds)
        connection = ClientConnection(service, visitor, tuple(conf.WS4REDIS_CLIENT_CHANNELS))
        stream = opening.make_client_stream(partial(ClientStream, connection, kind))
        opening.identify(visitor.identity)
        loop = opening.hub.loop
        loop.call_soon(_begin, connection, stream)
        opening.check_still_due()
        opening.complete()
        loop.call_soon(connection.receive_message, stream, Opcode.TEXT, commands)
    except BaseException:
        opening.abandon()
        raise


def _begin(connection: ClientConnection, stream: ClientStream) -> None:
    connection.session = connection.service.sessions.add(connection)
    connection.begin(stream)


def _check_accepts(accept: str) -> None:
    # So does EventSource; a link or a picture of another page, which browsers follow with the
    # user's cookies, does not.
    if MEDIA_TYPE not in accept:
        raise HandshakeError(
            406, f'This is the address of an event stream: the client must accept {MEDIA_TYPE}.'
        )


def _check_json(environ: WSGIEnvironment) -> None:
    # A form of another page cannot send it.
    if environ.get('CONTENT_TYPE', '').partition(';')[0].strip().lower() != 'application/json':
        raise HandshakeError(
            415, 'Only the JSON form of the protocol is spoken here: application/json.'
        )


# What clients say


def _emulate(environ: WSGIEnvironment) -> Steps[Response]:
    request = make_request(environ)
    verify_origin(request)
    _check_json(environ)
    frame = decode_emulated(read_body(environ, MAX_BODY_BYTES))
    hub = get_hub()
    fates: list[Fate] = []
    take = partial(_take, service_of(hub).sessions.take, frame, fates)
    yield Until(hub.loop, take, REDIS_SECONDS)
    fate = fates[0] if fates else Fate.AWAY
    if fate is Fate.TAKEN:
        return Response(200, cors_headers(environ.get('HTTP_ORIGIN')), b'')
    status, body = _REFUSALS[fate]
    raise HandshakeError(status, body, _AGAIN if status in (429, 503) else None)


def _take(
    take: Callable[[EmulatedFrame, Callable[[Fate], object]], object],
    frame: EmulatedFrame,
    fates: list[Fate],
    done: Callable[[], object],
) -> None:
    def told(fate: Fate) -> None:
        fates.append(fate)
        done()

    take(frame, told)
