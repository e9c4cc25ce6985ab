"""One connection by bytes; all of it with each implementation of masking."""

from __future__ import annotations

import logging
import random
import sys
import tracemalloc
import zlib
from typing import Any

import pytest

from tests.protocol.client_frames import (
    MASK,
    client_frame,
    close_frame,
    header,
    parse_server_frames,
)
from ws4redis.protocol.connection import Event, Limits, ServerConnection, State
from ws4redis.protocol.extensions import Compression, NegotiatedDeflate, negotiate
from ws4redis.protocol.frames import Opcode

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = Opcode
RSV1 = 4

pytestmark = pytest.mark.usefixtures('each_masking')


def negotiated() -> NegotiatedDeflate:
    _, deflate = negotiate('permessage-deflate', Compression(enabled=True))
    assert deflate is not None
    return deflate


def deflated(payload: bytes) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def open_connection(*, deflate: bool = False, **limits: int) -> ServerConnection:
    return ServerConnection(Limits(**limits), deflate=negotiated() if deflate else None)


def state_of(connection: ServerConnection) -> State:
    # mypy does not expect that methods change an attribute.
    return connection.state


def fails(connection: ServerConnection, data: bytes) -> int:
    """Return the close code with which ``data`` make the connection fail."""
    events = connection.receive_data(data)
    assert connection.state is State.CLOSED
    (first, payload) = parse_server_frames(connection.data_to_send())[-1]
    assert first == 0x88
    assert events[-1] == (CLOSE, payload)
    code = int.from_bytes(payload[:2], 'big')
    assert connection.close_sent_code == code
    assert connection.close_code == 1006
    assert connection.receive_data(client_frame(TEXT, b'more')) == []
    assert connection.data_to_send() == b''
    return code


# Messages


def test_the_frames_of_the_rfc_are_read_as_there() -> None:
    connection = open_connection()
    # RFC 6455, section 5.7.
    assert connection.receive_data(bytes.fromhex('818537fa213d7f9f4d5158')) == [(TEXT, b'Hello')]
    assert connection.receive_data(bytes.fromhex('8a8537fa213d7f9f4d5158')) == [(PONG, b'Hello')]


@pytest.mark.parametrize('length', [0, 1, 3, 125, 126, 127, 1000, 65535, 65536, 200_000])
@pytest.mark.parametrize('opcode', [TEXT, BINARY])
def test_messages_of_all_lengths_arrive(opcode: Opcode, length: int) -> None:
    payload = random.Random(length).randbytes(length)
    if opcode is TEXT:
        payload = payload.hex().encode()[:length]
    connection = open_connection()
    (event,) = connection.receive_data(client_frame(opcode, payload))
    assert event == (opcode, payload)
    assert type(event[1]) is bytes
    assert connection.data_to_send() == b''
    assert connection.state is State.OPEN


def test_several_messages_in_one_read_arrive_in_order() -> None:
    connection = open_connection()
    frames = client_frame(TEXT, b'one') + client_frame(BINARY, b'\x00') + client_frame(TEXT, b'')
    assert connection.receive_data(frames) == [(TEXT, b'one'), (BINARY, b'\x00'), (TEXT, b'')]


def test_fragments_are_joined_and_control_frames_may_come_between() -> None:
    connection = open_connection()
    assert connection.receive_data(client_frame(TEXT, b'a', final=False)) == []
    assert connection.receive_data(client_frame(PING, b'p')) == [(PING, b'p')]
    assert connection.data_to_send() == b'\x8a\x01p'
    assert connection.receive_data(client_frame(CONTINUATION, b'', final=False)) == []
    assert connection.receive_data(client_frame(PONG, b'q')) == [(PONG, b'q')]
    assert connection.receive_data(client_frame(CONTINUATION, b'b')) == [(TEXT, b'ab')]
    assert connection.receive_data(client_frame(TEXT, b'next')) == [(TEXT, b'next')]


def test_fragments_of_binary_are_binary() -> None:
    connection = open_connection()
    data = client_frame(BINARY, b'\xff', final=False) + client_frame(CONTINUATION, b'\xfe')
    assert connection.receive_data(data) == [(BINARY, b'\xff\xfe')]


