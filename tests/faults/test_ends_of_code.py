"""Views and handlers learn that what was granted has ended, wherever they run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import logout
from django.test import override_settings
from django.urls import path

from tests.django_requests import logged_in_request, make_user
from tests.programs import RedisServer
from tests.serving import served
from tests.standalone.server import WEBSOCKET_URL, StandaloneServer, settings_with_handlers
from tests.timeouts import SOON_SECONDS, wait_until
from tests.websocket_client import RawWebSocket
from ws4redis.applications.wsgi import CombinedServer
from ws4redis.control import disconnect
from ws4redis.decorators import require_websocket
from ws4redis.protocol.end_codes import EndCode

pytestmark = pytest.mark.django_db(transaction=True)

MODES = {
    'threaded': ('--threaded',),
    'gevent': ('--gevent',),
    'multiprocess': ('--multiprocess', '--handler-processes', '1'),
}


@pytest.fixture(params=MODES)
def server(
    request: pytest.FixtureRequest, redis_server: RedisServer, django_db_setup: None
) -> Iterator[StandaloneServer]:
    with StandaloneServer(
        *(*MODES[request.param], '--websocket-url', WEBSOCKET_URL),
        redis_server=redis_server,
        django_settings=settings_with_handlers(WS4REDIS_CLOSE_TIMEOUT=30),
    ) as server:
        yield server


def test_a_handler_learns_of_a_logout_though_the_client_says_nothing(
    server: StandaloneServer,
) -> None:
    request = logged_in_request(make_user('mary'))
    headers = {'Cookie': f'sessionid={request.session.session_key}'}
    with RawWebSocket(f'{server.ws_url}/socket/log', headers=headers) as websocket:
        assert websocket.receive() == 'welcome'
        since = server.log_position()
        since = server.log_position()
        logout(request)
        server.wait_for_log(f'on_close {int(EndCode.LOGGED_OUT)}', since=since)
        # Only now does the client answer the close frame.
        assert websocket.receive_close()[0] == EndCode.LOGGED_OUT


SEEN: list[tuple[Any, int | None, bool]] = []


@require_websocket
def waiting(request: Any) -> None:
    websocket = request.websocket
    websocket.send('ready')
    message = websocket.wait(SOON_SECONDS)
    SEEN.append((message, websocket.close_code, websocket.is_closed()))


urlpatterns = [path('waiting/', waiting)]


def test_the_wait_of_a_view_ends_with_what_it_was_granted(redis_server: RedisServer) -> None:
    SEEN.clear()
    request = logged_in_request(make_user('mary'))
    headers = {'Cookie': f'sessionid={request.session.session_key}'}
    settings = {
        'ROOT_URLCONF': __name__,
        'MIDDLEWARE': [
            'django.contrib.sessions.middleware.SessionMiddleware',
            'django.contrib.auth.middleware.AuthenticationMiddleware',
            'ws4redis.middleware.WebSocketMiddleware',
        ],
    }
    with override_settings(**settings), served(CombinedServer()) as server:
        with RawWebSocket(f'{server.ws_url}/waiting/', headers=headers) as websocket:
            assert websocket.receive() == 'ready'
            disconnect(user='mary', code=4000)
            wait_until(lambda: SEEN)
            assert SEEN == [(None, 4000, True)]
            assert websocket.receive_close()[0] == 4000
