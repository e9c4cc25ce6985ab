"""Handlers under uWSGI and runserver, by ``WS4REDIS_HANDLERS`` and ``DEFAULT_WS_HANDLERS``."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.programs import RedisServer, RunserverProcess, ServerFailed, UwsgiServer
from tests.server_process import HttpServerProcess
from tests.standalone.server import HANDLERS, settings_with_handlers
from tests.websocket_client import HandshakeRefused, RawWebSocket

pytestmark = pytest.mark.slow

SETTINGS = settings_with_handlers(
    WS4REDIS_HANDLERS={
        r'/rooms/(?P<room>\w+)': HANDLERS['about'],
        r'/chat/(?P<namespace>\w+)': HANDLERS,
    }
)


@pytest.fixture(params=['uwsgi --gevent', 'uwsgi --threads', 'runserver'])
def server(
    request: pytest.FixtureRequest, redis_server: RedisServer
) -> Iterator[HttpServerProcess]:
    """A server that serves Django as well."""
    server: HttpServerProcess
    if request.param == 'runserver':
        server = RunserverProcess(redis_server=redis_server, django_settings=SETTINGS)
    else:
        server = UwsgiServer(
            'tests.wsgi_handlers',
            redis_server=redis_server,
            django_settings=SETTINGS,
            gevent=50 if 'gevent' in request.param else None,
            threads=4,
        )
    with server:
        yield server


def test_handlers_channels_and_pages_are_served_side_by_side(server: HttpServerProcess) -> None:
    assert server.get('/hello/') == 'hello from Django'
    for path in ('/socket', '/chat/echo'):
        with RawWebSocket(server.ws_url + path) as websocket:
            websocket.send('x')
            assert websocket.receive() == 'x'
    with RawWebSocket(f'{server.ws_url}/rooms/blue?a=1') as websocket:
        websocket.send('who?')
        assert '"kwargs": {"room": "blue"}' in websocket.receive()
    url = f'{server.ws_url}/ws/room?subscribe-broadcast&publish-broadcast&echo'
    with RawWebSocket(url) as websocket:
        websocket.send('y')
        assert websocket.receive() == 'y'
    since = server.log_position()
    with pytest.raises(HandshakeRefused) as refused:
        RawWebSocket(f'{server.ws_url}/chat/nowhere')
    assert refused.value.response.status == 404
    server.wait_for_log("unknown namespace 'nowhere'", since=since)


def test_handlers_hear_of_the_end(server: HttpServerProcess) -> None:
    with RawWebSocket(f'{server.ws_url}/chat/log') as websocket:
        assert websocket.receive() == 'welcome'
        websocket.close()
        server.wait_for_log('on_close 1000')


@pytest.mark.parametrize('gevent', [50, None])
def test_handlers_hear_of_the_end_of_uwsgi(redis_server: RedisServer, gevent: int | None) -> None:
    with UwsgiServer(
        'tests.wsgi_handlers',
        redis_server=redis_server,
        django_settings=SETTINGS,
        gevent=gevent,
        threads=4,
    ) as server:
        with RawWebSocket(f'{server.ws_url}/chat/log') as websocket:
            assert websocket.receive() == 'welcome'
            # The handler may be faster than the request: while one runs, uWSGI with threads ends
            # without a word.
            server.wait_until_idle()
            server.signal(signal.SIGTERM)
            assert websocket.receive_close()[0] == 1001
            websocket.send_close(1001)
            server.wait()
        assert [line for line in server.log_lines() if 'on_close' in line] == ['on_close 1001']


def test_handlers_that_do_not_import_are_an_error_when_uwsgi_starts(
    redis_server: RedisServer,
) -> None:
    settings = {'WS4REDIS_HANDLERS': {'/x': 'no.such.Handler'}}
    server = UwsgiServer('tests.wsgi_handlers', redis_server=redis_server, django_settings=settings)
    with pytest.raises(ServerFailed, match='WS4REDIS_HANDLERS'):
        server.start()