def test_each_fragment_has_its_own_mask() -> None:
    connection = open_connection()
    data = client_frame(TEXT, b'abcde', final=False, mask=b'\x01\x02\x03\x04')
    data += client_frame(CONTINUATION, b'fghij', mask=b'\xff\xee\xdd\xcc')
    assert [connection.receive_data(bytes([byte])) for byte in data][-1] == [(TEXT, b'abcdefghij')]


def test_a_read_may_end_anywhere() -> None:
    frames = (
        client_frame(TEXT, 'grüße'.encode())
        + client_frame(TEXT, b'fragment', final=False)
        + client_frame(PING, b'ping')
        + client_frame(CONTINUATION, 'ü'.encode() * 60)
    )
    for cut in range(len(frames)):
        connection = open_connection()
        events = connection.receive_data(frames[:cut]) + connection.receive_data(frames[cut:])
        assert events == [
            (TEXT, 'grüße'.encode()),
            (PING, b'ping'),
            (TEXT, b'fragment' + 'ü'.encode() * 60),
        ]


def test_an_empty_read_is_nothing() -> None:
    assert open_connection().receive_data(b'') == []


def test_two_connections_never_see_each_others_fragments() -> None:
    limits = Limits()
    first, second = ServerConnection(limits), ServerConnection(limits)
    assert first.receive_data(client_frame(TEXT, b'first', final=False)) == []
    assert second.receive_data(client_frame(BINARY, b'second', final=False)) == []
    assert second.receive_data(client_frame(PING, b'2')) == [(PING, b'2')]
    assert first.data_to_send() == b''
    assert first.receive_data(client_frame(CONTINUATION, b'!')) == [(TEXT, b'first!')]
    assert second.receive_data(client_frame(CONTINUATION, b'!')) == [(BINARY, b'second!')]
    assert fails(first, client_frame(CONTINUATION, b'?')) == 1002
    assert second.state is State.OPEN


# Pings


def test_pings_are_answered_with_their_payload() -> None:
    connection = open_connection()
    payload = bytes(range(125))
    data = client_frame(PING) + client_frame(PING, payload)
    assert connection.receive_data(data) == [(PING, b''), (PING, payload)]
    assert parse_server_frames(connection.data_to_send()) == [(0x8A, b''), (0x8A, payload)]
    assert connection.data_to_send() == b''


def test_an_unsolicited_pong_is_not_answered() -> None:
    connection = open_connection()
    assert connection.receive_data(client_frame(PONG, b'x')) == [(PONG, b'x')]
    assert connection.data_to_send() == b''


def test_who_sends_pings_without_end_is_answered_the_latest() -> None:
    connection = open_connection(max_queued_pong_bytes=1000)
    for number in range(5000):
        connection.receive_data(client_frame(PING, b'%d' % number))
    answers = parse_server_frames(connection.data_to_send())
    assert len(answers) < 300
    assert answers[-1] == (0x8A, b'4999')


def test_a_close_frame_is_not_lost_among_pongs() -> None:
    connection = open_connection(max_queued_pong_bytes=100)
    connection.send_close(1001)
    for _ in range(100):
        connection.receive_data(client_frame(PING, b'123456'))
    assert parse_server_frames(connection.data_to_send())[0] == (0x88, b'\x03\xe9')


# Violations


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


INVALID_TEXT = b'\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited'


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


# Limits


def test_a_message_of_the_limit_arrives_and_one_byte_more_is_too_big() -> None:
    for size in (10, 125, 126, 70_000):
        data = client_frame(BINARY, b'x' * size)
        assert open_connection(max_message_size=size).receive_data(data) == [(BINARY, b'x' * size)]
        assert fails(open_connection(max_message_size=size - 1), data) == 1009


@pytest.mark.parametrize('deflate', [False, True])
def test_a_message_is_too_big_by_its_announced_length(deflate: bool) -> None:
    first = 0xC2 if deflate else 0x82
    announced = header(first, 1 << 40)[:10]
    connection = open_connection(deflate=deflate)
    assert fails(connection, announced) == 1009


