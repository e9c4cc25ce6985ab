"""Middleware that gives every request its websocket, and refuses websockets that no view wants."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache, wraps
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction

from ws4redis.conf import conf
from ws4redis.exceptions import HandshakeError
from ws4redis.views.server import View, prepare, refuse, serve, vary_by_upgrade

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase
    from django.urls import ResolverMatch


logger = logging.getLogger('ws4redis')


class WebSocketMiddleware:
    """Give every request ``is_websocket()`` and ``websocket``, which is ``None`` for plain HTTP.

    A websocket to a view that does not accept it gets 400. A view accepts by the decorators of
    :mod:`ws4redis.views.decorators`, or by its attribute ``accept_websocket = True``, or by
    ``WEBSOCKET_ACCEPT_ALL``. Its place among the other middleware does not matter, except that
    ``UpdateCacheMiddleware`` has to come before it.
    """

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        prepare(request)
        if request.is_websocket():  # type: ignore[attr-defined]
            # A hack, since Django has no hook that wraps the call of a view: process_view() comes
            # before that of other middleware (such as LoginRequiredMiddleware), and a view that
            # returns nothing, as many with websockets do, is an error to Django.
            request.__class__ = _resolving(type(request))  # type: ignore[arg-type]
            return self.get_response(request)
        response = self.get_response(request)
        # Pages from the cache never reached their view, and already have their Vary header.
        match = request.resolver_match
        return vary_by_upgrade(response) if match and _accepts(match.func) else response


@cache
def _resolving(request_class: type[HttpRequest]) -> type[HttpRequest]:
    """Return a class of requests that changes the view as soon as it is known."""

    class Resolving(request_class):  # type: ignore[misc,valid-type]
        @property
        def resolver_match(self) -> ResolverMatch | None:
            match: ResolverMatch | None = self.__dict__.get('resolver_match')
            return match

        @resolver_match.setter
        def resolver_match(self, match: ResolverMatch | None) -> None:
            if match is not None:
                match.func = _accepting(match.func)
            self.__dict__['resolver_match'] = match

    Resolving.__name__ = request_class.__name__
    return Resolving


def _accepting(view: View) -> View:
    """Return a view that runs another one with its websocket, or refuses the handshake."""
    if iscoroutinefunction(view):
        if _accepts(view):
            logger.error('%r is to accept websockets, but is asynchronous, which cannot be', view)

        # It cannot use a websocket, which blocks. Django awaits views marked as coroutines.
        @wraps(view)
        async def resolved_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            return _refusal()

    elif _accepts(view):

        @wraps(view)
        def resolved_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            return serve(request, view, args, kwargs)

    else:

        @wraps(view)
        def resolved_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            return _refusal()

    return resolved_view


def _accepts(view: View) -> bool:
    return conf.WEBSOCKET_ACCEPT_ALL or accepts_websocket(view)


def _refusal() -> HttpResponseBase:
    return refuse(HandshakeError(400, 'There is no websocket at this address.'))


def accepts_websocket(view: View) -> bool:
    """Tell whether a view says that it accepts websockets.

    A class-based view may say it by an attribute of the class, or of its method ``get``, since
    every handshake is a GET request.
    """
    view_class = getattr(view, 'view_class', None)
    candidates = (view, view_class, getattr(view_class, 'get', None))
    return any(getattr(candidate, 'accept_websocket', False) for candidate in candidates)
