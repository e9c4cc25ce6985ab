"""How each server gives up the socket of a request."""

from __future__ import annotations

import os
import socket
import sys
from types import SimpleNamespace
from typing import Any

import pytest

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
        with pytest.raises(HandoverNotSupported, match='uWSGI'):
            call({}, start_response)


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
    options = {'https-socket': b':443,a,b', 'gevent': b'10'}
    monkeypatch.setitem(sys.modules, 'uwsgi', SimpleNamespace(opt=options))
    with pytest.raises(HandoverNotSupported, match='--https'):
        check_supported({'HTTPS': 'on'}, print)  # type: ignore[arg-type]
    # A plain socket of the same server is fine.
    check_supported({}, print)  # type: ignore[arg-type]
