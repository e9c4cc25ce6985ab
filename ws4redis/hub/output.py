"""What waits for sockets that do not take it now.

Frames for many websockets are one object in all of their queues. So the memory that queues take is
not the sum of their lengths: what they share counts once, and that sum has a bound of its own.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ws4redis.hub.peer import Peer
    from ws4redis.protocol.wire import WireFormat

logger = logging.getLogger('ws4redis')

# What a chunk takes beside its data, and what its place in a queue takes.
CHUNK_BYTES = 128
PLACE_BYTES = 8


class Chunk:
    """Whole frames that go out together: so many messages, or control frames and no message."""

    __slots__ = ('data', 'holders', 'messages', 'source')

    def __init__(
        self, data: bytes | memoryview, messages: int = 0, source: Chunk | None = None
    ) -> None:
        self.data = data
        self.messages = messages
        # The chunk of which this one is a part, and which therefore stays in memory.
        self.source = source
        # How many queues hold it, or parts of it.
        self.holders = 0

    def beginning(self, end: int, messages: int) -> Chunk:
        """Return the first ``end`` bytes, without a copy."""
        return Chunk(memoryview(self.data)[:end], messages, self.source or self)


class OutputQueue:
    """Chunks for one socket, in order; of the first, ``sent`` bytes have gone out."""

    __slots__ = ('_chunks', '_memory', '_wire', 'bytes', 'sent')

    def __init__(self, memory: QueueMemory, wire: WireFormat) -> None:
        self._memory = memory
        self._wire = wire
        self._chunks: deque[Chunk] = deque()
        self.bytes = 0
        self.sent = 0

    def __bool__(self) -> bool:
        return bool(self._chunks)

    @property
    def messages(self) -> int:
        return sum(chunk.messages for chunk in self._chunks)

    def next_data(self, limit: int) -> bytes | memoryview:
        """Return what the socket is to be given next, at most ``limit`` bytes."""
        data = self._chunks[0].data
        if self.sent or len(data) > limit:
            return memoryview(data)[self.sent : self.sent + limit]
        return data

    def append(self, chunk: Chunk, *, sent: int = 0) -> None:
        """Queue a chunk; ``sent`` bytes of it have gone out, if nothing waits before it."""
        if sent:
            self.sent = sent
        self.bytes += len(chunk.data) - sent
        self._chunks.append(chunk)
        self._memory.hold(chunk)

    def append_what_fits(self, chunk: Chunk, room: int, *, sent: int, attempted: int) -> int:
        """Queue the first whole frames of a chunk, ``room`` bytes of them; return how many.

        What the socket took (``sent`` bytes) or was refused and must get again (``attempted``)
        belongs to frames that are begun. These stay, as does the first frame of all.
        """
        begun = 0 if self._chunks else max(1, sent + attempted)
        end = frames = 0
        for frame_end in self._wire.unit_ends(chunk.data):
            if frame_end - sent > room and end >= begun:
                break
            end = frame_end
            frames += 1
        if frames:
            self.append(chunk.beginning(end, min(frames, chunk.messages)), sent=sent)
        return frames

    def take(self, sent: int) -> int:
        """Note that the socket took bytes; return how many messages are out thereby."""
        self.bytes -= sent
        self.sent += sent
        chunk = self._chunks[0]
        if self.sent < len(chunk.data):
            return 0
        self.sent = 0
        self._chunks.popleft()
        self._memory.release(chunk)
        return chunk.messages

    def keep_begun(self, *, attempted: int) -> int:
        """Drop all but the frames that are begun; return how many messages were dropped.

        ``attempted`` bytes were refused by the socket, which must get the same ones again.
        """
        messages = self.messages
        head, sent = self._chunks[0], self.sent
        self.clear()
        end = frames = 0
        for frame_end in self._wire.unit_ends(head.data):
            if end >= sent + attempted:
                break
            end = frame_end
            frames += 1
        kept = min(frames, head.messages)
        if end > sent:
            # A copy, or it would keep all of the chunk in memory.
            self.append(Chunk(bytes(head.data[sent:end]), kept))
        return messages - kept

    def clear(self) -> None:
        for chunk in self._chunks:
            self._memory.release(chunk)
        self._chunks.clear()
        self.bytes = self.sent = 0


class QueueMemory:
    """Count the memory of all queues, and close the websockets with the longest beyond a bound."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._waiting: set[Peer] = set()
        self.bytes = 0

    def queue_of(self, peer: Peer) -> OutputQueue:
        """Return a queue for a peer that has none."""
        self._waiting.add(peer)
        return OutputQueue(self, peer.wire)

    def forget(self, peer: Peer) -> None:
        """Note that a peer has no queue any more."""
        self._waiting.discard(peer)

    def sizes(self) -> list[int]:
        """Return how many bytes wait for each peer that has a queue. Safe in any thread."""
        return [peer.queued_bytes for peer in list(self._waiting)]

    def hold(self, chunk: Chunk) -> None:
        self.bytes += PLACE_BYTES
        source = chunk.source or chunk
        source.holders += 1
        if source.holders == 1:
            self.bytes += len(source.data) + CHUNK_BYTES

    def release(self, chunk: Chunk) -> None:
        self.bytes -= PLACE_BYTES
        source = chunk.source or chunk
        source.holders -= 1
        if not source.holders:
            self.bytes -= len(source.data) + CHUNK_BYTES

    def turn_end(self) -> bool:
        """Give up the longest queues if all together take too much.

        This waits for the end of the turn, since it ends websockets that others may just deal with.
        """
        if self.bytes > self._max_bytes:
            # Some more than needed, so that it is not all sorted again for the next message.
            wanted = self._max_bytes * 7 // 8
            longest_first = sorted(self._waiting, key=_queued_bytes, reverse=True)
            logger.warning(
                'clients that do not read hold %d bytes: the longest queues are given up',
                self.bytes,
            )
            for peer in longest_first:
                if self.bytes <= wanted:
                    break
                peer.give_up_queue()
        return False


def _queued_bytes(peer: Peer) -> int:
    return peer.queued_bytes
