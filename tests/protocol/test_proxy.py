"""The PROXY protocol: whose connection it is, or that nobody's proxy speaks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws4redis.protocol.proxy import ProxyHeader, ProxyProtocolError, parse_proxy_header

SIGNATURE = b'\r\n\r\n\0\r\nQUIT\n'
LINE = b'PROXY TCP4 192.0.2.7 10.0.0.1 51111 443\r\n'
BLOCK = bytes([192, 0, 2, 7, 10, 0, 0, 1]) + b'\xc7\xa7\x01\xbb'
V2 = SIGNATURE + b'\x21\x11' + len(BLOCK).to_bytes(2, 'big') + BLOCK
V6 = bytes(15) + b'\x01' + bytes(15) + b'\x02' + b'\x00\x50\x01\xbb'


@pytest.mark.parametrize(
    ('data', 'header'),
    [
        (LINE, ProxyHeader(('192.0.2.7', 51111), len(LINE))),
        (LINE + b'GET /', ProxyHeader(('192.0.2.7', 51111), len(LINE))),
        (b'PROXY TCP6 ::1 ::2 80 443\r\n', ProxyHeader(('::1', 80), 27)),
        (b'PROXY UNKNOWN\r\n', ProxyHeader(None, 15)),
        (b'PROXY UNKNOWN ff:: any thing\r\n', ProxyHeader(None, 30)),
        (V2, ProxyHeader(('192.0.2.7', 51111), len(V2))),
        (V2 + b'\x16\x03', ProxyHeader(('192.0.2.7', 51111), len(V2))),
        (SIGNATURE + b'\x21\x21\x00\x24' + V6, ProxyHeader(('::1', 80), 52)),
        (SIGNATURE + b'\x20\x00\x00\x00', ProxyHeader(None, 16)),
        (
            SIGNATURE + b'\x21\x11\x00\x0f' + BLOCK + b'\x04\0\0',
            ProxyHeader(('192.0.2.7', 51111), 31),
        ),
    ],
)
def test_a_header_tells_of_the_client(data: bytes, header: ProxyHeader) -> None:
    assert parse_proxy_header(data) == header


@pytest.mark.parametrize('whole', [LINE, V2])
def test_as_long_as_it_is_incomplete_it_is_none(whole: bytes) -> None:
    for end in range(len(whole)):
        assert parse_proxy_header(whole[:end]) is None


@pytest.mark.parametrize(
    'data',
    [
        b'GET / HTTP/1.1\r\n\r\n',
        b'PROXY TCP4 192.0.2.7 10.0.0.1 51111\r\n',
        b'PROXY TCP4 192.0.2.999 10.0.0.1 1 2\r\n',
        b'PROXY TCP4 ::1 ::2 1 2\r\n',
        b'PROXY TCP4 192.0.2.7 10.0.0.1 70000 2\r\n',
        b'PROXY TCP4 \xe4 10.0.0.1 1 2\r\n',
        b'PROXY \r\n',
        b'PROXY ' + b'x' * 120,
        SIGNATURE + b'\x31\x11\x00\x0c' + BLOCK,
        SIGNATURE + b'\x25\x11\x00\x0c' + BLOCK,
        SIGNATURE + b'\x21\x11\x00\x02ab',
        SIGNATURE + b'\x21\x11\xff\xff' + BLOCK,
    ],
)
def test_anything_else_is_none_of_our_proxies(data: bytes) -> None:
    with pytest.raises(ProxyProtocolError):
        parse_proxy_header(data)


@given(st.binary(max_size=120), st.sampled_from([b'', b'PROXY ', SIGNATURE]))
def test_whatever_comes_nothing_else_is_raised(junk: bytes, beginning: bytes) -> None:
    try:
        header = parse_proxy_header(beginning + junk)
    except ProxyProtocolError:
        return
    assert header is None or header.length <= len(beginning + junk)
