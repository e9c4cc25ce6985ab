"""What django-ws documented works word for word, in every mode."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.handlers.test_modes import MODES
from tests.programs import RedisServer
from tests.standalone.server import StandaloneServer, settings_with_handlers
from tests.websocket_client import HandshakeRefused, RawWebSocket

pytestmark = pytest.mark.slow

# As its documentation has it: a page without a namespace connects to /socket/.
WEBSOCKET_URL = r'/socket/(?P<namespace>\w*)'
PAGE = 'http://127.0.0.1:8000'


def serve(redis_server: RedisServer, mode: str, *, debug: bool) -> StandaloneServer:
    return StandaloneServer(
        *(*MODES[mode], '--websocket-url', WEBSOCKET_URL),
        redis_server=redis_server,
        django_settings=settings_with_handlers(DEBUG=debug),
    )


@pytest.fixture(params=MODES)
def server(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[StandaloneServer]:
    """A server as a developer starts it."""
    with serve(redis_server, request.param, debug=True) as server:
        yield server


def test_a_page_on_another_port_connects_with_and_without_a_namespace(
    server: StandaloneServer,
) -> None:
    for path in ('/socket/', '/socket/echo', '/socket/echo/'):
        with RawWebSocket(f'{server.ws_url}{path}', headers={'Origin': PAGE}) as websocket:
            websocket.send('x')
            assert websocket.receive() == 'x'
    with RawWebSocket(f'{server.ws_url}/socket/about', headers={'Origin': PAGE}) as websocket:
        assert websocket.close(1000) == (1000, '')
    with pytest.raises(HandshakeRefused) as refused:
        RawWebSocket(f'{server.ws_url}/socket/nowhere', headers={'Origin': PAGE})
    assert refused.value.response.status == 404
    with pytest.raises(HandshakeRefused) as refused:
        RawWebSocket(f'{server.ws_url}/socket/', headers={'Origin': 'http://evil.example:8000'})
    assert refused.value.response.status == 403


def test_without_debug_the_log_names_the_setting_that_lets_the_page_in(
    redis_server: RedisServer,
) -> None:
    with serve(redis_server, 'threaded', debug=False) as server:
        since = server.log_position()
        with pytest.raises(HandshakeRefused) as refused:
            RawWebSocket(f'{server.ws_url}/socket/', headers={'Origin': PAGE})
        assert refused.value.response.status == 403
        server.wait_for_log('WS4REDIS_ALLOWED_ORIGINS', since=since)
