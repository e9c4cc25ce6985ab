"""A publication as the loop handles it, from the bus to the wire formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ws4redis.broker.history import Entry, Kind, Position


@dataclass(slots=True)
class Publication:
    """What was published on a channel.

    The position is None on a channel without a history, and where others published by a plain
    ``PUBLISH``.
    """

    payload: bytes
    kind: Kind = Kind.TEXT
    position: Position | None = None

    def __len__(self) -> int:
        """Return the size of its payload."""
        return len(self.payload)


# A payload alone is a publication of which nothing else is known, as are most on channels without a
# history: where very many wait, an object for each would cost as much as sending them.
Published: TypeAlias = bytes | Publication


def payload_of(published: Published) -> bytes:
    return published if isinstance(published, bytes) else published.payload


def described(published: Published) -> Publication:
    """Return a publication with all that is known of it, for those who need more than payloads."""
    return Publication(published) if isinstance(published, bytes) else published


def publication_of(entry: Entry, epoch: str) -> Publication:
    """Return an entry of a stream as a publication."""
    return Publication(entry.payload, entry.kind, Position(epoch, entry.offset, entry.tag))
