"""The native door where it speaks TLS."""

from __future__ import annotations

import socket
import ssl

import pytest

from tests.servers.native.served import OPENED, PROXY_LINE, Serve, Served, read_all, request
from tests.timeouts import wait_until
from ws4redis.servers.native.tls import make_context


def tls_client(
    served: Served, cafile: str, *, session: ssl.SSLSession | None = None
) -> ssl.SSLSocket:
    context = CONTEXTS.setdefault(cafile, ssl.create_default_context(cafile=cafile))
    return context.wrap_socket(served.client(), server_hostname='127.0.0.1', session=session)


CONTEXTS: dict[str, ssl.SSLContext] = {}


def test_tls_is_spoken_and_a_session_resumed(serve: Serve, certificate: tuple[str, str]) -> None:
    served = serve(tls=make_context(*certificate))
    with tls_client(served, certificate[0]) as client:
        client.sendall(request())
        assert read_all(client) == OPENED
        session = client.session
    with tls_client(served, certificate[0], session=session) as client:
        client.sendall(request())
        assert read_all(client) == OPENED
        assert client.session_reused
    assert (served.door.tls_agreed, served.door.tls_resumed) == (2, 1)
    assert served.environs[0]['wsgi.url_scheme'] == 'https'


def test_plain_http_on_the_tls_port_is_told_so(serve: Serve, certificate: tuple[str, str]) -> None:
    served = serve(tls=make_context(*certificate))
    answer = served.ask(request())
    assert answer.startswith(b'HTTP/1.1 400 ')
    assert b'This port speaks TLS' in answer
    wait_until(lambda: served.connections == 0)


@pytest.mark.parametrize('sent', [b'', b'\x16\x03\x01\x02\x00', b'\x16' * 100])
def test_a_handshake_of_tls_that_gets_nowhere_has_a_deadline(
    serve: Serve, certificate: tuple[str, str], sent: bytes
) -> None:
    served = serve(tls=make_context(*certificate), timeout_seconds=0.3)
    with served.client() as client:
        client.sendall(sent)
        read_all(client)
    wait_until(lambda: served.connections == 0)
    with tls_client(served, certificate[0]) as good:
        good.sendall(request())
        assert read_all(good) == OPENED


def test_a_handshake_of_tls_that_comes_byte_by_byte_succeeds(
    serve: Serve, certificate: tuple[str, str]
) -> None:
    served = serve(
        tls=make_context(*certificate), trusted=('127.0.0.1',), takes_proxy_protocol=True
    )
    context = ssl.create_default_context(cafile=certificate[0])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname='127.0.0.1')
    with served.client() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(PROXY_LINE)

        def send() -> None:
            for byte in outgoing.read():
                client.sendall(bytes([byte]))

        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                send()
                incoming.write(client.recv(65536))
        tls.write(request())
        send()
        incoming.write(read_all(client))
        answer = tls.read(1000)
    assert answer.startswith(OPENED[:30])
    assert served.environs[0]['REMOTE_ADDR'] == '192.0.2.7'
