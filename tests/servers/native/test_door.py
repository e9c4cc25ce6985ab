"""The native door: requests, bodies and proxies, and what it answers."""

from __future__ import annotations

import socket

import pytest

from tests.servers.native.served import OPENED, PROXY_LINE, Serve, Served, post, read_all, request
from tests.timeouts import wait_until


def test_a_request_is_answered_and_its_socket_handed_over(served: Served) -> None:
    assert served.ask(request()) == OPENED
    assert served.environs[0]['REMOTE_ADDR'] == '127.0.0.1'


def test_one_byte_at_a_time_makes_no_difference(served: Served) -> None:
    with served.client() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request():
            client.sendall(bytes([byte]))
        assert read_all(client) == OPENED


@pytest.mark.parametrize(
    ('data', 'status'),
    [
        (b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 400),
        (b'nonsense\r\n\r\n', 400),
        (b'GET /ws HTTP/1.1\nHost: a\n\n', 400),
        (request('/ws', 'Host: b'), 400),
        (request('/ws', 'Content-Length: 3', 'Content-Length: 4'), 400),
        (b'GET /ws HTTP/1.1\r\n\r\n', 400),
        (b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 505),
        (b'GET /ws HTTP/2.0\r\nHost: a\r\n\r\n', 505),
        (b'GET /' + b'a' * 10_000, 414),
        (request('/ws', 'A: ' + 'b' * 65536), 431),
        (request('ftp://b/ws'), 400),
    ],
)
def test_what_is_no_request_is_refused(served: Served, data: bytes, status: int) -> None:
    answer = served.ask(data)
    assert answer.startswith(f'HTTP/1.1 {status} '.encode())
    assert b'\r\nConnection: close\r\n' in answer
    assert served.statuses == [status]
    assert not served.environs
    wait_until(lambda: served.connections == 0)


def test_an_absolute_target_is_as_good(served: Served) -> None:
    assert served.ask(request('http://b:81/ws')) == OPENED
    assert served.environs[0]['HTTP_HOST'] == 'b:81'


def test_a_refusal_keeps_the_connection_for_another_request(served: Served) -> None:
    with served.client() as client:
        for _ in range(3):
            client.sendall(request('/none'))
            answer = client.recv(65536)
            assert answer.startswith(b'HTTP/1.1 404 ')
            assert b'Connection: keep-alive' in answer
        client.sendall(request())
        assert read_all(client) == OPENED


def test_requests_in_one_packet_are_answered_in_order(served: Served) -> None:
    answers = served.ask(request('/none') + request('/page') + request())
    assert answers.startswith(b'HTTP/1.1 404')
    assert b'GETHTTP/1.1 101' in answers
    assert answers.endswith(b'hello')


@pytest.mark.parametrize('length', [10, None])
def test_a_request_that_comes_before_the_answer_is_answered_next(
    served: Served, length: int | None
) -> None:
    second = request('/page', 'Connection: close', method='HEAD')
    with served.client() as client:
        client.sendall(request('/slow-page'))
        wait_until(lambda: len(served.door.busy) == 1)
        (connection,) = served.door.busy
        client.sendall(second[:length])
        wait_until(lambda: connection._reader.rest == second[:length])
        if length is not None:
            client.sendall(second[length:])
        served.may_go_on.set()
        answer = read_all(client)
    assert answer.count(b'HTTP/1.1 200 ') == 2
    assert [environ['REQUEST_METHOD'] for environ in served.environs] == ['GET', 'HEAD']


def test_a_thousand_requests_in_one_packet_let_others_through(served: Served) -> None:
    with served.client() as flood:
        flood.sendall(request('/none') * 1000)
        assert served.ask(request()) == OPENED
        answer = b''
        while answer.count(b'nothing here') < 1000:
            answer += flood.recv(65536)


@pytest.mark.parametrize('line', ['Content-Length: 5', 'Transfer-Encoding: chunked'])
def test_a_body_ends_the_connection_after_the_answer(served: Served, line: str) -> None:
    with served.client() as client:
        client.sendall(request('/none', line, method='POST') + b'GET /ws HTTP/1.1\r\n\r\n')
        answer = read_all(client)
    assert b'Connection: close' in answer
    assert answer.count(b'HTTP/1.1') == 1


def test_a_body_that_is_wanted_is_read_and_the_connection_kept(served: Served) -> None:
    with served.client() as client:
        for body in (b'abc', b'', b'x' * 9_999 + b'y'):
            client.sendall(post(body))
            answer = b''
            while not answer.endswith(body[::-1]) or b'\r\n\r\n' not in answer:
                answer += client.recv(65536)
            assert b'Connection: keep-alive' in answer
    both = served.ask(post(b'abc') + post(b'def', 'Connection: close'))
    assert both.endswith(b'fed')
    assert b'cba' in both


