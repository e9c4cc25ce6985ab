"""Decorators for views that accept websockets."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, cast

from ws4redis.exceptions import HandshakeError
from ws4redis.views.server import prepare, refuse, serve

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

P = ParamSpec('P')


def accept_websocket(
    view: Callable[P, HttpResponseBase | None],
) -> Callable[P, HttpResponseBase]:
    """Let a view accept websockets as well as plain HTTP requests.

    In the view, ``request.is_websocket()`` tells which it is, and ``request.websocket`` is the
    websocket, ``None`` for plain HTTP. For a websocket the view need not return anything. With
    Django's ``method_decorator`` it fits ``dispatch`` or ``get`` of class-based views. Raise
    ``TypeError`` for an asynchronous view.
    """

    @wraps(view)
    def accepting_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        prepare(request)
        return serve(request, view, args, kwargs)

    return _mark(view, accepting_view)


def require_websocket(
    view: Callable[P, HttpResponseBase | None],
) -> Callable[P, HttpResponseBase]:
    """Let a view accept websockets only; plain HTTP requests get 400."""

    @wraps(view)
    def requiring_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        prepare(request)
        if not request.is_websocket():  # type: ignore[attr-defined]
            return refuse(HandshakeError(400, 'The client must upgrade to a websocket.'))
        return serve(request, view, args, kwargs)

    requiring_view.require_websocket = True  # type: ignore[attr-defined]
    return _mark(view, requiring_view)


def _mark(
    view: Callable[P, HttpResponseBase | None], decorated: Callable[..., Any]
) -> Callable[P, HttpResponseBase]:
    if inspect.iscoroutinefunction(view):
        raise TypeError(f'{view!r} is asynchronous; views with websockets have to be synchronous.')
    decorated.accept_websocket = True  # type: ignore[attr-defined]
    return cast('Callable[P, HttpResponseBase]', decorated)
