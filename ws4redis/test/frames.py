"""Frames as a client sends and receives them (RFC 6455, section 5).

It shares no code with the server's half, ``ws4redis.protocol``, so that an error there cannot hide
itself in the tests.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NO_STATUS_RECEIVED = 1005


@dataclass(frozen=True)
class Frame:
    """One frame as it came, unmasked."""

    opcode: int
    payload: bytes = b''
    fin: bool = True
    rsv: int = 0
    masked: bool = False

    @property
    def close_code(self) -> int:
        """The code of a close frame, 1005 where it has none (RFC 6455, section 7.1.5)."""
        assert self.opcode == CLOSE
        return int.from_bytes(self.payload[:2], 'big') if self.payload else NO_STATUS_RECEIVED

    @property
    def close_reason(self) -> str:
        """The reason of a close frame."""
        assert self.opcode == CLOSE
        return self.payload[2:].decode()


def encode_frame(
    opcode: int,
    payload: bytes = b'',
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b'',
    length_bits: int | None = None,
) -> bytes:
    """Return a client's frame.

    ``mask`` is the key of 4 bytes, ``b''`` for a random one, ``None`` for an unmasked frame.
    ``rsv`` are the three reserved bits (4 is RSV1). ``length_bits`` is 7, 16 or 64 to force a
    length that is not minimal.
    """
    if mask == b'':
        mask = os.urandom(4)
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    mask_bit = 0x80 if mask else 0
    size = len(payload)
    bits = length_bits or (7 if size < 126 else 16 if size < 65536 else 64)
    if bits == 7:
        head = struct.pack('!BB', first, mask_bit | size)
    elif bits == 16:
        head = struct.pack('!BBH', first, mask_bit | 126, size)
    else:
        head = struct.pack('!BBQ', first, mask_bit | 127, size)
    if not mask:
        return head + payload
    return head + mask + apply_mask(payload, mask)


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    """Return ``payload`` masked, or unmasked, with a key of 4 bytes."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, 'big') ^ int.from_bytes(key, 'big')).to_bytes(size, 'big')


def close_payload(code: int, reason: str = '') -> bytes:
    """Return the payload of a close frame."""
    return struct.pack('!H', code) + reason.encode()


class FrameBuffer:
    """Bytes in, frames out."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        """Add what has been received."""
        self._data += data

    def next_frame(self) -> Frame | None:
        """Return the next frame, or None while it is not complete."""
        data = self._data
        if len(data) < 2:
            return None
        size, start = data[1] & 0x7F, 2
        if size == 126:
            if len(data) < 4:
                return None
            size, start = int.from_bytes(data[2:4], 'big'), 4
        elif size == 127:
            if len(data) < 10:
                return None
            size, start = int.from_bytes(data[2:10], 'big'), 10
        mask = b''
        if data[1] & 0x80:
            mask, start = bytes(data[start : start + 4]), start + 4
        if len(data) < start + size:
            return None
        payload = bytes(data[start : start + size])
        frame = Frame(
            opcode=data[0] & 0x0F,
            payload=apply_mask(payload, mask) if mask else payload,
            fin=bool(data[0] & 0x80),
            rsv=data[0] >> 4 & 7,
            masked=bool(mask),
        )
        del data[: start + size]
        return frame
