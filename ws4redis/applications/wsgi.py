"""The WSGI application that answers handshakes and hands websockets over to the loop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.core.handlers.wsgi import WSGIRequest, get_path_info
from django.core.wsgi import get_wsgi_application

from ws4redis.applications.client_streams import stream_steps
from ws4redis.applications.clients import (
    Endpoint,
    client_steps,
    endpoint_of,
    offers_protocol,
    open_connection,
)
from ws4redis.applications.former_hooks import RefusesFormerHooks, refuse_other_redis
from ws4redis.broker.channels import is_websocket_path
from ws4redis.broker.tokens import Since, encode_positions
from ws4redis.conf import conf
from ws4redis.exceptions import HandoverNotSupported, HandshakeError
from ws4redis.handlers.server import HandlerServer
from ws4redis.handshake.blocking import with_database
from ws4redis.handshake.clients import record_of
from ws4redis.handshake.machine import Steps, Until, run_waiting
from ws4redis.handshake.policy import Admission, admit, asks_only_who, may_block
from ws4redis.handshake.strangers import key_of, strangers
from ws4redis.handshake.subscriber import (
    RedisSubscriber,
    Subscription,
    publishers_of,
    release,
)
from ws4redis.handshake.subscriber_bridge import SubscriberBridge, needs_bridge
from ws4redis.hub.clients.project import Visitor
from ws4redis.hub.hub import Hub, PublishingReceiver
from ws4redis.hub.joining import Answer, Joining
from ws4redis.hub.websocket import WebSocket
from ws4redis.protocol.handshake import CLIENT_PROTOCOL
from ws4redis.servers.bodies import TEXT, Response
from ws4redis.servers.opening import Opening, make_request
from ws4redis.servers.process import existing_hub

if TYPE_CHECKING:
    import redis
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger('ws4redis')

# How long a handshake waits for Redis to confirm its subscriptions. When Redis takes longer, the
# websocket opens all the same, and joins its channels when Redis answers.
JOIN_SECONDS = 2.0


class WebSocketServer(RefusesFormerHooks):
    """Answer the handshakes under ``WEBSOCKET_URL`` and those of handlers.

    ``handlers`` serves the paths of handlers; by default those of the settings.
    ``takes_any_path`` tells that whatever comes here is a websocket, also if a proxy has taken
    ``WEBSOCKET_URL`` away from its path.
    ``redis_connection`` is what servers of 0.6 were given: it may be left out, and has to lead
    where ``WS4REDIS_CONNECTION`` does. Raise ``ImproperlyConfigured`` where it does not, and for a
    subclass with a method that 0.6 called, and nothing calls now.
    """

    takes_any_path = False

    def __init__(
        self, redis_connection: redis.Redis | None = None, *, handlers: HandlerServer | None = None
    ) -> None:
        super().__init__()
        if redis_connection is not None:
            refuse_other_redis(redis_connection)
        self._receiver: PublishingReceiver | None = None
        self.handlers = HandlerServer() if handlers is None else handlers

    def serves(self, environ: WSGIEnvironment) -> bool:
        """Tell whether a request is for this application, rather than for Django."""
        path = get_path_info(environ)
        return (
            is_websocket_path(path, conf.WEBSOCKET_URL)
            or endpoint_of(path) is not None
            or self.handlers.serves(path)
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            response = run_waiting(self.steps(environ, start_response))
        except BaseException as exc:  # noqa: BLE001 (what is no answer is raised again)
            return refuse(start_response, error_of(exc, environ.get('PATH_INFO', '')))
        return [] if response is None else respond(start_response, response)

    def steps(
        self, environ: WSGIEnvironment, start_response: StartResponse | None
    ) -> Steps[Response | None]:
        """Return the machine that answers a handshake, or another request of a client.

        It hands the socket over, or returns the answer, or raises what :func:`error_of` turns into
        the answer.
        """
        path = get_path_info(environ)
        endpoint = endpoint_of(path)
        if endpoint is Endpoint.WEBSOCKET:
            yield from client_steps(environ, start_response)
            return None
        if endpoint is not None:
            return (yield from stream_steps(environ, start_response, endpoint))
        # Handlers first: under WEBSOCKET_URL, where any path is a facility, proxies need no change.
        is_facility = self.takes_any_path or is_websocket_path(path, conf.WEBSOCKET_URL)
        if self.handlers.serves(path) or not is_facility:
            yield from self.handlers.steps(environ, start_response)
            return None
        environ = _under_websocket_url(environ)
        # Received
        opening = Opening(environ, start_response, streams=True)
        admission: Admission | None = None
        try:
            admission, request = yield from self._admit(opening, environ)
            if admission.user is not None:
                opening.count_user(admission.user)
            # Admitted
            if request is not None and _speaks_protocol(opening, admission):
                _connect_client(opening, admission, request)
            else:
                yield from self._connect(opening, admission)
            # Joined
            opening.check_still_due()
            opening.complete()
            # Answered
            if opening.websocket is not None and opening.websocket.companion is not None:
                opening.websocket.companion.opened()
        except BaseException:
            if admission is not None and opening.websocket is None and not admission.is_shared:
                # With a websocket the subscriber would be released at its end.
                workers = opening.hub.loop.driver.workers
                workers.submit(with_database, release, admission.subscriber)
            opening.abandon()
            raise
        return None

    def _admit(
        self, opening: Opening, environ: WSGIEnvironment
    ) -> Steps[tuple[Admission, WSGIRequest | None]]:
        """Return what is granted, and the request unless that was known without it."""
        key = key_of(environ)
        known = strangers.find(key)
        if known is not None and not offers_protocol(opening):
            return known, None
        request = make_request(environ)
        if may_block(request):
            at_once = asks_only_who(request)
            steps = opening.admit(admit, request, too_late=_release, at_once=at_once)
            return (yield from steps), request
        admission = admit(request)
        strangers.remember(key, admission)
        return admission, request

    def _connect(self, opening: Opening, admission: Admission) -> Steps[None]:
        """Make the websocket and let it join its channels."""
        subscriber = admission.subscriber
        bridge = SubscriberBridge(opening.hub, subscriber) if needs_bridge(subscriber) else None
        hub = opening.hub
        receiver = bridge or self._shared_receiver(hub)
        websocket: WebSocket
        if opening.is_stream:
            websocket = opening.make_stream(receiver, _names_so_far(subscriber), companion=bridge)
        else:
            websocket = opening.make_websocket(
                receiver,
                echo=admission.echo,
                heartbeats=admission.heartbeats,
                publishes=publishers_of(subscriber),
                companion=bridge,
            )
        opening.identify(admission.identity)
        if bridge is not None:
            bridge.begin(websocket)
            yield from opening.run(bridge.take_descriptor)
            if bridge.sends_persisted_messages:
                hub.loop.call_soon(websocket.hold)
        reads_itself = bridge is not None and bridge.brings_descriptor
        names = _names_of(subscriber, reads_itself=reads_itself)
        if type(subscriber) is not RedisSubscriber:
            # Before it sends anything: it may add channels while it does.
            _follow_changes(hub, websocket, subscriber)
        since = opening.since
        seconds = min(JOIN_SECONDS, opening.seconds_left)
        answer = yield from join(hub, websocket, names, seconds, since)
        if since is not None and not opening.is_stream:
            opening.answer_headers += _position_headers(answer)
        if bridge is not None:
            yield from opening.run(bridge.prepare, websocket)

    def _shared_receiver(self, hub: Hub) -> PublishingReceiver:
        if self._receiver is None or self._receiver.hub is not hub:
            self._receiver = PublishingReceiver(hub)
        return self._receiver


def _speaks_protocol(opening: Opening, admission: Admission) -> bool:
    return (
        not opening.is_stream
        and offers_protocol(opening)
        and type(admission.subscriber) is RedisSubscriber
    )


def _connect_client(opening: Opening, admission: Admission, request: WSGIRequest) -> None:
    """Make a websocket that speaks the client protocol, on the channels that its URL names."""
    opening.speaks = CLIENT_PROTOCOL
    subscriber, since = admission.subscriber, opening.since
    open_connection(
        opening,
        Visitor(admission.identity, record_of(request), publishers_of(subscriber)),
        joins=tuple(_names_of(subscriber, reads_itself=False)),
        is_classic=True,
        echo=admission.echo,
        since=None if since is None else since.text,
    )


def _under_websocket_url(environ: WSGIEnvironment) -> WSGIEnvironment:
    """Return the environment of a request with ``WEBSOCKET_URL`` before its path.

    So callbacks, which may decide by the path, see the one that the client asked for.
    """
    if is_websocket_path(get_path_info(environ), conf.WEBSOCKET_URL):
        return environ
    # As WSGI spells bytes.
    prefix = conf.WEBSOCKET_URL.rstrip('/').encode().decode('latin-1') + '/'
    path = environ.get('PATH_INFO', '').lstrip('/')
    return {**environ, 'PATH_INFO': prefix if f'/{path}/' == prefix else prefix + path}


def _release(admission: Admission) -> None:
    release(admission.subscriber)


def join(
    hub: Hub, websocket: WebSocket, names: list[str], seconds: float, since: Since | None = None
) -> Steps[Answer]:
    """Let a websocket join channels, and wait until Redis has confirmed; return what to answer.

    What is published from then on reaches it. Raise ``HandshakeError`` 503 when Redis refuses one
    of the channels: a websocket that hears nothing had better not open.
    """
    if not names:
        return Answer({}, {})
    refused: list[bool] = []
    joining = Joining(websocket, since, refused=lambda: refused.append(True))

    def begin(joined: Callable[[], object]) -> None:
        joining.begin(joined)
        hub.join_all(websocket, names, joining)

    yield Until(hub.loop, begin, seconds)
    if refused:
        raise HandshakeError(503, 'Redis refuses a channel.', {'Retry-After': '5'})
    return joining.answer(names)


def _position_headers(answer: Answer) -> list[tuple[str, str]]:
    headers = []
    if answer.positions:
        headers.append(('WS4Redis-Position', encode_positions(answer.positions)))
    if answer.gaps:
        headers.append(('WS4Redis-Gap', ', '.join(sorted(set(answer.gaps.values())))))
    return headers


def _names_so_far(subscriber: RedisSubscriber) -> list[str]:
    """Return the channels that a subscriber has subscribed to, without asking it."""
    subscription = getattr(subscriber, '_subscription', None)
    return subscription.names if isinstance(subscription, Subscription) else []


def _names_of(subscriber: RedisSubscriber, *, reads_itself: bool) -> list[str]:
    """Return the channels that the loop is to subscribe to for a subscriber.

    ``reads_itself`` tells whether the subscriber's class reads a descriptor that it brings.
    """
    subscription = getattr(subscriber, '_subscription', None)
    if isinstance(subscription, Subscription):
        return [] if subscription.has_own_connection else subscription.names
    # The subclass has put a PubSub of redis-py in its place.
    return [] if reads_itself or subscription is None else _take_over(subscriber, subscription)


def _take_over(subscriber: RedisSubscriber, pubsub: Any) -> list[str]:
    """Let the loop subscribe to what a subscriber's own PubSub does, and return the channels."""
    subscription = subscriber._subscription = Subscription(lambda: subscriber._connection)
    subscription.subscribe(*pubsub.channels)
    pubsub.close()
    return subscription.names


