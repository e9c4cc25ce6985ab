"""The end of one connection by bytes, with each implementation of masking."""

from __future__ import annotations

import pytest

from tests.protocol.client_frames import client_frame, close_frame, parse_server_frames
from tests.protocol.connections import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    fails,
    open_connection,
)
from ws4redis.protocol.connection import ServerConnection, State

pytestmark = pytest.mark.usefixtures('each_masking')


def state_of(connection: ServerConnection) -> State:
    # mypy does not expect that methods change an attribute.
    return connection.state


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
