"""What a client may not send, by bytes, with each implementation of masking."""

from __future__ import annotations

import logging

import pytest

from tests.protocol.client_frames import client_frame, header
from tests.protocol.connections import (
    BINARY,
    CLOSE,
    CONTINUATION,
    INVALID_TEXT,
    PING,
    PONG,
    TEXT,
    fails,
    open_connection,
)
from ws4redis.protocol.frames import Opcode

pytestmark = pytest.mark.usefixtures('each_masking')


@pytest.mark.parametrize(
    'first_byte',
    [0x80 | opcode for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)]
    # RSV1, RSV2 and RSV3, all of them, on data and on control frames.
    + [0xC1, 0xA1, 0x91, 0xF1, 0xC2, 0x41, 0xC9, 0xA9, 0x98]
    # Control frames in fragments.
    + [0x08, 0x09, 0x0A],
)
@pytest.mark.parametrize('only_first_byte', [True, False])
def test_illegal_bits_and_opcodes_fail_at_their_first_byte(
    first_byte: int, only_first_byte: bool
) -> None:
    data = header(first_byte, 0)
    assert fails(open_connection(), data[:1] if only_first_byte else data) == 1002


@pytest.mark.parametrize('opcode', [TEXT, BINARY, PING, PONG, CLOSE])
@pytest.mark.parametrize('payload', [b'', b'unmasked', b'u' * 300])
def test_unmasked_frames_are_refused(opcode: Opcode, payload: bytes) -> None:
    data = client_frame(opcode, payload, mask=None)
    assert fails(open_connection(), data) == 1002


def test_an_unmasked_fragment_is_refused() -> None:
    connection = open_connection()
    connection.receive_data(client_frame(TEXT, b'masked', final=False))
    assert fails(connection, client_frame(CONTINUATION, b'not', mask=None)) == 1002


def test_messages_before_a_violation_in_the_same_read_arrive() -> None:
    connection = open_connection()
    data = client_frame(TEXT, b'good') + client_frame(TEXT, b'bad', mask=None)
    data += client_frame(TEXT, b'never read')
    events = connection.receive_data(data)
    assert [opcode for opcode, _ in events] == [TEXT, CLOSE]


@pytest.mark.parametrize('opcode', [CLOSE, PING, PONG])
def test_control_frames_over_125_bytes_are_refused(opcode: Opcode) -> None:
    assert fails(open_connection(), header(0x80 | opcode, 126)[:2]) == 1002


@pytest.mark.parametrize(
    ('length', 'length_bytes'), [(0, 2), (125, 2), (0, 8), (125, 8), (126, 8), (65535, 8)]
)
def test_lengths_must_be_encoded_in_their_shortest_form(length: int, length_bytes: int) -> None:
    data = client_frame(TEXT, b'a' * length, length_bytes=length_bytes)
    assert fails(open_connection(), data) == 1002


def test_a_length_with_its_highest_bit_set_is_refused() -> None:
    assert fails(open_connection(), header(0x82, 1 << 63, length_bytes=8)) == 1002


def test_a_continuation_without_a_message_is_refused() -> None:
    assert fails(open_connection(), client_frame(CONTINUATION, b'x')) == 1002
    connection = open_connection()
    connection.receive_data(client_frame(TEXT, b'whole'))
    assert fails(connection, client_frame(CONTINUATION, b'x', final=False)) == 1002


@pytest.mark.parametrize('opcode', [TEXT, BINARY])
def test_a_message_inside_another_one_is_refused(opcode: Opcode) -> None:
    connection = open_connection()
    connection.receive_data(client_frame(TEXT, b'begun', final=False))
    assert fails(connection, client_frame(opcode, b'x')) == 1002


def test_text_that_is_no_utf8_is_refused() -> None:
    assert fails(open_connection(), client_frame(TEXT, INVALID_TEXT)) == 1007
    assert open_connection().receive_data(client_frame(BINARY, INVALID_TEXT)) == [
        (BINARY, INVALID_TEXT)
    ]


def test_text_may_be_cut_inside_of_a_character() -> None:
    connection = open_connection()
    smile = '😀'.encode()
    assert connection.receive_data(client_frame(TEXT, smile[:1], final=False)) == []
    assert connection.receive_data(client_frame(CONTINUATION, smile[1:3], final=False)) == []
    assert connection.receive_data(client_frame(CONTINUATION, smile[3:])) == [(TEXT, smile)]


def test_text_that_ends_inside_of_a_character_is_refused() -> None:
    assert fails(open_connection(), client_frame(TEXT, '😀'.encode()[:3])) == 1007
    connection = open_connection()
    connection.receive_data(client_frame(TEXT, '😀'.encode()[:3], final=False))
    assert fails(connection, client_frame(CONTINUATION)) == 1007


def test_text_fails_at_its_first_wrong_byte() -> None:
    # The frame announces more; its eleventh and twelfth byte cannot be UTF-8.
    data = client_frame(TEXT, INVALID_TEXT)
    connection = open_connection()
    assert connection.receive_data(data[: 6 + 12]) == []
    assert fails(connection, data[6 + 12 : 6 + 13]) == 1007


def test_text_fails_in_the_fragment_that_is_wrong() -> None:
    connection = open_connection()
    connection.receive_data(client_frame(TEXT, b'fine', final=False))
    assert fails(connection, client_frame(CONTINUATION, b'\xff', final=False)) == 1007


def test_a_failure_is_logged_for_developers_only(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger='ws4redis.protocol'):
        fails(open_connection(), client_frame(TEXT, b'x', mask=None))
    ((_, level, text),) = caplog.record_tuples
    assert level == logging.DEBUG
    assert '1002' in text
    assert 'not masked' in text
