from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.protocol.client_frames import parse_server_frames
from ws4redis.protocol.frames import (
    CloseCode,
    Opcode,
    encode_close,
    encode_frame,
    is_sendable_close_code,
    opcode_of,
)


def test_the_frames_of_the_rfc_are_encoded_as_there() -> None:
    # RFC 6455, section 5.7.
    assert encode_frame(Opcode.TEXT, b'Hello') == bytes.fromhex('810548656c6c6f')
    assert encode_frame(Opcode.PING, b'Hello') == bytes.fromhex('890548656c6c6f')
    assert encode_frame(Opcode.BINARY, b'x' * 256) == bytes.fromhex('827e0100') + b'x' * 256
    assert encode_frame(Opcode.BINARY, b'x' * 65536).startswith(
        bytes.fromhex('827f0000000000010000')
    )


@pytest.mark.parametrize(
    ('length', 'header_bytes'), [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10)]
)
def test_lengths_take_their_shortest_form(length: int, header_bytes: int) -> None:
    frame = encode_frame(Opcode.TEXT, b'a' * length)
    assert len(frame) == header_bytes + length
    assert parse_server_frames(frame) == [(0x81, b'a' * length)]


def test_rsv1_marks_a_compressed_message() -> None:
    assert encode_frame(Opcode.TEXT, b'', rsv1=True) == b'\xc1\x00'


def test_a_close_frame_carries_code_and_reason() -> None:
    assert encode_close(1000) == b'\x88\x02\x03\xe8'
    assert encode_close(CloseCode.GOING_AWAY, 'later') == b'\x88\x07\x03\xe9later'


@given(reason=st.text(max_size=200))
@example(reason='x' + 'ü' * 100)
@example(reason='x' * 122 + '😀')
def test_a_long_reason_is_cut_at_the_end_of_a_character(reason: str) -> None:
    ((first, payload),) = parse_server_frames(encode_close(4000, reason))
    assert first == 0x88
    assert len(payload) <= 125
    sent = payload[2:].decode()
    assert reason.startswith(sent)
    assert sent == reason or len(payload) > 121  # A character has four bytes at most.


def test_a_reason_that_cannot_be_encoded_is_sent_all_the_same() -> None:
    assert encode_close(1011, 'lone \udcff') == b'\x88\x08\x03\xf3lone ?'


@pytest.mark.parametrize('code', [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_codes_that_may_not_be_on_the_wire_are_refused(code: int) -> None:
    assert not is_sendable_close_code(code)
    with pytest.raises(ValueError, match=str(code)):
        encode_close(code)


@pytest.mark.parametrize('code', [1000, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 4999])
def test_registered_and_private_codes_may_be_sent(code: int) -> None:
    assert parse_server_frames(encode_close(code)) == [(0x88, code.to_bytes(2, 'big'))]


def test_text_is_what_is_valid_utf8() -> None:
    assert opcode_of('grüße'.encode()) is Opcode.TEXT
    assert opcode_of(b'') is Opcode.TEXT
    assert opcode_of(b'\xff\x00') is Opcode.BINARY
