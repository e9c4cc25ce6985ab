from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.client_frames import parse_server_frames
from ws4redis.protocol.frames import Opcode
from ws4redis.protocol.wire import (
    FAST_FROM_BYTES,
    PLAIN,
    UNCOMPRESSED_FROM_BYTES,
    WireFormat,
    deflate_wire,
)

TEXT_THAT_SHRINKS = b'{"user": "john", "text": "hello"}' * 20


def inflate(payload: bytes) -> bytes:
    return zlib.decompressobj(-15).decompress(payload + b'\x00\x00\xff\xff')


def test_text_goes_out_as_text_and_all_else_as_binary() -> None:
    assert PLAIN.encode_message('grüße'.encode()) == b'\x81\x07' + 'grüße'.encode()
    assert PLAIN.encode_message(b'\xff\xfe') == b'\x82\x02\xff\xfe'


def test_a_given_opcode_is_kept() -> None:
    assert PLAIN.encode_message(b'abc', Opcode.BINARY) == b'\x82\x03abc'
    assert deflate_wire(15, 6, 100).encode_message(b'abc', Opcode.BINARY) == b'\x82\x03abc'


def test_equal_parameters_give_the_same_wire_format() -> None:
    assert deflate_wire(15, 6, 256) is deflate_wire(15, 6, 256)
    assert deflate_wire(15, 6, 256) is not deflate_wire(14, 6, 256)


def test_a_message_is_compressed_and_marked() -> None:
    frame = deflate_wire(15, 6, 256).encode_message(TEXT_THAT_SHRINKS)
    ((first, payload),) = parse_server_frames(frame)
    assert first == 0xC1
    assert inflate(payload) == TEXT_THAT_SHRINKS
    assert len(frame) < len(TEXT_THAT_SHRINKS) / 5


@pytest.mark.parametrize(
    'payload', [b'', b'short', TEXT_THAT_SHRINKS[:255], random.Random(1).randbytes(1000)]
)
def test_what_is_small_or_does_not_shrink_goes_uncompressed(payload: bytes) -> None:
    assert deflate_wire(15, 6, 256).encode_message(payload) == PLAIN.encode_message(payload)


def test_an_empty_message_is_never_compressed() -> None:
    assert deflate_wire(15, 6, 0).encode_message(b'') == b'\x81\x00'


@given(payload=st.binary(max_size=600), minimum=st.sampled_from([0, 1, 100]))
def test_any_message_arrives_whatever_the_wire_format(payload: bytes, minimum: int) -> None:
    for wire in (PLAIN, deflate_wire(15, 1, minimum)):
        assert isinstance(wire, WireFormat)
        ((first, received),) = parse_server_frames(wire.encode_message(payload))
        assert (inflate(received) if first & 0x40 else received) == payload


def test_large_messages_are_compressed_fast_and_the_largest_not_at_all() -> None:
    wire = deflate_wire(15, 9, 256)
    large = bytes(random.Random(1).choices(b'abcd', k=FAST_FROM_BYTES))
    ((first, small_payload),) = parse_server_frames(wire.encode_message(large[:-1]))
    ((_, large_payload),) = parse_server_frames(wire.encode_message(large))
    assert first == 0xC1
    assert inflate(small_payload) == large[:-1]
    assert inflate(large_payload) == large
    assert len(small_payload) < len(large_payload) < len(large) / 2
    largest = b'x' * UNCOMPRESSED_FROM_BYTES
    assert wire.encode_message(largest) == PLAIN.encode_message(largest)
    assert len(wire.encode_message(largest[:-1])) < 100_000
