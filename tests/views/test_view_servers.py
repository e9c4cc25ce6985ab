"""Views with websockets under each server, each a process of its own."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from tests.free_ports import free_port
from tests.programs import RedisServer, RunserverProcess, UwsgiServer, _django_environment
from tests.requirements import require, require_executable
from tests.scratch import scratch_directory
from tests.server_process import HttpServerProcess, wait_for_port
from tests.standalone.server import StandaloneServer, settings_with_handlers
from tests.timeouts import SERVER_SECONDS, SOON_SECONDS, wait_until
from tests.websocket_client import (
    BINARY,
    TEXT,
    ConnectionEnded,
    HandshakeRefused,
    RawWebSocket,
    WebSocketCrowd,
)

pytestmark = pytest.mark.slow

SETTINGS = {'ROOT_URLCONF': 'tests.views.urls', 'WS4REDIS_DRAIN_SECONDS': 0.2}
APP = 'tests.views.wsgi'


class PywsgiServer(HttpServerProcess):
    """gevent's pywsgi, in a process that is monkey patched or not."""

    name = 'pywsgi'

    def __init__(self, *options: str, redis_server: RedisServer) -> None:
        super().__init__(env=_django_environment('tests.settings', redis_server, SETTINGS))
        self.port = free_port()
        self._options = options

    def command(self) -> Sequence[str]:
        module = 'tests.views.pywsgi_server'
        return [sys.executable, '-m', module, str(self.port), *self._options]

    def wait_until_ready(self, since: int) -> None:
        self.wait_for_log('serving', since=since)


class GunicornServer(HttpServerProcess):
    """gunicorn with its plain workers, which keep their sockets."""

    name = 'gunicorn'

    def __init__(self, *, redis_server: RedisServer) -> None:
        super().__init__(env=_django_environment('tests.settings', redis_server, SETTINGS))
        self.port = free_port()

    def command(self) -> Sequence[str]:
        address = f'{self.host}:{self.port}'
        return [sys.executable, '-m', 'gunicorn', '--bind', address, '--no-control-socket', APP]

    def wait_until_ready(self, since: int) -> None:
        self.wait_for_log('Booting worker', since=since)


def uwsgi(redis_server: RedisServer, **options: Any) -> UwsgiServer:
    return UwsgiServer(APP, django_settings=SETTINGS, redis_server=redis_server, **options)


ROUTED = {'http': 'http', 'options': ['--http-websockets']}
SERVERS: dict[str, Any] = {
    'uwsgi-gevent': lambda redis: uwsgi(redis, gevent=20),
    'uwsgi-threads': lambda redis: uwsgi(redis, gevent=None, threads=8),
    'uwsgi-router-gevent': lambda redis: uwsgi(redis, gevent=20, **ROUTED),
    'uwsgi-router-threads': lambda redis: uwsgi(redis, gevent=None, threads=8, **ROUTED),
    'runserver': lambda redis: RunserverProcess(redis_server=redis, django_settings=SETTINGS),
    'runserver-of-django-alone': lambda redis: RunserverProcess(
        redis_server=redis, django_settings={**SETTINGS, 'WSGI_APPLICATION': None}
    ),
    'pywsgi': lambda redis: PywsgiServer(redis_server=redis),
    'pywsgi-patched': lambda redis: PywsgiServer('patched', redis_server=redis),
    'standalone-gevent': lambda redis: StandaloneServer(
        '--gevent', redis_server=redis, django_settings=settings_with_handlers(**SETTINGS)
    ),
}


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[Any]:
    """Each server, with the views of `tests.views.urls`; it has to stop in good order."""
    running = SERVERS[request.param](redis_server)
    with running:
        yield running


def test_a_view_talks_with_its_client(server: Any) -> None:
    with RawWebSocket(f'{server.ws_url}/echo/') as websocket:
        for message in ('text', b'binary', 'ä', b'', 'x' * 100_000):
            websocket.send(message)
            assert websocket.receive() == message
        assert websocket.close(1000) == (1000, '')


def test_views_end_in_their_own_ways(server: Any) -> None:
    since = server.log_position()
    with RawWebSocket(f'{server.ws_url}/required/') as websocket:
        assert websocket.receive() == 'welcome'
        assert websocket.receive_close() == (1000, '')
    with RawWebSocket(f'{server.ws_url}/closes/') as websocket:
        assert websocket.receive() == 'last'
        assert websocket.receive_close() == (4321, 'enough')
    with RawWebSocket(f'{server.ws_url}/fails/') as websocket:
        websocket.send('go')
        assert websocket.receive_close() == (1011, '')
    server.wait_for_log('RuntimeError: the view is broken', since=since)


