"""Wire formats: how a message becomes bytes for the websockets of one kind.

A wire format is one object, shared by all websockets that negotiated the same: a message to many
websockets is encoded once for each wire format among them. It knows no websocket and is safe to use
from any thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Final, Protocol

from ws4redis.protocol.deflate import Deflater
from ws4redis.protocol.frames import Opcode, encode_frame, frame_ends, opcode_of

#: A larger message would be compressed for a while in which the loop does nothing else (9 ms for
#: each 100 KB at worst), so it is done fast, and for the largest not at all.
FAST_FROM_BYTES: Final = 64 * 1024
FAST_LEVEL: Final = 1
UNCOMPRESSED_FROM_BYTES: Final = 2 * 1024 * 1024


class Encodable(Protocol):
    """What is published, as far as formats need to know it that tell payloads alone.

    A payload by itself may stand for it.
    """

    @property
    def payload(self) -> bytes: ...


class WireFormat:
    """Encode messages as uncompressed frames. Use the instance ``PLAIN``, or make a subclass."""

    __slots__ = ()

    def encode(self, published: Encodable | bytes, channel: bytes) -> bytes:
        """Return what is sent of a publication on a channel, given by its full name."""
        payload = published if isinstance(published, bytes) else published.payload
        return self.encode_message(payload)

    def unit_ends(self, data: bytes | memoryview) -> Iterable[int]:
        """Return where each unit ends in data that this format has encoded.

        A unit is a frame, or whatever else must not be cut off in the middle.
        """
        return frame_ends(data)

    def encode_message(self, payload: bytes, opcode: Opcode | None = None) -> bytes:
        """Return the frame of a message.

        ``opcode`` is ``TEXT`` or ``BINARY``; ``None`` means text for a payload that is valid UTF-8
        and binary for any other. A payload given as ``TEXT`` must be valid UTF-8.
        """
        return encode_frame(opcode_of(payload) if opcode is None else opcode, payload)


class PlainWire(WireFormat):
    """Do the same; where each user has a channel, each message is encoded for itself alone."""

    __slots__ = ()

    def encode(self, published: Encodable | bytes, channel: bytes) -> bytes:
        payload = published if isinstance(published, bytes) else published.payload
        return encode_frame(opcode_of(payload), payload)


#: The wire format of websockets without compression.
PLAIN: Final = PlainWire()


class DeflateWire(WireFormat):
    """Encode messages with permessage-deflate (RFC 7692). Made by ``deflate_wire``.

    Messages below ``minimum_size`` bytes, those that do not shrink, and the very largest go
    uncompressed: each message says for itself which it is (section 6).
    """

    __slots__ = ('_deflater', '_fast_deflater', 'level', 'minimum_size', 'window_bits')

    def __init__(self, window_bits: int, level: int, minimum_size: int) -> None:
        self.window_bits = window_bits
        self.level = level
        self.minimum_size = max(minimum_size, 1)
        self._deflater = Deflater(window_bits, level)
        self._fast_deflater = Deflater(window_bits, min(level, FAST_LEVEL))

    def encode_message(self, payload: bytes, opcode: Opcode | None = None) -> bytes:
        """Return the frame of a message; arguments as for ``WireFormat``."""
        if opcode is None:
            opcode = opcode_of(payload)
        size = len(payload)
        if self.minimum_size <= size < UNCOMPRESSED_FROM_BYTES:
            is_small = size < FAST_FROM_BYTES
            compressed = (self._deflater if is_small else self._fast_deflater).compress(payload)
            if len(compressed) < len(payload):
                return encode_frame(opcode, compressed, rsv1=True)
        return encode_frame(opcode, payload)


@cache
def deflate_wire(window_bits: int, level: int, minimum_size: int) -> DeflateWire:
    """Return the wire format for these parameters: for equal parameters the same object.

    ``window_bits`` is 9 to 15, ``level`` 1 (fast) to 9 (small), ``minimum_size`` in bytes.
    """
    return DeflateWire(window_bits, level, minimum_size)
