"""Views that accept websockets, from the handshake to the end."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.signals import got_request_exception, request_finished, request_started
from django.test import AsyncRequestFactory, Client, override_settings

from tests.views import urls
from ws4redis.decorators import accept_websocket
from ws4redis.exceptions import HandshakeError
from ws4redis.handshake.connection_limits import connection_limits
from ws4redis.test import WebSocketClient, WebSocketTestCase
from ws4redis.views.server import SwitchedProtocols

HANDSHAKE = {
    'Upgrade': 'websocket',
    'Connection': 'keep-alive, Upgrade',
    'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
    'Sec-WebSocket-Version': '13',
}

#: Responses as a middleware outside of all others sees them.
responses: list[Any] = []


def recording_middleware(get_response: Any) -> Any:
    def middleware(request: Any) -> Any:
        response = get_response(request)
        responses.append(response)
        return response

    return middleware


@pytest.mark.usefixtures('redis_server')
@override_settings(ROOT_URLCONF='tests.views.urls')
class ViewTestCase(WebSocketTestCase):
    """What the tests of this module share."""

    def refusal(self, path: str, **options: Any) -> HandshakeError:
        """Return what answers a handshake that is refused."""
        with pytest.raises(HandshakeError) as caught:
            self.websocket(path, **options)
        return caught.value

    def received_signals(self, signal: Any) -> list[Any]:
        """Return a list that collects what a signal sends."""
        received: list[Any] = []

        def receive(**kwargs: Any) -> None:
            received.append(kwargs)

        signal.connect(receive, weak=False, dispatch_uid='of the test')
        self.addCleanup(signal.disconnect, dispatch_uid='of the test')
        return received


class AcceptTests(ViewTestCase):
    """Views that accept."""

    def test_text_stays_text_and_binary_stays_binary(self) -> None:
        with self.websocket('/echo/') as websocket:
            for message in ('x', 'ä€😀', '', b'x', b'', b'\xff\x00'):
                websocket.send(message)
                assert websocket.receive() == message

    def test_plain_http_gets_what_the_view_returns_and_no_websocket(self) -> None:
        assert self.client.get('/echo/').content == b'no websocket: None'

    def test_the_end_of_the_view_closes_with_1000(self) -> None:
        with self.websocket('/required/') as websocket:
            assert websocket.receive() == 'welcome'
            assert websocket.wait_closed() == 1000

    def test_a_view_that_requires_a_websocket_refuses_plain_http(self) -> None:
        response = self.client.get('/required/')
        assert response.status_code == 400
        assert b'upgrade to a websocket' in response.content

    def test_a_view_that_never_uses_its_websocket_opens_and_closes_it(self) -> None:
        with self.websocket('/returns-page/') as websocket:
            assert websocket.wait_closed() == 1000

    def test_a_class_may_accept_in_its_method_get_alone(self) -> None:
        with self.websocket('/get-alone/') as websocket:
            assert websocket.receive() == 'got'

    def test_a_subprotocol_is_agreed_upon(self) -> None:
        with override_settings(WS4REDIS_SUBPROTOCOLS=['chat', 'json']):
            with self.websocket('/echo/', subprotocols=['soap', 'json']) as websocket:
                assert websocket.subprotocol == 'json'

    def test_many_websockets_are_open_at_once(self) -> None:
        with self.websockets('/echo/', 50) as websockets:
            for number, websocket in enumerate(websockets):
                websocket.send(str(number))
            received = [websocket.receive() for websocket in websockets]
        assert received == [str(number) for number in range(50)]

    def test_an_asynchronous_view_is_refused_when_it_is_decorated(self) -> None:
        async def view(request: Any) -> None:
            pass

        with pytest.raises(TypeError, match='synchronous'):
            accept_websocket(view)  # type: ignore[arg-type]

    def test_a_page_that_shares_its_address_is_not_taken_from_a_cache(self) -> None:
        self.addCleanup(cache.clear)
        for _ in range(2):
            response = self.client.get('/cached/')
            assert response.content == b'a page'
            assert response.headers['Vary'] == 'Upgrade'
            with self.websocket('/cached/') as websocket:
                assert websocket.receive() == 'no page'

    def test_a_decorator_that_wants_a_response_may_be_outside(self) -> None:
        with self.websocket('/never-cached/') as websocket:
            assert websocket.receive() == 'not cached'
            assert websocket.wait_closed() == 1000


class FailureTests(ViewTestCase):
    """Views that raise."""

    def test_an_exception_closes_with_1011_and_is_told_as_django_tells_any(self) -> None:
        exceptions = self.received_signals(got_request_exception)
        with self.assertLogs('django.request', 'ERROR') as log:
            with self.websocket('/fails/') as websocket:
                websocket.send('go')
                assert websocket.wait_closed() == 1011
            self.server_thread.httpd.wait_until_idle(10)
        assert len(exceptions) == 1
        assert exceptions[0]['request'].path == '/fails/'
        record = log.records[0]
        assert record.exc_info is not None
        assert str(record.exc_info[1]) == 'the view is broken'

    def test_a_client_that_leaves_a_sending_view_is_no_error(self) -> None:
        exceptions = self.received_signals(got_request_exception)
        urls.ended.clear()
        websocket = self.websocket('/floods/')
        websocket.receive()
        websocket.drop()
        assert urls.ended.wait(10)
        self.server_thread.httpd.wait_until_idle(10)
        assert exceptions == []

    def test_a_view_that_sends_none_to_a_client_that_has_left_ends_quietly(self) -> None:
        exceptions = self.received_signals(got_request_exception)
        urls.ended.clear()
        with self.websocket('/sends-what-wait-returns/') as websocket:
            websocket.send('x')
            assert websocket.receive() == 'x'
        assert urls.ended.wait(10)
        self.server_thread.httpd.wait_until_idle(10)
        assert exceptions == []

    def test_a_view_that_looks_for_messages_for_ever_ends_with_its_client(self) -> None:
        exceptions = self.received_signals(got_request_exception)
        for how in ('read', 'wait', 'has_messages'):
            urls.ended.clear()
            with self.websocket(f'/looks-for-ever/{how}/') as websocket:
                assert websocket.receive() == 'ready'
            assert urls.ended.wait(10), how
        self.server_thread.httpd.wait_until_idle(10)
        assert exceptions == []


class RefusalTests(ViewTestCase):
    """Handshakes that are answered with plain HTTP."""

    def test_what_a_view_raises_before_it_uses_the_websocket_is_an_http_answer(self) -> None:
        assert self.refusal('/refuses/denied/').status == 403
        assert self.refusal('/refuses/missing/').status == 404

    def test_a_view_that_breaks_before_it_uses_the_websocket_answers_500(self) -> None:
        with self.assertLogs('django.request', 'ERROR'):
            assert self.refusal('/refuses/broken/').status == 500

    def test_a_response_that_is_no_success_is_the_answer(self) -> None:
        refusal = self.refusal('/refuses/response/')
        assert (refusal.status, refusal.body) == (451, 'not you')
        refusal = self.refusal('/refuses/redirect/')
        assert (refusal.status, refusal.headers['location']) == (302, '/elsewhere/')

    def test_a_refused_handshake_gives_its_place_back(self) -> None:
        with override_settings(WS4REDIS_MAX_CONNECTIONS=1):
            for _ in range(3):
                assert self.refusal('/refuses/denied/').status == 403
            with self.websocket('/echo/'):
                assert self.refusal('/echo/').status == 503

    def test_a_malformed_key_is_a_bad_request(self) -> None:
        assert self.refusal('/echo/', headers={'Sec-WebSocket-Key': 'short'}).status == 400
        assert self.refusal('/echo/', headers={'Sec-WebSocket-Key': None}).status == 400

    def test_another_version_is_a_bad_request_that_names_ours(self) -> None:
        refusal = self.refusal('/echo/', headers={'Sec-WebSocket-Version': '8'})
        assert refusal.status == 400
        assert refusal.headers['sec-websocket-version'] == '13'

    def test_a_handshake_without_a_connection_header_is_a_bad_request(self) -> None:
        assert self.refusal('/echo/', headers={'Connection': None}).status == 400

    def test_a_foreign_origin_is_forbidden(self) -> None:
        refusal = self.refusal('/echo/', headers={'Origin': 'https://evil.example.com'})
        assert refusal.status == 403
        assert self.refusal('/echo/', headers={'Origin': 'null'}).status == 403

    def test_a_foreign_host_is_a_bad_request(self) -> None:
        refusal = self.refusal('/echo/', headers={'Host': 'evil.example.com', 'Origin': None})
        assert refusal.status == 400

    def test_a_handshake_by_post_is_a_bad_request(self) -> None:
        response = Client().post('/echo/', headers=HANDSHAKE)
        assert response.status_code == 400

    def test_a_server_that_keeps_its_sockets_answers_501_and_says_why(self) -> None:
        # The test client is such a server: there is no socket at all.
        with self.assertLogs('ws4redis', 'ERROR') as log:
            response = Client().get('/echo/', headers=HANDSHAKE)
        assert response.status_code == 501
        assert b'cannot hand over its sockets' in response.content
        assert 'cannot hand over its sockets' in log.output[0]

    def test_a_request_that_came_by_asgi_is_answered_501(self) -> None:
        request = AsyncRequestFactory().get('/echo/', headers=HANDSHAKE)
        with self.assertLogs('ws4redis', 'ERROR'):
            response: Any = urls.echo(request)
        assert response.status_code == 501
        assert b'ASGI' in response.content

    def test_too_many_websockets_of_a_user_are_refused(self) -> None:
        john = User.objects.create_user('john')
        with override_settings(WS4REDIS_MAX_CONNECTIONS_PER_USER=1):
            with self.websocket('/private/', user=john) as websocket:
                assert websocket.receive() == 'john'
            with self.websocket('/echo/', user=john):
                assert self.refusal('/echo/', user=john).status == 429
            assert connection_limits is not None


class AuthenticationTests(ViewTestCase):
    """Django's middleware and mixins are in force before the view runs."""

    def test_a_view_that_requires_a_login_redirects_before_the_handshake(self) -> None:
        refusal = self.refusal('/private/')
        assert refusal.status == 302
        assert refusal.headers['location'].startswith('/accounts/login/?next=/private/')

    def test_a_user_who_is_logged_in_gets_through(self) -> None:
        mary = User.objects.create_user('mary')
        with self.websocket('/private/', user=mary) as websocket:
            assert websocket.receive() == 'mary'

    def test_what_a_view_puts_into_the_session_is_saved_at_its_end(self) -> None:
        self.client.force_login(User.objects.create_user('mary'))
        with self.websocket('/private/') as websocket:
            assert websocket.receive() == 'mary'
            websocket.wait_closed()
        self.server_thread.httpd.wait_until_idle(10)
        assert self.client.session['seen'] is True


