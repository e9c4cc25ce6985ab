"""Frames as a client sends them, right or wrong."""

from __future__ import annotations

import struct

MASK = b'\x37\xfa\x21\x3d'


def client_frame(
    opcode: int,
    payload: bytes = b'',
    *,
    final: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    length_bytes: int | None = None,
) -> bytes:
    """Return the bytes of one frame.

    ``rsv`` is 0 to 7 (4 is RSV1), ``mask=None`` leaves the masking out, ``length_bytes`` (0, 2 or
    8) forces a size of the extended length.
    """
    first = (0x80 if final else 0) | rsv << 4 | opcode
    return header(first, len(payload), mask=mask, length_bytes=length_bytes) + xor(
        payload, mask or b'\0\0\0\0'
    )


def header(
    first: int, length: int, *, mask: bytes | None = MASK, length_bytes: int | None = None
) -> bytes:
    """Return a frame's header that announces ``length`` bytes."""
    if length_bytes is None:
        length_bytes = 0 if length < 126 else 2 if length < 65536 else 8
    masked = 0x80 if mask is not None else 0
    if length_bytes == 0:
        encoded = bytes([first, masked | length])
    elif length_bytes == 2:
        encoded = struct.pack('!BBH', first, masked | 126, length)
    else:
        encoded = struct.pack('!BBQ', first, masked | 127, length)
    return encoded + (mask or b'')


def xor(data: bytes, mask: bytes) -> bytes:
    """Mask the slow way, which is easily seen to be right."""
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))


def close_frame(code: int | None = None, reason: bytes = b'') -> bytes:
    """Return a client's close frame."""
    payload = b'' if code is None else struct.pack('!H', code) + reason
    return client_frame(0x8, payload)


def parse_server_frames(data: bytes) -> list[tuple[int, bytes]]:
    """Return first byte and payload of each frame that a server sent; all must be complete."""
    frames = []
    while data:
        first, length = data[0], data[1]
        assert length < 128, 'a server must not mask'
        start = 2
        if length > 125:
            start = 4 if length == 126 else 10
            length = int.from_bytes(data[2:start], 'big')
        assert len(data) >= start + length, 'frame is cut off'
        frames.append((first, data[start : start + length]))
        data = data[start + length :]
    return frames
