"""Connections by bytes: how the tests open them, and see them fail."""

from __future__ import annotations

import zlib

from tests.protocol.client_frames import client_frame, parse_server_frames
from ws4redis.protocol.connection import Limits, ServerConnection, State
from ws4redis.protocol.extensions import Compression, NegotiatedDeflate, negotiate
from ws4redis.protocol.frames import Opcode

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = Opcode
RSV1 = 4
INVALID_TEXT = b'\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited'


def negotiated() -> NegotiatedDeflate:
    _, deflate = negotiate('permessage-deflate', Compression(enabled=True))
    assert deflate is not None
    return deflate


def deflated(payload: bytes) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def open_connection(*, deflate: bool = False, **limits: int) -> ServerConnection:
    return ServerConnection(Limits(**limits), deflate=negotiated() if deflate else None)


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