def test_fragments_are_too_big_by_their_announced_sum() -> None:
    connection = open_connection(max_message_size=100)
    assert connection.receive_data(client_frame(TEXT, b'a' * 60, final=False)) == []
    assert fails(connection, header(0x80, 41)[:2]) == 1009
    connection = open_connection(max_message_size=100)
    connection.receive_data(client_frame(TEXT, b'a' * 60, final=False))
    data = client_frame(CONTINUATION, b'b' * 40)
    assert connection.receive_data(data) == [(TEXT, b'a' * 60 + b'b' * 40)]


def test_nothing_is_reserved_for_what_is_only_announced() -> None:
    connection = open_connection(max_message_size=1 << 30)
    tracemalloc.start()
    try:
        connection.receive_data(header(0x82, 1 << 30) + b'begun')
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000
    assert connection.state is State.OPEN


def test_a_message_of_too_many_fragments_is_too_big() -> None:
    connection = open_connection(max_fragments=3)
    connection.receive_data(client_frame(TEXT, b'', final=False))
    connection.receive_data(client_frame(CONTINUATION, b'', final=False) * 2)
    assert connection.state is State.OPEN
    assert fails(connection, client_frame(CONTINUATION)) == 1009


def test_fragments_are_counted_for_each_message() -> None:
    connection = open_connection(max_fragments=2)
    message = client_frame(TEXT, b'a', final=False) + client_frame(CONTINUATION, b'b')
    assert connection.receive_data(message * 5) == [(TEXT, b'ab')] * 5