def test_a_body_may_come_byte_by_byte(served: Served) -> None:
    with served.client() as client:
        for byte in post(b'abc', 'Connection: close'):
            client.sendall(bytes([byte]))
        assert read_all(client).endswith(b'cba')


def test_who_asks_whether_to_send_a_body_is_told_so(served: Served) -> None:
    with served.client() as client:
        client.sendall(post(b'', 'Expect: 100-continue', 'Connection: close', length=3))
        assert client.recv(65536) == b'HTTP/1.1 100 Continue\r\n\r\n'
        client.sendall(b'abc')
        assert read_all(client).endswith(b'cba')


@pytest.mark.parametrize(
    ('data', 'status'),
    [
        (post(b'', length=10_001), 413),
        (request('/body', f'Content-Length: {"9" * 15}', method='POST'), 413),
        (request('/body', method='POST'), 411),
        (request('/body', 'Transfer-Encoding: chunked', method='POST'), 411),
        (request('/body', 'Content-Length: -1', method='POST'), 400),
        (request('/body', 'Content-Length: +1', method='POST'), 400),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(served: Served, data: bytes, status: int) -> None:
    assert served.ask(data).startswith(f'HTTP/1.1 {status} '.encode())
    assert served.environs == []


def test_a_body_has_the_deadline_of_its_head(serve: Serve) -> None:
    served = serve(timeout_seconds=0.2)
    assert served.ask(post(b'ab', length=3)).startswith(b'HTTP/1.1 408 ')
    with served.client() as client:
        client.sendall(post(b'ab', length=3))
    wait_until(lambda: served.connections == 0)
    assert served.environs == []


def test_the_answer_to_head_has_no_body(served: Served) -> None:
    answer = served.ask(request('/page', 'Connection: close', method='HEAD'))
    assert answer.startswith(b'HTTP/1.1 200 ')
    assert b'Content-Length: 4' in answer
    assert answer.endswith(b'\r\n\r\n')


def test_data_before_the_answer_is_refused(served: Served) -> None:
    assert b'before the handshake was answered' in served.ask(request() + b'\x81\x00')
    with served.client() as client:
        client.sendall(request('/slow'))
        wait_until(lambda: len(served.door.busy) == 1)
        client.sendall(b'\x81\x00')
        # The loop has taken it when it has answered somebody else.
        assert served.ask(request()) == OPENED
        served.may_go_on.set()
        assert client.recv(65536).startswith(b'HTTP/1.1 400 ')


def test_an_exception_is_answered_with_500_and_nothing_of_it(served: Served) -> None:
    answer = served.ask(request('/fails', 'Connection: close'))
    assert answer.startswith(b'HTTP/1.1 500 ')
    assert b'secret' not in answer


def test_only_a_trusted_proxy_says_who_the_client_is(serve: Serve) -> None:
    lines = (
        *('X-Forwarded-For: 203.0.113.9, 192.0.2.1', 'X-Forwarded-Proto: https'),
        *('X-Forwarded-Host: b', 'X-Forwarded-Port: 444', 'Forwarded: host=b'),
    )
    for trusted, address, scheme in (
        (('127.0.0.0/8',), '192.0.2.1', 'https'),
        (('127.0.0.1', '192.0.2.0/24'), '203.0.113.9', 'https'),
        (('10.0.0.0/8',), '127.0.0.1', 'http'),
        ((), '127.0.0.1', 'http'),
    ):
        served = serve(trusted=trusted)
        assert served.ask(request('/ws', *lines)) == OPENED
        environ = served.environs[0]
        assert (environ['REMOTE_ADDR'], environ['wsgi.url_scheme']) == (address, scheme)
        # What somebody else claims is not even passed on, once it is said who is believed.
        claims = [name for name in environ if 'FORWARDED' in name]
        assert len(claims) == (0 if trusted == ('10.0.0.0/8',) else len(lines))


def test_a_header_of_the_proxy_protocol_names_the_client(serve: Serve) -> None:
    served = serve(trusted=('127.0.0.1',), takes_proxy_protocol=True)
    assert served.ask(PROXY_LINE + request()) == OPENED
    assert served.environs[0]['REMOTE_ADDR'] == '192.0.2.7'
    with served.client() as client:
        client.sendall(PROXY_LINE)
        wait_until(lambda: served.connections == 1)
        client.sendall(request())
        assert read_all(client) == OPENED


@pytest.mark.parametrize(
    ('trusted', 'data'),
    [
        (('127.0.0.1',), request()),
        (('127.0.0.1',), PROXY_LINE[:10]),
        (('10.0.0.1',), PROXY_LINE + request()),
    ],
)
def test_whoever_is_no_proxy_of_ours_is_not_answered(
    serve: Serve, trusted: tuple[str, ...], data: bytes
) -> None:
    served = serve(trusted=trusted, takes_proxy_protocol=True)
    assert served.ask(data) == b''
    assert not served.environs