def test_a_view_refuses_by_plain_http(server: Any) -> None:
    for path, status in (('denied', 403), ('missing', 404), ('redirect', 302), ('broken', 500)):
        with pytest.raises(HandshakeRefused) as caught:
            RawWebSocket(f'{server.ws_url}/refuses/{path}/')
        assert caught.value.response.status == status


def test_views_of_many_clients_run_at_once(server: Any) -> None:
    with WebSocketCrowd([f'{server.ws_url}/chat/'] * 7) as crowd:
        crowd.receive(1)
        crowd[0].send('to all')
        assert crowd.receive(2) == [['joined', 'to all']] * 7


def test_messages_of_one_packet_come_in_order(server: Any) -> None:
    with RawWebSocket(f'{server.ws_url}/echo/') as websocket:
        for number in range(300):
            websocket.send_frame(TEXT, str(number).encode())
        websocket.send_frame(BINARY, b'end')
        assert websocket.receive_many(301) == [*map(str, range(300)), b'end']


def test_views_that_look_without_waiting_let_others_run(server: Any) -> None:
    urls = [f'{server.ws_url}/looks/{how}/' for how in ('count', 'has', 'closed')]
    with WebSocketCrowd(urls) as crowd:
        crowd.receive(1)
        # While all three look:
        with RawWebSocket(f'{server.ws_url}/echo/') as other:
            other.send('other')
            assert other.receive() == 'other'
        for websocket in (crowd[0], crowd[1]):
            websocket.send('found')
            assert websocket.receive() == 'found'


def test_a_message_larger_than_the_bound_arrives(server: Any) -> None:
    with RawWebSocket(f'{server.ws_url}/sends-large/') as websocket:
        message = websocket.receive()
        assert len(message) == 5 << 20
        assert websocket.receive() == 'done'


def test_a_client_that_does_not_read_is_given_up(server: Any) -> None:
    def count_endings() -> int:
        with RawWebSocket(f'{server.ws_url}/count-endings/') as websocket:
            return int(websocket.receive())

    before = count_endings()
    with RawWebSocket(f'{server.ws_url}/floods/') as websocket:
        # The view sends what the buffers hold, waits, and closes.
        wait_until(lambda: count_endings() > before)
        with pytest.raises(ConnectionEnded):
            while True:
                websocket.receive(timeout=SOON_SECONDS)


def test_nothing_is_logged_as_an_error_and_no_descriptor_leaks(
    server: Any, redis_server: RedisServer
) -> None:
    with RawWebSocket(f'{server.ws_url}/echo/') as websocket:
        assert websocket.close() == (1000, '')
    # The loop's own connections come with the first websocket.
    wait_until(lambda: redis_server.number_of_clients() >= 2)
    pid = worker_pid(server)
    before = number_of_descriptors(pid)
    since = server.log_position()
    for number in range(30):
        with RawWebSocket(f'{server.ws_url}/echo/') as websocket:
            websocket.send('x')
            assert websocket.receive() == 'x'
            if number % 3 == 0:
                websocket.close()
            elif number % 3 == 1:
                websocket.reset()
    wait_until(lambda: number_of_descriptors(pid) <= before)
    log = server.log_text(since)
    for word in ('Traceback', 'ERROR', 'rror:', 'Exception', 'Bad file', 'Broken pipe'):
        assert word not in log


def worker_pid(server: Any) -> int:
    if isinstance(server, UwsgiServer):
        return server.worker_pids()[0]
    if isinstance(server, StandaloneServer):
        return children_of(server.pid)[0]
    pid: int = server.pid
    return pid


def children_of(pid: int) -> list[int]:
    with open(f'/proc/{pid}/task/{pid}/children') as file:
        return [int(child) for child in file.read().split()]


def number_of_descriptors(pid: int) -> int:
    return len(os.listdir(f'/proc/{pid}/fd'))


@contextmanager
def open_views(server: Any, count: int) -> Iterator[WebSocketCrowd]:
    """Hold websockets whose views wait for messages."""
    with WebSocketCrowd([f'{server.ws_url}/echo/'] * count) as crowd:
        for index in range(count):
            crowd[index].send('x')
        crowd.receive(1)
        yield crowd


