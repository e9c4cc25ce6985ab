"""Run views with websockets: from the handshake, past the view, to the response.

A handshake is an ordinary request until the view uses its websocket. Only then the answer 101 is
sent. So middleware, decorators and the view itself may refuse it as any other request, by a
redirect, say. Afterwards the client cannot see any HTTP response; what goes up through the
middleware is a :class:`SwitchedProtocols`, which the server sends nowhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import connections
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import patch_vary_headers

from ws4redis.exceptions import ConnectionClosed, HandoverNotSupported, HandshakeError
from ws4redis.handshake.identity import identity_to_keep
from ws4redis.handshake.policy import refuse_foreign_origin, user_to_count
from ws4redis.protocol.frames import CloseCode
from ws4redis.servers.opening import Opening
from ws4redis.servers.process import existing_hub
from ws4redis.views.websocket import ViewWebSocket

if TYPE_CHECKING:
    from django.http import HttpRequest

logger = logging.getLogger('ws4redis')

View = Callable[..., Any]
Response = TypeVar('Response')


class SwitchedProtocols(HttpResponse):
    """Stand for a websocket that was open, on the way up through the middleware."""

    status_code = 101


def prepare(request: HttpRequest) -> None:
    """Give a request ``is_websocket()`` and ``websocket``, unless it has them."""
    if not hasattr(request, 'is_websocket'):
        is_websocket = is_handshake(request)
        request.is_websocket = lambda: is_websocket  # type: ignore[attr-defined]
        request.websocket = (  # type: ignore[attr-defined]
            ViewWebSocket() if is_websocket else None
        )


def vary_by_upgrade(response: Response) -> Response:
    """Tell caches that at this address websockets get another answer than plain HTTP."""
    if isinstance(response, HttpResponseBase):
        patch_vary_headers(response, ['Upgrade'])
    return response


def is_handshake(request: HttpRequest) -> bool:
    """Tell whether a request wants to become a websocket, well formed or not."""
    offered = request.META.get('HTTP_UPGRADE', '').lower().split(',')
    return 'websocket' in (token.strip() for token in offered)


def refuse(error: HandshakeError) -> HttpResponse:
    """Return the response that refuses a handshake."""
    hub = existing_hub()
    if hub is not None:
        hub.loop.call_soon(hub.count_refused_handshake, error.status)
    return HttpResponse(
        f'{error.body}\n',
        status=error.status,
        headers=error.headers,
        content_type='text/plain; charset=utf-8',
    )


def serve(
    request: HttpRequest, view: View, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> HttpResponseBase:
    """Run a view that accepts websockets for a request that :func:`prepare` has prepared.

    When the view returns, the websocket is closed with 1000; when it raises, with 1011, and Django
    treats the exception as that of any view. A view ends quietly by the ``ConnectionClosed`` that
    it gets for sending to a client that has left.
    """
    websocket: ViewWebSocket | None = request.websocket  # type: ignore[attr-defined]
    if websocket is None:
        page: HttpResponseBase = view(request, *args, **kwargs)
        return vary_by_upgrade(page)
    if websocket.is_admitted:
        # An outer decorator or the middleware already handles the websocket. What lies in between
        # may need a response.
        returned: HttpResponseBase | None = view(request, *args, **kwargs)
        return SwitchedProtocols() if returned is None else returned
    try:
        _admit(request, websocket)
    except HandshakeError as error:
        return refuse(error)
    try:
        response = _run(request, websocket, view, args, kwargs)
    finally:
        websocket.abandon()
    return refuse(websocket.refusal) if websocket.refusal is not None else response


def _admit(request: HttpRequest, websocket: ViewWebSocket) -> None:
    """Apply the policy to a handshake; raise ``HandshakeError`` to refuse it."""
    refuse_foreign_origin(request)
    opening = _open(request)
    try:
        user = user_to_count(request)
        if user is not None:
            opening.count_user(user)
        opening.identify_by(partial(identity_to_keep, request))
        websocket.admit(opening)
    except BaseException:
        opening.abandon()
        raise


def _open(request: HttpRequest) -> Opening:
    try:
        # A request that came by ASGI has no environ.
        environ = getattr(request, 'environ', None)
        if environ is None:
            raise HandoverNotSupported(
                'Websockets in views need WSGI, and this server speaks ASGI. '
                'Use uWSGI, manage.py run_wsserver or manage.py runserver.'
            )
        return Opening(environ, None)
    except HandoverNotSupported as exc:
        logger.error('%s', exc)
        raise HandshakeError(501, str(exc)) from None
    except HandshakeError as error:
        # Where views are concerned, a version that is not supported is a bad request.
        status = 400 if error.status == 426 else error.status
        raise HandshakeError(status, error.body, error.headers) from None


def _run(
    request: HttpRequest,
    websocket: ViewWebSocket,
    view: View,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> HttpResponseBase:
    try:
        response: HttpResponseBase | None = view(request, *args, **kwargs)
        if response is not None and not websocket.is_accepted and response.status_code >= 300:
            return response
        websocket.close(CloseCode.NORMAL_CLOSURE)
    except HandshakeError as error:
        if error is not websocket.refusal:
            raise
    except ConnectionClosed as exc:
        if not websocket.raised(exc):
            _fail(websocket)
            raise
        logger.debug('a view has ended, since its client has left: %s', request.path)
        _roll_back()
    except BaseException:
        _fail(websocket)
        raise
    return SwitchedProtocols()


def _fail(websocket: ViewWebSocket) -> None:
    if websocket.is_accepted and websocket.refusal is None:
        websocket.close(CloseCode.INTERNAL_ERROR)


def _roll_back() -> None:
    """Undo what a view that was cut short has done in the transaction of its request."""
    for connection in connections.all(initialized_only=True):
        if connection.settings_dict['ATOMIC_REQUESTS'] and connection.in_atomic_block:
            connection.set_rollback(True)
