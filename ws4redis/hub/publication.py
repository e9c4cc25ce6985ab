"""A publication as the loop handles it, from the bus to the wire formats."""

from __future__ import annotations

from dataclasses import dataclass

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


def publication_of(entry: Entry, epoch: str) -> Publication:
    """Return an entry of a stream as a publication."""
    return Publication(entry.payload, entry.kind, Position(epoch, entry.offset, entry.tag))
