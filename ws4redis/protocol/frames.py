"""Frames: opcodes, close codes, and the bytes of the frames that a server sends.

A server's frames are never masked (RFC 6455, section 5.1), so that one frame's bytes can be sent to
any number of websockets. Frames of clients are taken apart in ``connection.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

from ws4redis.protocol.utf8 import is_valid_utf8


class Opcode(IntEnum):
    """Name the kinds of frames (RFC 6455, section 5.2)."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(IntEnum):
    """Name the registered close codes (RFC 6455, section 7.4.1, and IANA's registry)."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    RESERVED = 1004
    NO_STATUS_RECEIVED = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_PAYLOAD_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015


#: Registered codes that no close frame may carry: they only describe how a connection ended.
_NEVER_ON_THE_WIRE = frozenset({1004, 1005, 1006, 1015})

#: RFC 6455, section 5.5: a control frame's payload, and two of these bytes are the close code.
MAX_CONTROL_PAYLOAD_BYTES = 125
MAX_CLOSE_REASON_BYTES = MAX_CONTROL_PAYLOAD_BYTES - 2

# To look up a member of an enumeration takes ten times as long as to look up a name.
_TEXT = Opcode.TEXT
_BINARY = Opcode.BINARY

_FINAL = 0x80
_RSV1 = 0x40

_pack_16_bit_length = struct.Struct('!BBH').pack
_pack_64_bit_length = struct.Struct('!BBQ').pack
_pack_close_code = struct.Struct('!H').pack


def encode_frame(opcode: int, payload: bytes, *, rsv1: bool = False) -> bytes:
    """Return the bytes of one final, unmasked frame (RFC 6455, section 5.2).

    ``rsv1`` marks the payload as compressed (RFC 7692, section 6). The payload of a control frame
    must not exceed 125 bytes.
    """
    first = _FINAL | opcode | (_RSV1 if rsv1 else 0)
    length = len(payload)
    if length < 126:
        return bytes((first, length)) + payload
    if length < 65536:
        return _pack_16_bit_length(first, 126, length) + payload
    return _pack_64_bit_length(first, 127, length) + payload


def frame_ends(data: bytes | memoryview) -> Iterator[int]:
    """Yield where each frame ends, of whole frames as ``encode_frame`` makes them."""
    position = 0
    while position < len(data):
        length = data[position + 1]
        position += 2
        if length > 125:
            size = 2 if length == 126 else 8
            length = int.from_bytes(data[position : position + size], 'big')
            position += size
        position += length
        yield position


def encode_close(code: int, reason: str = '') -> bytes:
    """Return the bytes of a close frame (RFC 6455, section 5.5.1).

    A ``reason`` of more than 123 bytes in UTF-8 is cut at the end of a character. A code that may
    not be sent raises ``ValueError``.
    """
    return encode_frame(Opcode.CLOSE, close_payload(code, reason))


def close_payload(code: int, reason: str = '') -> bytes:
    """Return the payload of a close frame; arguments and errors as for ``encode_close``."""
    if not is_sendable_close_code(code):
        raise ValueError(f'close code {code} may not be sent (RFC 6455, section 7.4)')
    encoded = reason.encode('utf-8', 'replace')
    if len(encoded) > MAX_CLOSE_REASON_BYTES:
        encoded = encoded[:MAX_CLOSE_REASON_BYTES].decode('utf-8', 'ignore').encode()
    return _pack_close_code(code) + encoded


def is_sendable_close_code(code: object) -> bool:
    """Tell whether a close frame may carry ``code`` (RFC 6455, section 7.4)."""
    # What is no integer at all would only fail later, when the frame is made.
    return isinstance(code, int) and (
        3000 <= code <= 4999 or (1000 <= code <= 1015 and code not in _NEVER_ON_THE_WIRE)
    )


def opcode_of(payload: bytes) -> Opcode:
    """Return ``TEXT`` for a payload that is valid UTF-8, else ``BINARY``."""
    return _TEXT if payload.isascii() or is_valid_utf8(payload) else _BINARY
