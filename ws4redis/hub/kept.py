"""Frames of kept messages, which go to one newcomer after the other."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from ws4redis.hub.output import Chunk

if TYPE_CHECKING:
    from ws4redis.protocol.wire import WireFormat

# Small messages are framed anew sooner than looked up.
MIN_CACHED_BYTES = 1024
MAX_CACHED_BYTES = 16 * 1024 * 1024


class KeptFrames:
    """Frame a kept message once for all who join while it is the latest of its channel.

    Those that were used last stay, up to a bound. Redis gives the message anew for each newcomer,
    so it is recognised by its content.
    """

    def __init__(self) -> None:
        self._chunks: OrderedDict[tuple[WireFormat, bytes], Chunk] = OrderedDict()
        self._bytes = 0

    def framed(self, wire: WireFormat, payload: bytes) -> Chunk:
        """Return the frame of a message."""
        if len(payload) < MIN_CACHED_BYTES:
            return Chunk(wire.encode_message(payload), 1)
        key = wire, payload
        chunk = self._chunks.get(key)
        if chunk is not None:
            self._chunks.move_to_end(key)
            return chunk
        chunk = self._chunks[key] = Chunk(wire.encode_message(payload), 1)
        self._bytes += len(payload) + len(chunk.data)
        while self._bytes > MAX_CACHED_BYTES:
            (_, old_payload), old = self._chunks.popitem(last=False)
            self._bytes -= len(old_payload) + len(old.data)
        return chunk
