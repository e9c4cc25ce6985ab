"""Heads of requests: what is parsed, and what is refused with which status."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws4redis.exceptions import HandshakeError
from ws4redis.protocol.http1 import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_LINE_BYTES,
    HeadReader,
    RequestHead,
    encode_response,
    parse_head,
)

HANDSHAKE = (
    b'GET /ws/r%C3%A4t%20sel?subscribe-broadcast&x=%41 HTTP/1.1\r\n'
    b'Host: example.com:8000\r\n'
    b'Upgrade: websocket\r\n'
    b'Connection: keep-alive, Upgrade\r\n'
    b'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
    b'Sec-WebSocket-Version: 13\r\n'
    b'Cookie: a=1\r\n'
    b'Cookie: b=2\r\n'
    b'X-List: one  \r\n'
    b'x-list: two\r\n'
    b'\r\n'
)


def head_with(*lines: str, first: str = 'GET /ws/x HTTP/1.1', host: str = 'Host: a') -> bytes:
    return '\r\n'.join([first, *([host] if host else []), *lines, '', '']).encode('latin-1')


def status_of(data: bytes) -> int:
    with pytest.raises(HandshakeError) as refused:
        HeadReader().receive_data(data)
    return refused.value.status


def feed(chunks: Iterable[bytes]) -> tuple[RequestHead | None, bytes]:
    reader = HeadReader()
    head = None
    for chunk in chunks:
        assert head is None
        head = reader.receive_data(chunk)
    return head, reader.rest


def test_a_handshake_is_parsed() -> None:
    head = parse_head(HANDSHAKE)
    assert (head.method, head.version) == ('GET', '1.1')
    assert head.path == '/ws/r\xc3\xa4t sel'
    assert head.query == 'subscribe-broadcast&x=%41'
    assert head.headers['host'] == 'example.com:8000'
    assert head.headers['cookie'] == 'a=1; b=2'
    assert head.headers['x-list'] == 'one, two'
    assert not head.has_body
    assert head.keeps_alive


@given(st.lists(st.integers(0, len(HANDSHAKE)), max_size=20))
def test_it_makes_no_difference_in_which_pieces_a_head_comes(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(HANDSHAKE)]
    chunks = [HANDSHAKE[a:b] for a, b in itertools.pairwise(edges) if a < b]
    head, rest = feed(chunks)
    assert head is not None
    assert head.headers == parse_head(HANDSHAKE).headers
    assert rest == b''


def test_what_follows_a_head_is_kept() -> None:
    head, rest = feed([HANDSHAKE + b'\x81\x00GET'])
    assert head is not None
    assert rest == b'\x81\x00GET'


def test_line_breaks_before_a_request_are_skipped() -> None:
    head, _ = feed([b'\r\n', b'\r\n' + HANDSHAKE])
    assert head is not None


@pytest.mark.parametrize(
    ('data', 'status'),
    [
        (HANDSHAKE.replace(b'\r\n', b'\n'), 400),
        (head_with('A: b\nC: d'), 400),
        (head_with('A: b\r\r\nC: d'), 400),
        (head_with('A: b', ' folded'), 400),
        (head_with('A : b'), 400),
        (head_with('A\0: b'), 400),
        (head_with('A: b\0c'), 400),
        (head_with('no colon'), 400),
        (head_with('Host: b'), 400),
        (head_with(host=''), 400),
        (head_with(host='Host: '), 400),
        (head_with('Content-Length: 1', 'Content-Length: 1'), 400),
        (head_with('Content-Length: 1', 'Transfer-Encoding: chunked'), 400),
        (head_with('Content-Length: -1'), 400),
        (head_with('Sec-WebSocket-Key: a', 'Sec-WebSocket-Key: a'), 400),
        (head_with('Sec-WebSocket-Version: 13', 'Sec-WebSocket-Version: 8'), 400),
        (head_with('Origin: http://a', 'Origin: http://b'), 400),
        (head_with(first='GET /ws/x'), 400),
        (head_with(first='GET /ws/x HTTP/0.9'), 505),
        (head_with(first='GET /ws/x HTTP/2.0'), 505),
        (head_with(first='GET /ws/x HTTP/3'), 505),
        (b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 505),
        (head_with(first='NONSENSE /ws/x HTTP/1.1'), 400),
        (head_with(first='CONNECT a:80 HTTP/1.1'), 400),
        (head_with(first='OPTIONS * HTTP/1.1'), 400),
        (head_with(first='GET /ws/x#fragment HTTP/1.1'), 400),
        (head_with(first='GET ws/x HTTP/1.1'), 400),
        (head_with(first='GET http://user@a/ws/x HTTP/1.1'), 400),
        (head_with(first='GET ftp://a/ws/x HTTP/1.1'), 400),
        (head_with(first='GET /\x01 HTTP/1.1'), 400),
        (b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 400),
        (b'\x81\x05hello\r\n\r\n', 400),
        (head_with(first=f'GET /{"x" * MAX_LINE_BYTES} HTTP/1.1'), 414),
        (b'GET /' + b'x' * MAX_LINE_BYTES, 414),
        (head_with(f'A: {"x" * MAX_HEAD_BYTES}'), 431),
        (head_with(f'A: {"x" * MAX_HEAD_BYTES}')[:-2], 431),
        (head_with(*[f'A{number}: b' for number in range(MAX_HEADERS)]), 431),
    ],
)
def test_what_is_no_head_is_refused(data: bytes, status: int) -> None:
    assert status_of(data) == status


def test_a_bare_line_feed_is_refused_before_the_head_is_whole() -> None:
    assert status_of(b'GET / HTTP/1.1\nHost: a\n\n') == 400
    reader = HeadReader()
    assert reader.receive_data(b'GET / HTTP/1.1\r') is None
    assert reader.receive_data(b'\nHost: a\r\nB: c') is None
    with pytest.raises(HandshakeError):
        reader.receive_data(b'\n')


def test_an_absolute_target_names_the_host() -> None:
    head = parse_head(head_with(first='GET ws://b:80/ws/x?y HTTP/1.1'))
    assert (head.headers['host'], head.path, head.query) == ('b:80', '/ws/x', 'y')
    assert parse_head(head_with(first='GET http://b?y HTTP/1.1')).path == '/'


def test_a_header_that_wsgi_would_take_for_another_is_dropped() -> None:
    headers = parse_head(head_with('X_Forwarded_For: evil', 'X-Forwarded-For: good')).headers
    assert headers['x-forwarded-for'] == 'good'
    assert 'x_forwarded_for' not in headers


@pytest.mark.parametrize(
    ('lines', 'version', 'keeps_alive'),
    [
        ((), '1.1', True),
        (('Connection: close',), '1.1', False),
        (('Content-Length: 0',), '1.1', True),
        (('Content-Length: 5',), '1.1', False),
        (('Transfer-Encoding: chunked',), '1.1', False),
        ((), '1.0', False),
        (('Connection: keep-alive',), '1.0', True),
    ],
)
def test_it_is_known_whether_another_request_may_follow(
    lines: tuple[str, ...], version: str, keeps_alive: bool
) -> None:
    head = parse_head(head_with(*lines, first=f'GET / HTTP/{version}'))
    assert head.keeps_alive is keeps_alive


@given(st.binary(max_size=300), st.integers(0, 300))
def test_whatever_comes_it_is_a_head_a_refusal_or_the_beginning_of_one(
    junk: bytes, at: int
) -> None:
    for data in (junk, HANDSHAKE[:at] + junk + HANDSHAKE[at:], junk + b'\r\n\r\n'):
        status, head = 400, None
        try:
            head = HeadReader().receive_data(data)
        except HandshakeError as error:
            status = error.status
        assert 400 <= status <= 505
        assert head is None or '\n' not in ''.join(head.headers.values())


def test_a_response_is_written() -> None:
    assert encode_response(404, [('A', 'b')], b'c') == b'HTTP/1.1 404 Not Found\r\nA: b\r\n\r\nc'
    assert encode_response(404, [], b'c', head_only=True).endswith(b'\r\n\r\n')
