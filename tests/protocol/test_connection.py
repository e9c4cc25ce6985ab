"""One connection by bytes, with each implementation of masking: messages, pings, limits."""

from __future__ import annotations

import random
import sys
import tracemalloc
from typing import Any

import pytest

from tests.protocol.client_frames import client_frame, header, parse_server_frames
from tests.protocol.connections import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    fails,
    negotiated,
    open_connection,
)
from ws4redis.protocol.connection import Limits, ServerConnection, State
from ws4redis.protocol.frames import Opcode

pytestmark = pytest.mark.usefixtures('each_masking')


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
