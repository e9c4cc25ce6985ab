"""WebSocketMiddleware, and which views it lets accept."""

from __future__ import annotations

from typing import Any

import django
import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.http import HttpResponse
from django.test import RequestFactory, modify_settings, override_settings
from django.views.generic import View

from tests.views import urls
from ws4redis.decorators import accept_websocket
from ws4redis.exceptions import HandshakeError
from ws4redis.test import WebSocketTestCase
from ws4redis.views.middleware import WebSocketMiddleware, accepts_websocket


@pytest.mark.usefixtures('redis_server')
@override_settings(ROOT_URLCONF='tests.views.urls')
@modify_settings(MIDDLEWARE={'prepend': 'ws4redis.middleware.WebSocketMiddleware'})
class MiddlewareTests(WebSocketTestCase):
    """All views, with the middleware installed."""

    def status(self, path: str, **options: Any) -> int:
        """Return the status with which a handshake is refused."""
        with pytest.raises(HandshakeError) as caught:
            self.websocket(path, **options)
        return caught.value.status

    def test_a_view_accepts_by_its_attribute(self) -> None:
        with self.websocket('/attribute/') as websocket:
            websocket.send('x')
            assert websocket.receive() == 'x'
        assert websocket.close_code == 1000

    def test_a_class_accepts_by_its_attribute(self) -> None:
        with self.websocket('/class-attribute/') as websocket:
            assert websocket.receive() == 'by attribute'
            assert websocket.wait_closed() == 1000

    def test_a_class_accepts_by_its_decorated_method(self) -> None:
        with self.websocket('/get-alone/') as websocket:
            assert websocket.receive() == 'got'

    def test_a_decorated_view_works_as_without_the_middleware(self) -> None:
        with self.websocket('/echo/') as websocket:
            websocket.send(b'x')
            assert websocket.receive() == b'x'
        assert websocket.close_code == 1000

    def test_a_decorator_that_wants_a_response_may_be_outside(self) -> None:
        with self.websocket('/never-cached/') as websocket:
            assert websocket.receive() == 'not cached'
            assert websocket.wait_closed() == 1000

    def test_a_page_that_shares_its_address_is_not_taken_from_the_cache_of_the_site(self) -> None:
        self.addCleanup(cache.clear)
        middleware = [
            'django.middleware.cache.UpdateCacheMiddleware',
            'ws4redis.middleware.WebSocketMiddleware',
            'django.middleware.cache.FetchFromCacheMiddleware',
        ]
        with override_settings(MIDDLEWARE=middleware):
            for path in ('/cached-by-middleware/', '/cached-by-attribute/') * 2:
                assert self.client.get(path).content == b'a page'
                with self.websocket(path) as websocket:
                    assert websocket.receive() == 'no page'

    def test_pages_of_views_that_accept_no_websockets_vary_by_nothing(self) -> None:
        assert 'Vary' not in self.client.get('/plain/').headers

    def test_asynchronous_views_refuse_websockets_whatever_accepts_them(self) -> None:
        for path in ('/asynchronous/', '/asynchronous-class/'):
            assert self.status(path) == 400
            assert self.client.get(path).content == b'asynchronous'
            with (
                override_settings(WEBSOCKET_ACCEPT_ALL=True),
                self.assertLogs('ws4redis', 'ERROR') as log,
            ):
                assert self.status(path) == 400
            assert 'is asynchronous' in log.output[0]

    def test_an_exception_closes_with_1011_once(self) -> None:
        with self.assertLogs('django.request', 'ERROR') as log:
            with self.websocket('/fails/') as websocket:
                websocket.send('go')
                assert websocket.wait_closed() == 1011
            self.server_thread.httpd.wait_until_idle(10)
        assert len(log.records) == 1

    def test_a_websocket_to_a_view_that_does_not_accept_it_gets_400(self) -> None:
        assert self.status('/plain/') == 400

    def test_every_view_accepts_if_the_settings_say_so(self) -> None:
        assert self.status('/page-or-echo/') == 400
        with override_settings(WEBSOCKET_ACCEPT_ALL=True):
            with self.websocket('/page-or-echo/') as websocket:
                assert websocket.receive() == 'accepted'
                assert websocket.wait_closed() == 1000

    def test_a_malformed_handshake_gets_400(self) -> None:
        for path in ('/attribute/', '/plain/', '/echo/'):
            assert self.status(path, headers={'Sec-WebSocket-Key': 'short'}) == 400

    def test_a_path_that_leads_nowhere_is_not_found(self) -> None:
        assert self.status('/nowhere/') == 404

    def test_plain_http_has_no_websocket(self) -> None:
        assert self.client.get('/page-or-echo/').content == b'plain None'
        assert self.client.get('/required/').status_code == 400

    def test_the_mixins_of_a_class_are_in_force_before_the_handshake(self) -> None:
        assert self.status('/private/') == 302
        with self.websocket('/private/', user=User.objects.create_user('mary')) as websocket:
            assert websocket.receive() == 'mary'


if django.VERSION >= (5, 1):

    @pytest.mark.usefixtures('redis_server')
    @override_settings(ROOT_URLCONF='tests.views.urls', WEBSOCKET_ACCEPT_ALL=True)
    @modify_settings(
        MIDDLEWARE={
            'prepend': 'ws4redis.middleware.WebSocketMiddleware',
            'append': 'django.contrib.auth.middleware.LoginRequiredMiddleware',
        }
    )
    class LoginRequiredTests(WebSocketTestCase):
        """Middleware that decides about views, wherever it stands, is asked before they run."""

        def test_no_websocket_gets_past_a_middleware_that_requires_a_login(self) -> None:
            for path in ('/attribute/', '/echo/', '/class-attribute/'):
                with pytest.raises(HandshakeError) as caught:
                    self.websocket(path)
                assert caught.value.status == 302

        def test_a_user_who_is_logged_in_gets_through(self) -> None:
            mary = User.objects.create_user('mary')
            with self.websocket('/attribute/', user=mary) as websocket:
                websocket.send('x')
                assert websocket.receive() == 'x'


def test_views_that_say_so_accept() -> None:
    class Plain(View):
        pass

    assert not accepts_websocket(urls.plain)
    assert not accepts_websocket(Plain.as_view())
    assert accepts_websocket(urls.by_attribute)
    assert accepts_websocket(urls.echo)
    assert accepts_websocket(urls.required)
    assert accepts_websocket(urls.ByAttribute.as_view())
    assert accepts_websocket(urls.GetAlone.as_view())
    assert accepts_websocket(urls.Private.as_view())


def test_a_decorator_keeps_the_name_and_the_marks_of_a_view() -> None:
    def view(request: Any) -> None:
        """Talk."""

    view.csrf_exempt = True  # type: ignore[attr-defined]
    decorated: Any = accept_websocket(view)
    assert decorated.__name__ == 'view'
    assert decorated.__doc__ == 'Talk.'
    assert decorated.csrf_exempt is True


def test_the_middleware_leaves_the_class_of_plain_requests_alone() -> None:
    seen: list[Any] = []

    def get_response(request: Any) -> HttpResponse:
        seen.append(request)
        return HttpResponse()

    request: Any = RequestFactory().get('/')
    request_class = type(request)
    WebSocketMiddleware(get_response)(request)
    assert type(seen[0]) is request_class
    assert seen[0].is_websocket() is False
    assert seen[0].websocket is None
