"""Compressed messages of one connection by bytes, with each implementation of masking."""

from __future__ import annotations

import random
import tracemalloc
import zlib

import pytest

from tests.protocol.client_frames import MASK, client_frame
from tests.protocol.connections import (
    BINARY,
    CLOSE,
    CONTINUATION,
    INVALID_TEXT,
    PING,
    PONG,
    RSV1,
    TEXT,
    deflated,
    fails,
    open_connection,
)
from ws4redis.protocol.connection import Event
from ws4redis.protocol.frames import Opcode

pytestmark = pytest.mark.usefixtures('each_masking')


def both_ways(data: bytes) -> list[list[Event]]:
    """Return the events of ``data`` in one read and byte by byte."""
    whole, bytewise = open_connection(deflate=True), open_connection(deflate=True)
    return [
        whole.receive_data(data),
        [event for byte in data for event in bytewise.receive_data(bytes([byte]))],
    ]


@pytest.mark.parametrize('payload', [b'', b'Hello', 'grüße '.encode() * 5000])
def test_compressed_messages_arrive(payload: bytes) -> None:
    data = client_frame(TEXT, deflated(payload), rsv=RSV1)
    assert both_ways(data) == [[(TEXT, payload)]] * 2


def test_only_the_first_fragment_says_that_a_message_is_compressed() -> None:
    compressed = deflated(b'Hello ' * 50)
    data = (
        client_frame(BINARY, compressed[:5], rsv=RSV1, final=False)
        + client_frame(PING)
        + client_frame(CONTINUATION, compressed[5:6], final=False)
        + client_frame(CONTINUATION, compressed[6:])
        + client_frame(TEXT, b'not compressed')
    )
    expected = [(PING, b''), (BINARY, b'Hello ' * 50), (TEXT, b'not compressed')]
    assert both_ways(data) == [expected] * 2


def test_a_compressed_continuation_is_refused() -> None:
    connection = open_connection(deflate=True)
    connection.receive_data(client_frame(TEXT, deflated(b'x'), rsv=RSV1, final=False))
    assert fails(connection, client_frame(CONTINUATION, b'x', rsv=RSV1)) == 1002


@pytest.mark.parametrize('opcode', [CLOSE, PING, PONG])
def test_compressed_control_frames_are_refused(opcode: Opcode) -> None:
    assert fails(open_connection(deflate=True), client_frame(opcode, rsv=RSV1)) == 1002


@pytest.mark.parametrize('rsv', [1, 2, 3, 5, 6, 7])
def test_other_reserved_bits_stay_reserved(rsv: int) -> None:
    assert fails(open_connection(deflate=True), client_frame(TEXT, b'x', rsv=rsv)) == 1002


def test_what_was_not_negotiated_is_refused() -> None:
    assert fails(open_connection(), client_frame(TEXT, deflated(b'x'), rsv=RSV1)) == 1002


def test_a_message_that_cannot_be_inflated_is_refused() -> None:
    data = client_frame(BINARY, b'\xff\xff\xff\xff', rsv=RSV1)
    assert fails(open_connection(deflate=True), data) == 1007
    connection = open_connection(deflate=True)
    assert connection.receive_data(data[:8])[-1][0] is CLOSE


def test_compressed_text_must_be_utf8() -> None:
    data = client_frame(TEXT, deflated(INVALID_TEXT), rsv=RSV1)
    assert fails(open_connection(deflate=True), data) == 1007
    fragments = client_frame(TEXT, deflated(INVALID_TEXT), rsv=RSV1, final=False)
    assert fails(open_connection(deflate=True), fragments + client_frame(CONTINUATION)) == 1007


@pytest.mark.parametrize('final', [True, False])
def test_a_bomb_is_too_big(final: bool) -> None:
    bomb = deflated(b'\x00' * (64 << 20))
    assert len(bomb) < 70_000
    connection = open_connection(deflate=True)
    data = client_frame(BINARY, bomb, rsv=RSV1, final=final)
    tracemalloc.start()
    try:
        assert fails(connection, data) == 1009
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 << 20


def test_a_message_of_the_limit_arrives_even_if_it_does_not_shrink() -> None:
    payload = random.Random(2).randbytes(50_000)
    compressor = zlib.compressobj(0, zlib.DEFLATED, -15)
    stored = (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert len(stored) > len(payload)
    connection = open_connection(deflate=True, max_message_size=50_000)
    data = client_frame(BINARY, stored, rsv=RSV1, mask=MASK)
    assert connection.receive_data(data) == [(BINARY, payload)]
