"""Compression of single messages (RFC 7692, section 7.2), bounded and without context takeover.

No websocket owns a compressor or a decompressor. A ``Deflater`` serves any number of websockets and
threads, an ``Inflater`` lives as long as the message that it inflates.
"""

from __future__ import annotations

import zlib

from ws4redis.exceptions import ProtocolError
from ws4redis.protocol.frames import CloseCode

#: What every flush ends with; the sender leaves it out (RFC 7692, section 7.2.1).
_FLUSH_TAIL = b'\x00\x00\xff\xff'

#: An empty final block: behind a complete message it ends the stream, inside a block it does not.
_FINAL_BLOCK = b'\x01\x00\x00\xff\xff'

_END_OF_MESSAGE = _FLUSH_TAIL + _FINAL_BLOCK

#: Senders that flush with final blocks (section 7.2.3.5) start a stream with each. They are few in
#: any honest message, and a stream of two bytes is an expensive one to begin.
MAX_STREAMS_PER_MESSAGE = 64

#: Inflating with the largest window reads what was deflated with any smaller one.
_INFLATE_WINDOW_BITS = 15


class Deflater:
    """Compress messages, each independent of all others. May be shared by threads.

    A compressor is used over and over: a full flush makes it forget what it saw, and costs a third
    of what a new compressor costs (measured with 300 bytes: 4 µs instead of 19 µs).
    """

    __slots__ = ('_idle', '_level', '_window_bits')

    def __init__(self, window_bits: int, level: int) -> None:
        self._window_bits = window_bits
        self._level = level
        # Taking from and giving back to a list is atomic: no lock, whichever threads there are.
        self._idle: list[zlib._Compress] = []

    def compress(self, payload: bytes) -> bytes:
        """Return ``payload`` (which is not empty) as a compressed message's payload."""
        try:
            compressor = self._idle.pop()
        except IndexError:
            compressor = zlib.compressobj(self._level, zlib.DEFLATED, -self._window_bits)
        compressed = compressor.compress(payload) + compressor.flush(zlib.Z_FULL_FLUSH)
        self._idle.append(compressor)
        return compressed[: -len(_FLUSH_TAIL)]


def inflate_message(payload: bytes, limit: int) -> bytes:
    """Inflate a message that is all there; ``limit`` and errors are as for ``Inflater``."""
    stream = zlib.decompressobj(-_INFLATE_WINDOW_BITS)
    try:
        content = stream.decompress(payload + _END_OF_MESSAGE, limit + 1)
    except zlib.error:
        pass
    else:
        if stream.eof and not stream.unused_data and len(content) <= limit:
            return content
    # Several streams, or an error: rare, and sorted out with care.
    inflater = Inflater(limit)
    return inflater.inflate(payload) + inflater.finish()


class Inflater:
    """Inflate one message, piece by piece, up to a limit.

    ``limit`` is the number of bytes that the message may have. One byte more is never held: the
    peer's error is raised while inflating, as ``ProtocolError`` with 1009 for a message that is too
    big and 1007 for data that are not deflated.
    """

    __slots__ = ('_begun', '_room', '_stream', '_streams')

    def __init__(self, limit: int) -> None:
        self._room = limit
        self._stream = zlib.decompressobj(-_INFLATE_WINDOW_BITS)
        self._streams = 1
        self._begun = False

    def inflate(self, data: bytes) -> bytes:
        """Return what the next piece of the message's payload inflates to."""
        if not data:
            return b''
        inflated = self._feed(data)
        while self._stream.eof:
            data = self._stream.unused_data
            self._next_stream()
            if data:
                inflated += self._feed(data)
        return inflated

    def finish(self) -> bytes:
        """Return what is left when the message is complete; raise if it is cut off."""
        if not self._begun:
            return b''
        inflated = self._feed(_END_OF_MESSAGE)
        if not self._stream.eof or self._stream.unused_data:
            raise ProtocolError(CloseCode.INVALID_PAYLOAD_DATA, 'compressed data are incomplete')
        return inflated

    def _feed(self, data: bytes) -> bytes:
        self._begun = True
        try:
            inflated = self._stream.decompress(data, self._room + 1)
        except zlib.error as exc:
            reason = 'compressed data are invalid'
            raise ProtocolError(CloseCode.INVALID_PAYLOAD_DATA, reason) from exc
        self._room -= len(inflated)
        if self._room < 0:
            raise ProtocolError(CloseCode.MESSAGE_TOO_BIG, 'message is too big when inflated')
        return inflated

    def _next_stream(self) -> None:
        self._streams += 1
        if self._streams > MAX_STREAMS_PER_MESSAGE:
            reason = 'compressed data have too many final blocks'
            raise ProtocolError(CloseCode.INVALID_PAYLOAD_DATA, reason)
        self._stream = zlib.decompressobj(-_INFLATE_WINDOW_BITS)
        self._begun = False
