"""Messages on their way to many websockets: what can be done once for all is done once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ws4redis.hub.output import Chunk
from ws4redis.hub.own_messages import fingerprint
from ws4redis.hub.publication import described, payload_of

if TYPE_CHECKING:
    from ws4redis.hub.publication import Publication, Published
    from ws4redis.protocol.wire import WireFormat

T = TypeVar('T')


class HeldBack:
    """Messages that wait until something was sent that has to come first."""

    __slots__ = ('bytes', 'count', 'messages')

    def __init__(self) -> None:
        self.messages: list[Messages] = []
        self.count = 0
        self.bytes = 0

    def add(self, messages: Messages) -> None:
        self.messages.append(messages)
        self.count += len(messages.publications)
        self.bytes += sum(map(len, messages.publications))

    def clear(self) -> int:
        """Drop all; return how many messages that were."""
        count, self.count = self.count, 0
        self.messages = []
        self.bytes = 0
        return count


class Messages:
    """Publications on a channel in the order in which they are sent; there is at least one."""

    __slots__ = ('_chunks', '_encoded', '_marks', 'channel', 'publications')

    def __init__(self, publications: Sequence[Published], channel: bytes = b'') -> None:
        self.publications = publications
        self.channel = channel
        self._marks: list[bytes] | None = None
        self._chunks: dict[WireFormat, Chunk] = {}
        self._encoded: dict[Any, tuple[Any, ...]] | None = None

    @classmethod
    def of(cls, payloads: Iterable[bytes]) -> Messages:
        """Return messages of which nothing is known but what they hold."""
        return cls(list(payloads))

    @property
    def marks(self) -> list[bytes]:
        """By what own messages are recognised, for each message."""
        if self._marks is None:
            self._marks = [fingerprint(payload_of(each)) for each in self.publications]
        return self._marks

    def encoded(self, encode: Callable[[Publication], T]) -> tuple[T, ...]:
        """Return what a function makes of each of them; for all who name that, it is made once."""
        if self._encoded is None:
            self._encoded = {}
        made = self._encoded.get(encode)
        if made is None:
            made = self._encoded[encode] = tuple(
                [encode(described(each)) for each in self.publications]
            )
        return made

    def framed(self, wire: WireFormat) -> Chunk:
        """Return their frames, joined."""
        chunk = self._chunks.get(wire)
        if chunk is None:
            channel = self.channel
            publications = self.publications
            if len(publications) == 1:
                data = wire.encode(publications[0], channel)
            else:
                data = b''.join([wire.encode(each, channel) for each in publications])
            chunk = self._chunks[wire] = Chunk(data, len(publications))
        return chunk

    def framed_without(self, wire: WireFormat, is_left_out: list[bool]) -> Chunk | None:
        """Return the frames of those that are not left out; None if there are none."""
        chunk = self.framed(wire)
        if not any(is_left_out):
            return chunk
        frames = []
        start = 0
        for end, left_out in zip(wire.unit_ends(chunk.data), is_left_out, strict=True):
            if not left_out:
                frames.append(chunk.data[start:end])
            start = end
        return Chunk(b''.join(frames), len(frames)) if frames else None