@override_settings(
    MIDDLEWARE=[
        'tests.views.test_decorators.recording_middleware',
        'django.middleware.security.SecurityMiddleware',
        'django.middleware.gzip.GZipMiddleware',
        'django.middleware.http.ConditionalGetMiddleware',
        'django.middleware.cache.UpdateCacheMiddleware',
        'django.contrib.sessions.middleware.SessionMiddleware',
        'django.middleware.locale.LocaleMiddleware',
        'django.middleware.common.CommonMiddleware',
        'django.middleware.csrf.CsrfViewMiddleware',
        'django.contrib.auth.middleware.AuthenticationMiddleware',
        'django.contrib.messages.middleware.MessageMiddleware',
        'django.middleware.clickjacking.XFrameOptionsMiddleware',
        'django.middleware.cache.FetchFromCacheMiddleware',
    ]
)
class RequestCycleTests(ViewTestCase):
    """What surrounds a view works as for any other."""

    def test_middleware_sees_a_response_with_status_101(self) -> None:
        responses.clear()
        with self.websocket('/echo/') as websocket:
            websocket.send('x')
            assert websocket.receive() == 'x'
        self.server_thread.httpd.wait_until_idle(10)
        assert [type(response) for response in responses] == [SwitchedProtocols]
        assert responses[0].status_code == 101
        assert responses[0].content == b''

    def test_the_signals_of_a_request_are_sent_once_at_its_beginning_and_end(self) -> None:
        started = self.received_signals(request_started)
        finished = self.received_signals(request_finished)
        with self.websocket('/echo/') as websocket:
            websocket.send('x')
            websocket.receive()
            assert (len(started), len(finished)) == (1, 0)
        self.server_thread.httpd.wait_until_idle(10)
        assert (len(started), len(finished)) == (1, 1)

    def test_a_second_request_after_a_websocket_is_served(self) -> None:
        for _ in range(3):
            with self.websocket('/required/') as websocket:
                assert isinstance(websocket, WebSocketClient)
                assert websocket.wait_closed() == 1000
            assert self.client.get('/plain/').content == b'plain'
