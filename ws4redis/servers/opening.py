"""What the opening of every websocket has in common, whoever receives its messages."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest, get_path_info

from ws4redis.broker.history import Position
from ws4redis.broker.outgoing import options_of_channel
from ws4redis.broker.tokens import Since, since_of
from ws4redis.conf import conf
from ws4redis.exceptions import HandshakeError
from ws4redis.handshake.admissions import admissions
from ws4redis.handshake.connection_limits import Place, connection_limits
from ws4redis.handshake.machine import Call, Steps
from ws4redis.handshake.session_reader import Admitted, ReadSession
from ws4redis.handshake.sessions import READ_SESSION, Read, can_read_many
from ws4redis.hub.event_stream import EventStream, OwnStreamWire, shared_wire
from ws4redis.hub.identity import ANONYMOUS, Identity
from ws4redis.hub.websocket import Receiver, WebSocket
from ws4redis.loop.blocking_call import Pool, TookTooLong
from ws4redis.protocol.connection import ServerConnection
from ws4redis.protocol.event_stream import MEDIA_TYPE, wants_event_stream
from ws4redis.protocol.event_stream import response_headers as stream_headers
from ws4redis.protocol.extensions import Compression, negotiate
from ws4redis.protocol.frames import CloseCode
from ws4redis.protocol.handshake import (
    CLIENT_PROTOCOL,
    check_headers,
    check_upgrade,
    choose_subprotocol,
    response_headers,
)
from ws4redis.protocol.wire import PLAIN, WireFormat
from ws4redis.servers.handover import (
    SERVER_HEADER,
    STATUS,
    check_supported,
    server_of,
    take_socket,
)
from ws4redis.servers.native.environ import CONNECTION
from ws4redis.servers.process import get_hub, session_reader

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from django.http import HttpRequest

T = TypeVar('T')
S = TypeVar('S', bound=WebSocket)

logger = logging.getLogger('ws4redis')

STREAM_STATUS = '200 OK'
_NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}


def handshake_headers(environ: WSGIEnvironment) -> dict[str, str]:
    """Return the headers of a request by their names in lower case."""
    connection = environ.get(CONNECTION)
    if connection is not None:
        headers: dict[str, str] = connection.head.headers
        return headers
    return {
        name[5:].lower().replace('_', '-'): value
        for name, value in environ.items()
        if name.startswith('HTTP_')
    }


def make_request(environ: WSGIEnvironment) -> WSGIRequest:
    """Build Django's request; raise ``HandshakeError`` 400 if its path or headers are broken."""
    try:
        return WSGIRequest(environ)
    except (UnicodeError, ValueError):
        raise HandshakeError(400, 'Bad request.') from None


