"""Clients that do not wait for the answer to their handshake."""

from __future__ import annotations

from tests.serving import served
from tests.timeouts import wait_until
from tests.websocket_client import TEXT, RawWebSocket, encode_frame, handshake_request
from ws4redis.applications.wsgi import WebSocketServer
from ws4redis.handshake.connection_limits import connection_limits


def test_what_is_sent_with_the_handshake_is_refused_rather_than_lost(redis_server: object) -> None:
    with served(WebSocketServer()) as server:
        url = f'{server.ws_url}/ws/x?publish-broadcast'
        with RawWebSocket(url, connect=False) as websocket:
            websocket.send_bytes(handshake_request(url) + encode_frame(TEXT, b'too early'))
            response = websocket.receive_response()
        assert response.status == 400
        assert b'before the handshake was answered' in response.body
        wait_until(lambda: connection_limits.taken == 0)