def _follow_changes(hub: Hub, websocket: WebSocket, subscriber: RedisSubscriber) -> None:
    """Let the websocket join and leave as its subscriber does while it is open."""

    def follow(added: list[str], removed: list[str]) -> None:
        if added:
            hub.loop.call_soon(hub.join_all, websocket, added, Joining(websocket))
        if removed:
            hub.loop.call_soon(hub.leave, websocket, removed)

    subscription = getattr(subscriber, '_subscription', None)
    if isinstance(subscription, Subscription):
        subscription.follow(follow)


class CombinedServer:
    """A WSGI application with both loops.

    It gives websockets to ``websockets``, everything else to ``django``, Django's own application,
    which by default is made at the first request.
    """

    def __init__(
        self, django: WSGIApplication | None = None, *, websockets: WebSocketServer | None = None
    ) -> None:
        self._django = django
        self._websockets = WebSocketServer() if websockets is None else websockets

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._websockets.serves(environ):
            return self._websockets(environ, start_response)
        if self._django is None:
            self._django = get_wsgi_application()
        return self._django(environ, start_response)


def error_of(exc: BaseException, path: str) -> HandshakeError:
    """Return the answer to a handshake that ended with an exception, which is logged if need be.

    What ends the process or the greenlet is raised again.
    """
    if isinstance(exc, HandshakeError):
        return exc
    if isinstance(exc, HandoverNotSupported):
        logger.error('%s', exc)
        return HandshakeError(501, str(exc))
    # Some code ends what it takes for its own process, which here is a handshake's.
    if not isinstance(exc, Exception | SystemExit):
        raise exc
    logger.error('a handshake failed: %s', path, exc_info=exc)
    return HandshakeError(500, 'Internal server error.')


def count_refusal(status: int) -> None:
    """Count a handshake that was answered with an error."""
    hub = existing_hub()
    if hub is not None:
        hub.loop.call_soon(hub.count_refused_handshake, status)


def refuse(start_response: StartResponse, error: HandshakeError) -> Iterable[bytes]:
    """Answer a handshake with an error."""
    count_refusal(error.status)
    return respond(start_response, response_of(error))


def response_of(error: HandshakeError) -> Response:
    return Response(error.status, [TEXT, *error.headers.items()], f'{error.body}\n'.encode())


def respond(start_response: StartResponse, response: Response) -> Iterable[bytes]:
    headers = [*response.headers, ('Content-Length', str(len(response.body)))]
    start_response(f'{response.status} {HTTPStatus(response.status).phrase}', headers)
    return [response.body]