# Not with --threads: uWSGI runs no hook at the end of a worker that is busy with requests.
@pytest.mark.parametrize('name', ['uwsgi-gevent', 'standalone-gevent'])
def test_a_stop_ends_the_views_and_tells_their_clients(
    name: str, redis_server: RedisServer
) -> None:
    with SERVERS[name](redis_server) as server, open_views(server, 5) as crowd:
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert [code for code, _ in filter(None, crowd.receive_close())] == [1001] * 5
        stopping.join(SERVER_SECONDS)
        assert not stopping.is_alive()


def test_the_access_log_shows_a_view_with_a_websocket_as_101(redis_server: RedisServer) -> None:
    with SERVERS['uwsgi-gevent'](redis_server) as server:
        with RawWebSocket(f'{server.ws_url}/echo/') as websocket:
            websocket.close()
        line = server.wait_for_log('GET /echo/')
        assert '(HTTP/1.1 101)' in line


def test_a_uwsgi_without_threads_answers_501_and_says_why(redis_server: RedisServer) -> None:
    # The fixture's server has --enable-threads unless told otherwise.
    class PlainUwsgi(UwsgiServer):
        def command(self) -> Sequence[str]:
            return [word for word in super().command() if word != '--enable-threads']

    with PlainUwsgi(
        APP, django_settings=SETTINGS, redis_server=redis_server, gevent=None
    ) as server:
        with pytest.raises(HandshakeRefused) as caught:
            RawWebSocket(f'{server.ws_url}/echo/')
        assert caught.value.response.status == 501
        assert b'--gevent' in caught.value.response.body


class NginxWithUwsgiPass(HttpServerProcess):
    """NGINX as it serves any Django project: everything goes by `uwsgi_pass`."""

    name = 'NGINX'

    def __init__(self, unix_socket_path: str) -> None:
        super().__init__()
        self.port = free_port()
        self._directory = scratch_directory()
        paths = ' '.join(
            f'{name}_temp_path {self._directory}/{name};'
            for name in ('client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi')
        )
        (self._directory / 'nginx.conf').write_text(
            f'daemon off; pid {self._directory}/pid; error_log stderr warn; events {{}}'
            f'{"user root;" if os.geteuid() == 0 else ""}\n'
            f'http {{ access_log off; {paths}\n'
            f'server {{ listen {self.host}:{self.port};\n'
            '    location / { include /etc/nginx/uwsgi_params;\n'
            f'        uwsgi_pass unix:{unix_socket_path}; }} }} }}\n'
        )

    def command(self) -> Sequence[str]:
        conf = str(self._directory / 'nginx.conf')
        return [require_executable('nginx'), '-c', conf, '-e', 'stderr']

    def wait_until_ready(self, since: int) -> None:
        wait_for_port((self.host, self.port))


@pytest.mark.deployment
@pytest.mark.parametrize('concurrency', [{'gevent': 20}, {'gevent': None, 'threads': 8}])
def test_views_talk_behind_uwsgi_pass(
    concurrency: dict[str, Any], redis_server: RedisServer
) -> None:
    with (
        uwsgi(redis_server, http=None, **concurrency) as server,
        NginxWithUwsgiPass(server.unix_socket_path) as nginx,
    ):
        with RawWebSocket(f'{nginx.ws_url}/echo/', headers={'Host': 'localhost'}) as websocket:
            for message in ('text', b'x' * 100_000):
                websocket.send(message)
                assert websocket.receive() == message
            assert websocket.close() == (1000, '')
        assert '(HTTP/1.1 101)' in server.wait_for_log('GET /echo/')
        log = nginx.log_text()
    assert log == ''


def test_gunicorn_answers_501_and_says_why(redis_server: RedisServer) -> None:
    try:
        import gunicorn  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        require(False, 'gunicorn is not installed')
    with GunicornServer(redis_server=redis_server) as server:
        with pytest.raises(HandshakeRefused) as caught:
            RawWebSocket(f'{server.ws_url}/echo/')
        assert caught.value.response.status == 501
        assert b'cannot hand over its sockets' in caught.value.response.body
        server.wait_for_log('cannot hand over its sockets')
        assert server.get('/plain/') == 'plain'
