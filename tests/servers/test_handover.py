"""How each server gives up the socket of a request."""

from __future__ import annotations

import os
import socket
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.hub.rig import run_program
from tests.serving import served
from tests.timeouts import wait_until
from tests.websocket_client import RawWebSocket
from ws4redis.exceptions import HandoverNotSupported
from ws4redis.servers.handover import check_supported, take_socket

HEADERS = [('Upgrade', 'websocket'), ('Connection', 'Upgrade'), ('X-Name', 'gr\xfc\xdfe')]


@pytest.fixture
def no_uwsgi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, 'uwsgi', raising=False)


def test_an_unknown_server_is_refused_with_advice(no_uwsgi: None) -> None:
    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        raise AssertionError

    for call in (check_supported, lambda e, s: take_socket(e, s, HEADERS)):
        with pytest.raises(HandoverNotSupported, match='uWSGI') as caught:
            call({}, start_response)
        # It may as well be middleware of the project.
        assert f'{__name__}.test_an_unknown_server' in str(caught.value)


def test_the_development_server_gives_up_its_socket_and_sends_nothing_of_its_own(
    no_uwsgi: None,
) -> None:
    taken: list[Any] = []

    def application(environ: Any, start_response: Any) -> list[bytes]:
        check_supported(environ, start_response)
        taken.append(take_socket(environ, start_response, HEADERS))
        return []

    with served(application) as server:
        with RawWebSocket(f'{server.ws_url}/', connect=False) as client:
            client._headers = {'Sec-WebSocket-Key': 'any'}
            answer = client.handshake()
            assert answer.headers['x-name'] == 'gr\xfc\xdfe'
            # The request ends after its answer; the socket is ours.
            wait_until(lambda: taken)
            [sock] = taken
            assert sock.gettimeout() == 0
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            sock.send(b'\x81\x05hello')
            assert client.receive() == 'hello'
            sock.close()
            client.expect_end()


@pytest.mark.parametrize('kind', ['wsgiref', 'pywsgi'])
def test_middleware_that_wraps_start_response_is_no_hindrance(no_uwsgi: None, kind: str) -> None:
    program = WRAPPED_PROGRAM.replace('KIND', kind)
    assert run_program(program) == 'answered, echoed, quiet\n'


WRAPPED_PROGRAM = """
    import contextlib, io, sys, threading
    from django.conf import settings
    settings.configure()
    from tests.websocket_client import RawWebSocket
    from ws4redis.servers.handover import check_supported, take_socket

    HEADERS = [('Upgrade', 'websocket'), ('Connection', 'Upgrade'), ('X-Name', 'name')]
    seen = []

    def application(environ, start_response):
        check_supported(environ, start_response)
        sock = take_socket(environ, start_response, HEADERS)
        sock.send(b'\\x81\\x05hello')
        seen.append(sock)
        return []

    def timing(environ, start_response):
        def start(status, headers, exc_info=None):
            seen.append(status)
            return start_response(status, [*headers, ('X-Milliseconds', '1')], exc_info)
        return application(environ, start)

    log = io.StringIO()
    with contextlib.redirect_stderr(log):
        if 'KIND' == 'pywsgi':
            import gevent
            from gevent.pywsgi import WSGIServer
            server = WSGIServer(('127.0.0.1', 0), timing, log=None)
            server.start()
            port = server.server_port
            serve = lambda: gevent.sleep(0.05)
        else:
            from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
            class Handler(WSGIRequestHandler):
                def log_message(self, *args): pass
            server = ThreadedWSGIServer(('127.0.0.1', 0), Handler)
            server.set_app(timing)
            port = server.server_port
            threading.Thread(target=server.serve_forever, daemon=True).start()
        def talk():
            with RawWebSocket(f'ws://127.0.0.1:{port}/', connect=False) as client:
                client._headers = {'Sec-WebSocket-Key': 'any'}
                assert client.handshake().headers['x-name'] == 'name'
                assert client.receive() == 'hello'
                talked.append('answered, echoed')
        talked = []
        if 'KIND' == 'pywsgi':
            assert gevent.get_hub().threadpool.apply_async(talk).get(timeout=20) is None
        else:
            talk()
            server.shutdown()
    assert '101 Switching Protocols' in seen
    assert 'Traceback' not in log.getvalue(), log.getvalue()
    print(*talked, 'quiet', sep=', ')
"""


class FakeUwsgi:
    """uWSGI as an application sees it, on one end of a socketpair."""

    def __init__(self, **options: object) -> None:
        self.ours, self.client = socket.socketpair()
        self.opt = options
        self.sent: list[Any] = []

    def connection_fd(self) -> int:
        return self.ours.fileno()

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        self.sent.append((status, headers))
        return self.sent.append

    def close(self) -> None:
        self.ours.close()
        self.client.close()


@pytest.fixture
def uwsgi(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = FakeUwsgi(threads=b'2')
    monkeypatch.setitem(sys.modules, 'uwsgi', fake)
    yield fake
    fake.close()


def test_uwsgi_answers_and_its_socket_outlives_the_request(uwsgi: FakeUwsgi) -> None:
    check_supported({}, uwsgi.start_response)
    sock = take_socket({}, uwsgi.start_response, HEADERS)
    # The headers are sent by an empty write, before any frame.
    assert uwsgi.sent == [('101 Switching Protocols', HEADERS), b'']
    # As uWSGI does at the request's end.
    uwsgi.ours.close()
    sock.send(b'frame')
    assert uwsgi.client.recv(10) == b'frame'
    sock.close()


def test_a_client_that_has_left_leaves_no_descriptor(uwsgi: FakeUwsgi) -> None:
    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        raise OSError('write error')

    before = len(os.listdir('/proc/self/fd'))
    with pytest.raises(OSError, match='write error'):
        take_socket({}, start_response, HEADERS)
    assert len(os.listdir('/proc/self/fd')) == before


def test_tls_that_lives_in_uwsgis_request_is_refused_with_advice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {'https-socket': b':443,a,b', 'http-socket': b':80', 'gevent': b'10'}
    monkeypatch.setitem(sys.modules, 'uwsgi', SimpleNamespace(opt=options))
    with pytest.raises(HandoverNotSupported, match='--https'):
        check_supported({'HTTPS': 'on'}, print)  # type: ignore[arg-type]
    # A plain socket of the same server is fine.
    check_supported({}, print)  # type: ignore[arg-type]
