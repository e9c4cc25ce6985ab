"""The tail of a channel: its last publications, in memory, for those who come back.

What a tail holds follows one on the other by offset, and ends with the newest publication that this
process has taken in. So a place in it is found by subtraction.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ws4redis.hub.history_channel import HistoryChannel
    from ws4redis.hub.publication import Publication

# What a publication takes beside its payload: the objects of it and of its position.
PUBLICATION_BYTES = 400


class Tail:
    """Publications in order, without holes, up to the newest one.

    ``before`` is the offset of the one before the first, and ``tag_before`` its tag.
    """

    __slots__ = ('before', 'bytes', 'publications', 'tag_before')

    def __init__(self, before: int, tag_before: str) -> None:
        self.before = before
        self.tag_before = tag_before
        self.publications: deque[Publication] = deque()
        self.bytes = 0

    def begin_at(self, before: int, tag_before: str) -> None:
        """Drop all, and go on with what follows an offset."""
        self.publications.clear()
        self.bytes = 0
        self.before = before
        self.tag_before = tag_before

    @property
    def end(self) -> int:
        """The offset of the last one."""
        return self.before + len(self.publications)

    def append(self, publication: Publication) -> None:
        self.publications.append(publication)
        self.bytes += len(publication.payload) + PUBLICATION_BYTES

    def extend_back(self, earlier: Tail) -> None:
        """Put another tail, which ends where this one begins, in front of this one."""
        self.publications.extendleft(reversed(earlier.publications))
        self.bytes += earlier.bytes
        self.before, self.tag_before = earlier.before, earlier.tag_before

    def drop_first(self) -> None:
        publication = self.publications.popleft()
        self.bytes -= len(publication.payload) + PUBLICATION_BYTES
        assert publication.position is not None
        self.before, self.tag_before = publication.position.offset, publication.position.tag

    def shrink(self, *, max_publications: int, max_bytes: int) -> None:
        """Drop the oldest beyond some bounds."""
        while self.publications and (
            len(self.publications) > max_publications or self.bytes > max_bytes
        ):
            self.drop_first()

    def tag_at(self, offset: int) -> str:
        """Return the tag of a publication of this tail, or of the one before it."""
        if offset == self.before:
            return self.tag_before
        position = self.publications[offset - self.before - 1].position
        assert position is not None
        return position.tag

    def after(self, offset: int) -> list[Publication]:
        """Return what follows an offset, which must not lie before this tail."""
        return list(islice(self.publications, offset - self.before, None))


class TailMemory:
    """Keep the tails of all channels within a bound, in bytes, in sum.

    The tails of those channels are dropped first on which nothing was published for the longest.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # The one first on which nothing was published for the longest.
        self._sizes: OrderedDict[HistoryChannel, int] = OrderedDict()
        self.bytes = 0

    def note(self, channel: HistoryChannel) -> None:
        """Note that a channel's tail has changed."""
        self.bytes += channel.tail.bytes - self._sizes.pop(channel, 0)
        self._sizes[channel] = channel.tail.bytes
        while self.bytes > self._max_bytes:
            oldest, size = self._sizes.popitem(last=False)
            self.bytes -= size
            oldest.tail.shrink(max_publications=0, max_bytes=0)

    def forget(self, channel: HistoryChannel) -> None:
        self.bytes -= self._sizes.pop(channel, 0)