class Opening:
    """One handshake on its way to a websocket.

    Making it checks the request and takes a place among the limits; raises ``HandshakeError`` or
    ``HandoverNotSupported``. Then either :meth:`complete` or :meth:`abandon` has to be called.
    Inside a view there is no ``start_response``. With ``streams`` it may as well be a request for
    an event stream; with a ``media_type`` it is one for a stream of that.
    """

    def __init__(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse | None,
        *,
        streams: bool = False,
        media_type: str | None = None,
    ) -> None:
        self.headers = handshake_headers(environ)
        if streams and wants_event_stream(environ['REQUEST_METHOD'], self.headers):
            media_type = MEDIA_TYPE
        self._media_type = media_type
        if self.is_stream:
            check_headers(self.headers)
        else:
            check_upgrade(
                environ['REQUEST_METHOD'],
                self.headers,
                http_version=environ.get('SERVER_PROTOCOL', 'HTTP/1.1'),
            )
        check_supported(environ, start_response)
        self.hub = get_hub()
        if self.hub.is_draining:
            raise HandshakeError(503, 'The server is stopping.', {'Retry-After': '1'})
        self._began = monotonic()
        self._deadline = self._began + conf.WS4REDIS_HANDSHAKE_TIMEOUT
        self._environ = environ
        self._start_response = start_response
        # The websocket gives it back at its end, and abandon() if it comes to nothing.
        self._place: Place = connection_limits.take_place(environ)
        self._extensions: str | None = None
        # Those of the answer 101 beside the protocol's own.
        self.answer_headers: list[tuple[str, str]] = []
        # The subprotocol that is spoken whatever the settings say.
        self.speaks: str | None = None
        self.websocket: WebSocket | None = None
        self._identity_of: Callable[[], Identity] | None = None

    @property
    def is_stream(self) -> bool:
        return self._media_type is not None

    @property
    def seconds_left(self) -> float:
        """How many seconds the handshake may take yet, 0 if its time is over."""
        return max(0.0, self._deadline - monotonic())

    @property
    def since(self) -> Since | None:
        """What the client says that it has seen; a browser says it of an event stream by itself."""
        last_event = self.headers.get('last-event-id') if self.is_stream else None
        return Since(last_event) if last_event else since_of(self.query_string)

    @property
    def query_string(self) -> str:
        query: str = self._environ.get('QUERY_STRING', '')
        return query

    def run(
        self,
        function: Callable[..., T],
        *args: Any,
        too_late: Callable[[T], object] | None = None,
        pool: Pool = Pool.POLICY,
    ) -> Steps[T]:
        """Run code of the project, which may block and use the database, and return its result.

        Raise ``HandshakeError`` 503 when the time of the handshake is over; ``too_late`` then gets
        the result if there is one after all, and may block as well.
        """
        try:
            result: T = yield Call(
                self.hub.loop,
                function,
                *args,
                seconds=self.seconds_left,
                too_late=too_late,
                pool=pool,
            )
        except TookTooLong:
            raise self._too_slow() from None
        return result

    def admit(
        self,
        function: Callable[[Any], T],
        request: HttpRequest,
        *,
        too_late: Callable[[T], object] | None = None,
        at_once: bool = False,
    ) -> Steps[T]:
        """Run the policy of the project, as :meth:`run` does, in its turn.

        When many wait, their sessions and users are read together; with ``at_once`` the policy asks
        nothing else, so that it may run right there. Raise ``HandshakeError`` 503 when too many
        wait.
        """
        admissions.enter(self.seconds_left)
        try:
            reader = session_reader(self.hub)
            if reader.is_worth_it and can_read_many(request):
                key = request.COOKIES[settings.SESSION_COOKIE_NAME]

                def admit(read: Read) -> T:
                    setattr(request, READ_SESSION, read)
                    return function(request)

                step = ReadSession(
                    reader,
                    self.hub.loop,
                    key,
                    self.seconds_left,
                    admit=admit if at_once else None,
                    too_late=too_late,
                )
                try:
                    came = yield step
                except TookTooLong:
                    raise self._too_slow() from None
                if isinstance(came, Admitted):
                    admitted: T = came.result
                    return admitted
                setattr(request, READ_SESSION, came)
            return (yield from self.run(function, request, too_late=too_late))
        finally:
            admissions.leave()

    def _too_slow(self) -> HandshakeError:
        seconds = conf.WS4REDIS_HANDSHAKE_TIMEOUT
        path = get_path_info(self._environ)
        logger.warning('handshake refused: it took more than %g seconds: %s', seconds, path)
        return HandshakeError(503, 'The handshake took too long.', {'Retry-After': '5'})

    def check_still_due(self) -> None:
        """Raise ``HandshakeError`` 503 if it is too late for the answer 101."""
        if not self.seconds_left:
            raise self._too_slow()
        if self.hub.is_draining:
            raise HandshakeError(503, 'The server is stopping.', {'Retry-After': '1'})

    def count_user(self, username: str) -> None:
        """Count the websocket for a user; raise ``HandshakeError`` 429 if that is too many.

        May be called before and after :meth:`make_websocket`.
        """
        connection_limits.take_place_of_user(self._place, username)

    def identify(self, identity: Identity) -> None:
        """Say in whose name the websocket is open, so that it ends when that does."""
        if self.websocket is not None and identity is not ANONYMOUS:
            loop = self.hub.loop
            loop.call_soon(self.hub.identify, self.websocket, identity, self._began)

    def identify_by(self, identity_of: Callable[[], Identity]) -> None:
        """Say how to find out in whose name the websocket is open, once it is answered."""
        self._identity_of = identity_of

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the answer will name."""
        return self.speaks or choose_subprotocol(self.offered, conf.WS4REDIS_SUBPROTOCOLS)

    @property
    def offered(self) -> str:
        """The subprotocols that the client offers, as its header has them."""
        return self.headers.get('sec-websocket-protocol', '')

    def make_websocket(
        self,
        receiver: Receiver,
        *,
        echo: bool = False,
        heartbeats: bool = False,
        publishes: tuple[str, ...] = (),
        companion: Any = None,
        websocket_class: type[WebSocket] = WebSocket,
        wire_over: Callable[[WireFormat], WireFormat] = lambda wire: wire,
    ) -> WebSocket:
        """Negotiate the extensions and return the websocket, which has no socket yet.

        ``wire_over`` makes the wire format of that of the frames. Raise ``HandshakeError`` 400 for
        a malformed offer.
        """
        self._extensions, deflate = negotiate(
            self.headers.get('sec-websocket-extensions', ''),
            Compression.from_setting(conf.WS4REDIS_COMPRESSION),
        )
        self.websocket = websocket_class(
            self.hub,
            ServerConnection(self.hub.options.limits, deflate=deflate),
            wire_over(PLAIN if deflate is None else deflate.wire),
            receiver,
            echo=echo,
            heartbeats=heartbeats,
            publishes=publishes,
            companion=companion,
            place=self._place,
        )
        return self.websocket

    def make_stream(
        self, receiver: Receiver, names: list[str], *, companion: Any = None
    ) -> EventStream:
        """Return the event stream for some channels, which has no socket yet."""
        since = self.since
        seen: dict[str, Position] = {}
        with_history = [name for name in names if options_of_channel(name).has_history]
        for name in with_history:
            position = None if since is None else since.position_on(name)
            if position is not None:
                seen[name] = position
        # An event has to tell the positions on all channels, in case it is the last.
        wire = shared_wire() if len(with_history) <= 1 else OwnStreamWire(seen)
        self.websocket = stream = EventStream(
            self.hub,
            wire,
            receiver,
            heeds_gaps=since is not None,
            companion=companion,
            place=self._place,
        )
        return stream

    def make_client_stream(self, make: Callable[..., S]) -> S:
        """Return the stream that ``make`` makes, which has no socket yet."""
        self.websocket = stream = make(place=self._place)
        return stream

    def complete(self) -> None:
        """Answer with 101 (a stream: 200) and hand the socket over to the loop.

        When the client has gone the websocket is closed, and nothing is raised. Raise
        ``HandshakeError`` 503 when no descriptor is left.
        """
        websocket = self.websocket
        assert websocket is not None
        if self._identity_of is not None:
            self.identify(self._identity_of())
        if self._media_type is not None:
            # A page of another site that may read it was checked as that of any websocket.
            origin = self.headers.get('origin')
            server = (SERVER_HEADER, server_of(self._environ))
            answer = [server, *stream_headers(origin, media_type=self._media_type)]
            status = STREAM_STATUS
        else:
            answer, status = self._upgrade_headers() + self.answer_headers, STATUS
        try:
            sock = take_socket(self._environ, self._start_response, answer, status=status)
        except OSError as exc:
            if exc.errno in _NO_DESCRIPTOR:
                logger.error('no descriptor is left for another websocket')
                raise HandshakeError(
                    503, 'There are too many websockets.', {'Retry-After': '5'}
                ) from None
            logger.debug('the client left during its handshake: %s', exc)
            self.abandon()
            return
        self.hub.loop.call_soon(websocket.attach, sock)

    def _upgrade_headers(self) -> list[tuple[str, str]]:
        subprotocol = self.subprotocol
        offered = self.offered
        if offered not in ('', CLIENT_PROTOCOL) and subprotocol is None:
            logger.warning(
                'a client offers the subprotocols %.200r, of which WS4REDIS_SUBPROTOCOLS has none: '
                'browsers give up its websocket',
                offered,
            )
        return response_headers(
            self.headers['sec-websocket-key'],
            subprotocol=subprotocol,
            extensions=self._extensions,
        )

    def abandon(self) -> None:
        """Give back what was taken; the handshake is refused."""
        # At once, not with the websocket's end in the loop: who is refused may try again.
        connection_limits.give_back(self._place)
        if self.websocket is not None:
            self.hub.loop.call_soon(self.websocket.close, CloseCode.ABNORMAL_CLOSURE)
