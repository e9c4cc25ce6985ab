"""What every opening has in common: the request, the limits, negotiation, and giving back."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import RequestFactory, override_settings

from tests.hub.rig import RecordingReceiver
from tests.programs import RedisServer
from tests.serving import served
from tests.timeouts import SOON_SECONDS, wait_until
from tests.websocket_client import (
    ConnectionEnded,
    HandshakeRefused,
    RawWebSocket,
    WebSocketCrowd,
    expected_accept,
)
from ws4redis.exceptions import HandshakeError
from ws4redis.handshake.connection_limits import connection_limits
from ws4redis.hub.websocket import WebSocket
from ws4redis.protocol.frames import Opcode
from ws4redis.servers import opening as opening_module
from ws4redis.servers.opening import Opening, handshake_headers, make_request
from ws4redis.servers.process import get_hub


class Echo(RecordingReceiver):
    def receive_message(self, websocket: WebSocket, opcode: Opcode, payload: bytes) -> None:
        websocket.send_message(payload, opcode)


def echo_application(environ: Any, start_response: Any) -> list[bytes]:
    """The smallest application on top of an opening."""
    try:
        opening = Opening(environ, start_response)
        try:
            if user := environ.get('HTTP_X_USER'):
                opening.count_user(user)
            if 'HTTP_X_FAIL_EARLY' in environ:
                raise HandshakeError(418, 'early')
            opening.make_websocket(Echo())
            if user := environ.get('HTTP_X_LATE_USER'):
                opening.count_user(user)
            if 'HTTP_X_FAIL_LATE' in environ:
                raise HandshakeError(418, 'late')
            opening.complete()
        except BaseException:
            opening.abandon()
            raise
    except HandshakeError as error:
        start_response(f'{error.status} x', [('Content-Length', '0'), *error.headers.items()])
    return []


@pytest.fixture
def url(redis_server: RedisServer) -> Iterator[str]:
    with served(echo_application) as server:
        yield f'{server.ws_url}/anywhere'
    assert connection_limits.taken == 0


def status(url: str, **headers: str) -> int:
    names = {name.replace('_', '-'): value for name, value in headers.items()}
    with pytest.raises(HandshakeRefused) as caught:
        RawWebSocket(url, headers=names)
    return caught.value.response.status


def test_a_websocket_opens_echoes_and_closes(url: str) -> None:
    with RawWebSocket(url) as websocket:
        for message in ('hello', b'\xff'):
            websocket.send(message)
            assert websocket.receive() == message
        assert connection_limits.taken == 1
        assert websocket.close(4000)[0] == 4000
    wait_until(lambda: connection_limits.taken == 0)


def test_the_answer_carries_the_accept_key_and_nothing_that_was_not_asked_for(url: str) -> None:
    with RawWebSocket(url, connect=False) as websocket:
        websocket._headers = {'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ=='}
        headers = websocket.handshake().headers
    assert headers['sec-websocket-accept'] == expected_accept('dGhlIHNhbXBsZSBub25jZQ==')
    assert set(headers) == {'upgrade', 'connection', 'sec-websocket-accept'}


@override_settings(WS4REDIS_SUBPROTOCOLS=['chat.v2', 'chat.v1'])
def test_a_subprotocol_is_chosen_in_the_clients_order(url: str) -> None:
    with RawWebSocket(url, headers={'Sec-WebSocket-Protocol': 'x, chat.v1, chat.v2'}) as websocket:
        assert websocket.response is not None
        assert websocket.response.headers['sec-websocket-protocol'] == 'chat.v1'
    with RawWebSocket(url, headers={'Sec-WebSocket-Protocol': 'x'}) as websocket:
        assert websocket.response is not None
        assert 'sec-websocket-protocol' not in websocket.response.headers


def test_a_subprotocol_is_echoed_where_the_setting_says_nothing(url: str) -> None:
    # Browsers give up a websocket for which they offered some and were granted none.
    with RawWebSocket(url, headers={'Sec-WebSocket-Protocol': 'x, chat.v1'}) as websocket:
        assert websocket.response is not None
        assert websocket.response.headers['sec-websocket-protocol'] == 'x'


@override_settings(WS4REDIS_SUBPROTOCOLS=[])
def test_a_client_that_is_granted_no_subprotocol_is_logged(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with RawWebSocket(url, headers={'Sec-WebSocket-Protocol': 'x, chat.v1'}) as websocket:
        assert websocket.response is not None
        assert 'sec-websocket-protocol' not in websocket.response.headers
    assert any("'x, chat.v1'" in message for message in caplog.messages)


def test_compression_is_negotiated_where_it_is_offered(url: str) -> None:
    offer = {'Sec-WebSocket-Extensions': 'permessage-deflate; client_max_window_bits'}
    with RawWebSocket(url, headers=offer) as websocket:
        assert websocket.response is not None
        assert 'permessage-deflate' in websocket.response.headers['sec-websocket-extensions']
        websocket.send('x' * 10_000)
        frame = websocket.receive_frame()
        assert frame.rsv == 4
        assert len(frame.payload) < 200


@override_settings(WS4REDIS_COMPRESSION=False)
def test_compression_can_be_switched_off(url: str) -> None:
    offer = {'Sec-WebSocket-Extensions': 'permessage-deflate'}
    with RawWebSocket(url, headers=offer) as websocket:
        assert websocket.response is not None
        assert 'sec-websocket-extensions' not in websocket.response.headers


def test_a_malformed_offer_is_refused(url: str) -> None:
    assert status(url, Sec_WebSocket_Extensions='permessage-deflate; =;') == 400


@override_settings(WS4REDIS_MAX_CONNECTIONS=2)
def test_past_the_limit_handshakes_are_refused_until_a_websocket_closes(url: str) -> None:
    with WebSocketCrowd([url] * 2) as crowd:
        with pytest.raises(HandshakeRefused) as caught:
            RawWebSocket(url)
        assert caught.value.response.status == 503
        assert 'retry-after' in caught.value.response.headers
        crowd[0].socket.close()
        wait_until(lambda: connection_limits.taken == 1)
        RawWebSocket(url).reset()
    wait_until(lambda: connection_limits.taken == 0)


@override_settings(WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS=1)
def test_an_address_has_its_limit(url: str) -> None:
    with RawWebSocket(url):
        assert status(url) == 429
    wait_until(lambda: connection_limits.taken == 0)
    RawWebSocket(url).reset()


@override_settings(WS4REDIS_MAX_CONNECTIONS_PER_USER=1)
def test_a_user_has_a_limit(url: str) -> None:
    with RawWebSocket(url, headers={'X-User': 'john'}):
        assert status(url, X_User='john') == 429
        RawWebSocket(url, headers={'X-User': 'mary'}).reset()
    wait_until(lambda: connection_limits.taken == 0)


@override_settings(WS4REDIS_MAX_CONNECTIONS_PER_USER=1)
def test_a_user_who_becomes_known_when_there_is_a_websocket_is_counted_as_well(url: str) -> None:
    with RawWebSocket(url, headers={'X-Late-User': 'john'}):
        assert status(url, X_Late_User='john') == 429
        wait_until(lambda: connection_limits.taken == 1)
    wait_until(lambda: connection_limits.taken == 0)
    RawWebSocket(url, headers={'X-Late-User': 'john'}).reset()
    wait_until(lambda: connection_limits.taken == 0)


def test_what_an_abandoned_handshake_took_is_given_back(url: str) -> None:
    for _ in range(5):
        assert status(url, X_Fail_Early='1') == 418
        assert status(url, X_Fail_Late='1') == 418
    wait_until(lambda: connection_limits.taken == 0)
    hub = get_hub()
    assert hub.open_count == 0


def test_who_is_refused_may_try_again_at_once_however_busy_the_loop_is(url: str) -> None:
    release = threading.Event()
    with override_settings(WS4REDIS_MAX_CONNECTIONS=1):
        get_hub().loop.call_soon(release.wait, SOON_SECONDS)
        try:
            assert status(url, X_Fail_Late='1') == 418
            assert status(url, X_Fail_Late='1') == 418
        finally:
            release.set()


def test_while_the_server_stops_handshakes_are_refused(url: str) -> None:
    with RawWebSocket(url) as websocket:
        hub = get_hub()
        hub.loop.call_soon(lambda: hub.drain(1012, 'restart', spread_seconds=0))  # type: ignore[arg-type]
        assert websocket.receive_close() == (1012, 'restart')
        assert status(url) == 503


def test_without_a_descriptor_left_the_handshake_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EMFILE, 'Too many open files')

    monkeypatch.setattr(opening_module, 'take_socket', fail)
    assert status(url) == 503
    assert 'no descriptor is left' in caplog.text
    monkeypatch.undo()
    wait_until(lambda: connection_limits.taken == 0)
    with RawWebSocket(url):
        pass


def test_a_client_that_left_during_its_handshake_costs_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise BrokenPipeError(errno.EPIPE, 'Broken pipe')

    monkeypatch.setattr(opening_module, 'take_socket', fail)
    with RawWebSocket(url, connect=False) as websocket:
        with pytest.raises((ConnectionEnded, HandshakeRefused)):
            websocket.handshake()
    wait_until(lambda: connection_limits.taken == 0)


def test_headers_are_those_of_the_request_in_lower_case() -> None:
    environ = {'HTTP_SEC_WEBSOCKET_KEY': 'x', 'HTTP_HOST': 'y', 'REQUEST_METHOD': 'GET'}
    assert handshake_headers(environ) == {'sec-websocket-key': 'x', 'host': 'y'}


def test_a_path_that_is_no_text_is_a_bad_request() -> None:
    environ = RequestFactory().get('/ws/x').environ
    assert make_request(environ).path == '/ws/x'
    environ['CONTENT_TYPE'] = 'text/html; charset=\xff'
    environ['PATH_INFO'] = '/ws/\u20ac'  # not latin-1, as WSGI wants it
    with pytest.raises(HandshakeError) as caught:
        make_request(environ)
    assert caught.value.status == 400
