"""Views with websockets, for the tests."""

from __future__ import annotations

import logging
import threading
from typing import Any, ClassVar

import django.http
from django.contrib.auth.mixins import LoginRequiredMixin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.urls import path
from django.utils.decorators import method_decorator
from django.views.decorators.cache import cache_page, never_cache
from django.views.generic import View

from ws4redis.decorators import accept_websocket, require_websocket
from ws4redis.publisher import RedisPublisher

# The stubs of Django know nothing of request.websocket.
HttpRequest = Any

logger = logging.getLogger(__name__)


@accept_websocket
def echo(request: HttpRequest) -> HttpResponse | None:
    """Send back what comes; plain HTTP gets a page."""
    if not request.is_websocket():
        return HttpResponse(f'no websocket: {request.websocket}')
    for message in request.websocket:
        request.websocket.send(message)
    return None


@require_websocket
def required(request: HttpRequest) -> None:
    """Greet; serve websockets alone."""
    request.websocket.send('welcome')


@method_decorator(accept_websocket, name='dispatch')
class Private(LoginRequiredMixin, View):
    """Tell who is logged in."""

    def get(self, request: HttpRequest) -> HttpResponse | None:
        if not request.is_websocket():
            return HttpResponse('a page')
        request.websocket.send(request.user.get_username())
        request.session['seen'] = True
        return None


class GetAlone(View):
    """Accept websockets in the method get alone."""

    @method_decorator(accept_websocket)
    def get(self, request: HttpRequest) -> None:
        request.websocket.send('got')


class ByAttribute(View):
    """Accept websockets by an attribute of the class; needs the middleware."""

    accept_websocket: ClassVar[bool] = True

    def get(self, request: HttpRequest) -> None:
        request.websocket.send('by attribute')


def by_attribute(request: HttpRequest) -> None:
    """Accept websockets by an attribute; needs the middleware."""
    for message in request.websocket:
        request.websocket.send(message)


by_attribute.accept_websocket = True  # type: ignore[attr-defined]


def plain(request: HttpRequest) -> HttpResponse:
    """Know nothing of websockets."""
    return HttpResponse('plain')


def page_or_echo(request: HttpRequest) -> HttpResponse:
    """Decide by what the middleware says."""
    if request.is_websocket():
        request.websocket.send('accepted')
    return HttpResponse(f'plain {request.websocket}')


@accept_websocket
def refuses(request: HttpRequest, how: str) -> HttpResponse:
    """Refuse before the handshake is answered."""
    if how == 'denied':
        raise PermissionDenied
    if how == 'missing':
        raise Http404
    if how == 'broken':
        raise RuntimeError('broken before the handshake')
    if how == 'response':
        return HttpResponse('not you', status=451)
    return HttpResponseRedirect('/elsewhere/')


@accept_websocket
def fails(request: HttpRequest) -> None:
    """Raise after the first message."""
    request.websocket.wait()
    raise RuntimeError('the view is broken')


@accept_websocket
def returns_page(request: HttpRequest) -> HttpResponse:
    """Never use the websocket."""
    return HttpResponse('a page')


@accept_websocket
def describes(request: HttpRequest) -> None:
    """Tell of each message what it is."""
    for message in request.websocket:
        request.websocket.send(f'{type(message).__name__} {len(message)}')


@accept_websocket
def json_sum(request: HttpRequest) -> None:
    """Add numbers."""
    for value in request.websocket.iter_json():
        request.websocket.send_json({'sum': sum(value)})


@accept_websocket
def times_out(request: HttpRequest) -> None:
    """Wait for a message in vain, then for one that comes."""
    assert request.websocket.wait(timeout=0.01) is None
    assert not request.websocket.is_closed()
    request.websocket.send('nothing came')
    message = request.websocket.wait(timeout=30)
    request.websocket.send(f'then {message}')


@accept_websocket
def polls(request: HttpRequest) -> None:
    """Read without blocking until something comes."""
    websocket = request.websocket
    assert websocket.read() is None
    assert websocket.read('fallback') == 'fallback'
    assert websocket.read(fallback=None) is None
    assert not websocket.has_messages()
    websocket.send('empty')
    first = websocket.wait()
    websocket.send(f'{first} {websocket.is_closed()}')


@accept_websocket
def looks(request: HttpRequest, how: str) -> None:
    """Look, without ever waiting, until something comes or the client has left."""
    websocket = request.websocket
    websocket.send('looking')
    if how == 'count':
        while not websocket.count_messages():
            pass
    elif how == 'has':
        while not websocket.has_messages():
            pass
    else:
        while not websocket.is_closed():
            pass
        return
    websocket.send(websocket.read())


@accept_websocket
def closes(request: HttpRequest) -> None:
    """Close with a code of its own; nothing works afterwards."""
    websocket = request.websocket
    websocket.send('last')
    websocket.close(4321, 'enough')
    assert websocket.is_closed()
    assert websocket.wait() is None
    assert websocket.close_code == 4321
    websocket.close()


@accept_websocket
def sends_no_messages(request: HttpRequest) -> None:
    """Try to send what is no message, and tell how that ended."""
    for value in (5, None, [1, 2]):
        try:
            request.websocket.send(value)
        except TypeError as exc:
            request.websocket.send(f'TypeError: {exc}')


class Asynchronous(View):
    """Answer asynchronously."""

    async def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse('asynchronous')


async def asynchronous(request: HttpRequest) -> HttpResponse:
    """Answer asynchronously."""
    return HttpResponse('asynchronous')


