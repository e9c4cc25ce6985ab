from __future__ import annotations

import random
import threading
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws4redis.exceptions import ProtocolError
from ws4redis.protocol.deflate import (
    MAX_STREAMS_PER_MESSAGE,
    Deflater,
    Inflater,
    inflate_message,
)

LIMIT = 1 << 20
HELLO = bytes.fromhex('f248cdc9c90700')  # RFC 7692, section 7.2.3.1


def reference_deflate(payload: bytes, *, bits: int = 15, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, -bits)
    compressed = compressor.compress(payload) + compressor.flush(flush)
    return compressed.removesuffix(b'\x00\x00\xff\xff')


def reference_inflate(compressed: bytes, *, bits: int = 15) -> bytes:
    return zlib.decompressobj(-bits).decompress(compressed + b'\x00\x00\xff\xff')


def in_pieces(compressed: bytes, size: int, limit: int = LIMIT) -> bytes:
    inflater = Inflater(limit)
    pieces = [compressed[at : at + size] for at in range(0, len(compressed), size)]
    return b''.join(map(inflater.inflate, pieces)) + inflater.finish()


@pytest.mark.parametrize(
    ('compressed', 'payload'),
    [
        (HELLO, b'Hello'),
        # With a block that is not compressed (7.2.3.3).
        (bytes.fromhex('000500faff48656c6c6f00'), b'Hello'),
        # With a final block (7.2.3.4), as the RFC demands and without the byte behind it.
        (bytes.fromhex('f348cdc9c9070000'), b'Hello'),
        (bytes.fromhex('f348cdc9c90700'), b'Hello'),
        # Two blocks in one message (7.2.3.5).
        (bytes.fromhex('f248050000 00ffffcac9c90700'.replace(' ', '')), b'Hello'),
        # Empty messages (7.2.3.6): a byte, or none at all.
        (b'\x00', b''),
        (b'\x02\x00', b''),
        (b'', b''),
    ],
)
def test_the_messages_of_the_rfc_are_inflated(compressed: bytes, payload: bytes) -> None:
    assert inflate_message(compressed, LIMIT) == payload
    assert in_pieces(compressed, 1) == payload


@given(payload=st.binary(max_size=3000), size=st.integers(1, 400), bits=st.integers(9, 15))
def test_pieces_of_any_size_inflate_to_the_message(payload: bytes, size: int, bits: int) -> None:
    compressed = reference_deflate(payload, bits=bits)
    assert in_pieces(compressed, size) == payload
    assert inflate_message(compressed, LIMIT) == payload


@pytest.mark.parametrize('flush', [zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_FINISH])
def test_any_way_of_flushing_is_understood(flush: int) -> None:
    payload = b'all the ways of flushing ' * 100
    assert inflate_message(reference_deflate(payload, flush=flush), LIMIT) == payload


def test_a_message_of_exactly_the_limit_is_inflated() -> None:
    payload = b'a' * 1000
    compressed = reference_deflate(payload)
    assert inflate_message(compressed, 1000) == payload
    assert in_pieces(compressed, 3, limit=1000) == payload


def test_a_byte_more_than_the_limit_is_too_big() -> None:
    compressed = reference_deflate(b'a' * 1001)
    for inflate in (inflate_message, lambda data, limit: in_pieces(data, 3, limit)):
        with pytest.raises(ProtocolError) as caught:
            inflate(compressed, 1000)
        assert caught.value.close_code == 1009


def test_a_bomb_is_stopped_while_it_inflates() -> None:
    bomb = reference_deflate(b'\x00' * (256 << 20))
    assert len(bomb) < 300_000
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError) as caught:
            inflate_message(bomb, LIMIT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.close_code == 1009
    assert peak < 6 * LIMIT


@pytest.mark.parametrize(
    'compressed',
    [
        b'\xff\xff\xff',
        b'not deflated at all',
        # Cut off inside of a block.
        reference_deflate(b'a longer text that is not only one block')[:10],
        # A stored block that announces more than there is.
        bytes.fromhex('000900f6ff4865'),
        bytes.fromhex('000009fff64865'),
        # A reference to what a message before it contained.
        bytes.fromhex('f200110000'),
    ],
)
def test_what_cannot_be_inflated_is_invalid(compressed: bytes) -> None:
    for inflate in (inflate_message, lambda data, limit: in_pieces(data, 2, limit)):
        with pytest.raises(ProtocolError) as caught:
            inflate(compressed, LIMIT)
        assert caught.value.close_code == 1007


def test_several_final_blocks_are_one_message() -> None:
    final_block = reference_deflate(b'part ', flush=zlib.Z_FINISH)
    assert inflate_message(final_block * 3 + b'\x00', LIMIT) == b'part part part '


def test_endless_final_blocks_are_refused() -> None:
    final_block = b'\x03\x00'
    with pytest.raises(ProtocolError) as caught:
        inflate_message(final_block * MAX_STREAMS_PER_MESSAGE * 2, LIMIT)
    assert caught.value.close_code == 1007


@given(data=st.binary(max_size=300), size=st.integers(1, 300))
def test_any_bytes_inflate_or_raise_a_protocol_error(data: bytes, size: int) -> None:
    results: list[bytes | int] = []
    for inflate in (inflate_message, lambda data, limit: in_pieces(data, size, limit)):
        try:
            results.append(inflate(data, 2000))
        except ProtocolError as error:
            results.append(error.close_code)
    assert results[0] == results[1]


# Deflating


@given(payloads=st.lists(st.binary(min_size=1, max_size=500), max_size=8), bits=st.integers(9, 15))
def test_each_message_is_inflated_without_those_before_it(payloads: list[bytes], bits: int) -> None:
    deflater = Deflater(bits, 6)
    repeated = [payload for payload in payloads for _ in range(2)]
    compressed = [deflater.compress(payload) for payload in repeated]
    assert [reference_inflate(data, bits=bits) for data in compressed] == repeated


def inflate_with_window(compressed: bytes, bits: int) -> bytes:
    """Inflate as a client does that has no more memory than the window."""
    stream = zlib.decompressobj(-bits)
    inflated, rest = b'', compressed + b'\x00\x00\xff\xff'
    while rest:
        inflated += stream.decompress(rest, 16)
        rest = stream.unconsumed_tail
    return inflated


@pytest.mark.parametrize('bits', range(9, 15))
def test_the_agreed_window_is_not_exceeded(bits: int) -> None:
    # What is repeated lies further back than the window.
    source = random.Random(bits)
    repeated = source.randbytes(300)
    payload = repeated + source.randbytes(1 << bits) + repeated
    assert inflate_with_window(Deflater(bits, 9).compress(payload), bits) == payload
    with pytest.raises(zlib.error, match='too far back'):
        inflate_with_window(Deflater(15, 9).compress(payload), bits)


def test_a_large_message_is_compressed() -> None:
    payload = b'{"user": "john", "text": "hello"}' * 50_000
    compressed = Deflater(15, 6).compress(payload)
    assert len(compressed) < len(payload) / 50
    assert reference_inflate(compressed) == payload


def test_threads_may_share_a_deflater() -> None:
    deflater = Deflater(15, 6)
    right: list[bool] = []

    def compress(letter: bytes) -> None:
        payload = letter * 5000
        right.extend(reference_inflate(deflater.compress(payload)) == payload for _ in range(200))

    threads = [threading.Thread(target=compress, args=(bytes([65 + n]),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 800