def test_a_message_in_tiny_pieces_holds_not_much_more_than_its_bytes() -> None:
    size = 40_000
    connection = open_connection(max_message_size=size, max_fragments=size)
    fragment = client_frame(CONTINUATION, b'x', final=False)
    tracemalloc.start()
    try:
        connection.receive_data(client_frame(BINARY, b'x', final=False))
        for _ in range(size // 1000 - 1):
            connection.receive_data(fragment * 1000)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < size * 2


def test_an_idle_connection_costs_less_than_500_bytes() -> None:
    limits, deflate = Limits(), negotiated()
    count = 1000
    connections: list[Any] = [None] * count
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for index in range(count):
            connection = ServerConnection(limits, deflate=deflate)
            # Not as it was born, but after use.
            connection.receive_data(client_frame(TEXT, b'a', final=False))
            connection.receive_data(client_frame(PING, b'p'))
            connection.receive_data(client_frame(CONTINUATION, b'b'))
            connection.data_to_send()
            connections[index] = connection
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / count < 250
    assert sys.getsizeof(connections[0]) < 250


# Closing


@pytest.mark.parametrize('code', [1000, 1001, 1011, 1012, 1014, 3000, 4999])
def test_a_close_frame_is_answered_with_its_code(code: int) -> None:
    connection = open_connection()
    payload = code.to_bytes(2, 'big') + 'schön'.encode()
    assert connection.receive_data(client_frame(CLOSE, payload)) == [(CLOSE, payload)]
    assert connection.state is State.CLOSED
    assert (connection.close_code, connection.close_reason) == (code, 'schön')
    assert connection.close_sent_code == code
    assert parse_server_frames(connection.data_to_send()) == [(0x88, payload[:2])]


def test_an_empty_close_frame_is_answered_by_1000() -> None:
    connection = open_connection()
    assert connection.receive_data(close_frame()) == [(CLOSE, b'')]
    assert connection.close_code == 1005
    assert connection.close_sent_code == 1000
    assert connection.data_to_send() == b'\x88\x02\x03\xe8'


def test_close_reason_and_code_are_plain_values() -> None:
    connection = open_connection()
    assert (connection.close_code, connection.close_reason) == (None, '')
    connection.receive_data(close_frame())
    assert type(connection.close_code) is int
    assert type(connection.close_sent_code) is int


def test_what_follows_a_close_frame_is_not_read() -> None:
    connection = open_connection()
    data = close_frame(1000) + client_frame(TEXT, b'late') + client_frame(PING)
    assert connection.receive_data(data) == [(CLOSE, b'\x03\xe8')]
    assert connection.receive_data(client_frame(PING)) == []
    assert connection.data_to_send() == b'\x88\x02\x03\xe8'


@pytest.mark.parametrize('code', [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535])
def test_close_codes_that_may_not_be_on_the_wire_are_refused(code: int) -> None:
    assert fails(open_connection(), close_frame(code)) == 1002


def test_a_close_frame_of_one_byte_is_refused() -> None:
    assert fails(open_connection(), client_frame(CLOSE, b'\x03')) == 1002


def test_a_close_reason_that_is_no_utf8_is_refused() -> None:
    assert fails(open_connection(), close_frame(1000, b'\xff\xff')) == 1007


def test_we_close_and_the_peer_answers() -> None:
    connection = open_connection()
    connection.send_close(1001, 'restart')
    assert state_of(connection) is State.CLOSING
    assert connection.data_to_send() == b'\x88\x09\x03\xe9restart'
    assert connection.receive_data(close_frame(1001)) == [(CLOSE, b'\x03\xe9')]
    assert state_of(connection) is State.CLOSED
    assert connection.data_to_send() == b''
    assert (connection.close_code, connection.close_sent_code) == (1001, 1001)


def test_only_the_first_close_counts() -> None:
    connection = open_connection()
    connection.send_close(1001)
    connection.send_close(1011)
    assert parse_server_frames(connection.data_to_send()) == [(0x88, b'\x03\xe9')]
    connection.receive_data(close_frame(1000))
    connection.send_close(1011)
    assert connection.data_to_send() == b''
    assert (connection.close_code, connection.close_sent_code) == (1000, 1001)


def test_a_code_that_may_not_be_sent_is_our_callers_error() -> None:
    connection = open_connection()
    with pytest.raises(ValueError, match='1006'):
        connection.send_close(1006)
    assert connection.state is State.OPEN
    assert connection.data_to_send() == b''


def test_while_closing_messages_are_dropped_and_pings_answered() -> None:
    connection = open_connection()
    connection.receive_data(client_frame(TEXT, b'begun', final=False))
    connection.send_close(1000)
    connection.data_to_send()
    data = client_frame(CONTINUATION, b'ended') + client_frame(TEXT, b'x') + client_frame(PING)
    assert connection.receive_data(data) == [(PING, b'')]
    assert connection.receive_data(client_frame(TEXT, b'direct')) == []
    assert connection.data_to_send() == b'\x8a\x00'
    assert connection.receive_data(close_frame(1000)) == [(CLOSE, b'\x03\xe8')]


def test_a_message_right_after_our_close_is_dropped() -> None:
    connection = open_connection()
    connection.send_close(1000)
    assert connection.receive_data(client_frame(TEXT, b'small')) == []
    assert connection.receive_data(client_frame(BINARY, b'large' * 100)) == []


def test_a_violation_while_closing_ends_it_without_a_second_close_frame() -> None:
    connection = open_connection()
    connection.send_close(1000)
    connection.data_to_send()
    assert connection.receive_data(client_frame(TEXT, b'x', mask=None))[-1][0] is CLOSE
    assert connection.state is State.CLOSED
    assert connection.data_to_send() == b''
    assert (connection.close_code, connection.close_sent_code) == (1006, 1000)


def test_the_end_of_input_without_a_close_frame_is_abnormal() -> None:
    connection = open_connection()
    connection.receive_data(client_frame(TEXT, b'begun', final=False))
    connection.receive_eof()
    assert connection.state is State.CLOSED
    assert (connection.close_code, connection.close_sent_code) == (1006, None)
    assert connection.receive_data(client_frame(CONTINUATION)) == []


def test_the_end_of_input_after_the_close_frame_changes_nothing() -> None:
    connection = open_connection()
    connection.receive_data(close_frame(1000))
    connection.receive_eof()
    assert connection.close_code == 1000


# permessage-deflate


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