@accept_websocket
def closes_wrongly(request: HttpRequest) -> None:
    """Try to close with what cannot be sent, and tell how that ended."""
    for arguments in ((1000.0,), ('1000',), (1000, 5)):
        try:
            request.websocket.close(*arguments)
        except (TypeError, ValueError) as exc:
            request.websocket.send(type(exc).__name__)


#: What views that have ended found, for tests that share the process with them.
endings: list[tuple[Any, ...]] = []
ended = threading.Event()


@accept_websocket
def reports_end(request: HttpRequest) -> None:
    """Wait until the client has left, and report how."""
    websocket = request.websocket
    websocket.send('open')
    message = websocket.wait()
    endings.append((message, websocket.is_closed(), websocket.close_code, websocket.close_reason))
    ended.set()


@accept_websocket
def floods(request: HttpRequest) -> None:
    """Send to a client that does not read."""
    websocket = request.websocket
    websocket.send_timeout = 0.5
    count = 0
    try:
        while True:
            websocket.send(b'x' * 65536)
            count += 1
    finally:
        endings.append((count, websocket.close_code, websocket.close_reason))
        ended.set()


@accept_websocket
def count_endings(request: HttpRequest) -> None:
    """Tell how many views have told how they ended."""
    request.websocket.send(str(len(endings)))


may_read = threading.Event()


@accept_websocket
def reads_late(request: HttpRequest) -> None:
    """Read only when the test says so."""
    websocket = request.websocket
    websocket.send('open')
    may_read.wait(30)
    count = total = 0
    for message in websocket:
        if message == 'end':
            break
        count += 1
        total += len(message)
    websocket.send_json([count, total])


@accept_websocket
def sends_large(request: HttpRequest) -> None:
    """Send one message that is larger than any bound."""
    request.websocket.send(b'x' * (5 << 20))
    request.websocket.send('done')


room: list[Any] = []


@accept_websocket
def chat(request: HttpRequest) -> None:
    """Send to all, as examples of dwebsocket do."""
    room.append(request.websocket)
    request.websocket.send('joined')
    try:
        for message in request.websocket:
            for websocket in room.copy():
                websocket.send(message)
    finally:
        room.remove(request.websocket)


@accept_websocket
def sends_what_wait_returns(request: HttpRequest) -> None:
    """Echo as the documentation of dwebsocket does: the last message is None."""
    try:
        while True:
            message = request.websocket.wait()
            request.websocket.send(message)
    finally:
        ended.set()


@accept_websocket
def looks_for_ever(request: HttpRequest, how: str) -> None:
    """Look for messages, and never for the end."""
    websocket = request.websocket
    websocket.send('ready')
    try:
        while True:
            if how != 'has_messages' or websocket.has_messages():
                getattr(websocket, 'wait' if how == 'wait' else 'read')()
    finally:
        ended.set()


@never_cache
@accept_websocket
def never_cached(request: HttpRequest) -> None:
    """Return nothing to a decorator that wants a response."""
    request.websocket.send('not cached')


@accept_websocket
def cached(request: HttpRequest) -> HttpResponse | None:
    """Serve a page and a websocket at one address."""
    if not request.is_websocket():
        return HttpResponse('a page')
    request.websocket.send('no page')
    return None


def cached_by_attribute(request: HttpRequest) -> HttpResponse:
    """The same; needs the middleware."""
    if request.is_websocket():
        request.websocket.send('no page')
    return HttpResponse('a page')


cached_by_attribute.accept_websocket = True  # type: ignore[attr-defined]


@accept_websocket
def publishes(request: HttpRequest) -> None:
    """Publish what comes, as any view may."""
    publisher = RedisPublisher(facility='views', broadcast=True)
    for message in request.websocket:
        publisher.publish_message(message)
        request.websocket.send('published')


def publish(request: HttpRequest) -> HttpResponse:
    """Publish without a websocket."""
    RedisPublisher(facility='views', broadcast=True).publish_message('from a view')
    return HttpResponse('published')


urlpatterns = [
    path('echo/', echo),
    path('required/', required),
    path('private/', Private.as_view()),
    path('get-alone/', GetAlone.as_view()),
    path('class-attribute/', ByAttribute.as_view()),
    path('attribute/', by_attribute),  # type: ignore[arg-type]
    path('plain/', plain),
    path('page-or-echo/', page_or_echo),
    path('refuses/<how>/', refuses),
    path('fails/', fails),
    path('returns-page/', returns_page),
    path('describes/', describes),
    path('json-sum/', json_sum),
    path('times-out/', times_out),
    path('polls/', polls),
    path('looks/<how>/', looks),
    path('closes/', closes),
    path('sends-no-messages/', sends_no_messages),
    path('asynchronous/', asynchronous),
    path('asynchronous-class/', Asynchronous.as_view()),
    path('closes-wrongly/', closes_wrongly),
    path('reports-end/', reports_end),
    path('floods/', floods),
    path('count-endings/', count_endings),
    path('reads-late/', reads_late),
    path('sends-large/', sends_large),
    path('chat/', chat),
    path('publishes/', publishes),
    path('sends-what-wait-returns/', sends_what_wait_returns),
    path('looks-for-ever/<how>/', looks_for_ever),
    path('never-cached/', never_cached),
    path('cached/', cache_page(60)(cached)),
    path('cached-by-middleware/', cached),
    path('cached-by-attribute/', cached_by_attribute),
    path('publish/', publish),
]

assert django.http.HttpRequest is not None
