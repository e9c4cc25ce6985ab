"""Histories: what is asked of Redis about a channel that has one, and what it answers.

No connection is used here: commands are built, and replies are read. Publishers hand the commands
to redis-py, the loop writes them to its own connections. How it fits together is told in
``docs/explanation/histories.md``.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

from ws4redis.broker.keys import ChannelKeys
from ws4redis.broker.publication import Command
from ws4redis.broker.scripts import PUBLISH, READ
from ws4redis.settings.facilities import FacilityOptions

DAY_SECONDS: Final = 24 * 3600
# A position outlives its stream, so that a quiet channel is not taken for a lost one.
POSITION_SECONDS: Final = 7 * DAY_SECONDS
# Where nothing was ever published; whoever reads it renews it.
EMPTY_SECONDS: Final = 600
ONCE_SECONDS: Final = 300
MAX_ENTRIES_PER_READ: Final = 500
MAX_BYTES_PER_READ: Final = 1024 * 1024


class Kind(StrEnum):
    """What a payload is to clients that tell values from text."""

    TEXT = 't'  # text, or bytes where it is not valid UTF-8
    JSON = 'j'


_KINDS: Final = {kind.value: kind for kind in Kind}


class Position(NamedTuple):
    """The place of a publication in its channel.

    The offset is counted within the epoch. The tag is random for each publication, and empty where
    it is not known.
    """

    epoch: str
    offset: int
    tag: str = ''

    def __str__(self) -> str:
        return f'{self.epoch}.{self.offset}.{self.tag}'

    @classmethod
    def parse(cls, text: str) -> Position:
        """Return the position that a text names; raise ``ValueError`` if it names none."""
        epoch, offset, tag = text.split('.')
        if not epoch or not offset.isascii() or not offset.isdigit() or len(offset) > 15:
            raise ValueError(f'{text!r} is no position')
        return cls(epoch, int(offset), tag)


class Entry(NamedTuple):
    """A publication as the stream holds it."""

    offset: int
    payload: bytes
    kind: Kind
    tag: str
    tag_before: str


class Header(NamedTuple):
    """What is told of a publication just before its payload; without a history only its kind."""

    position: Position | None
    tag_before: str
    kind: Kind


class NewEpoch(NamedTuple):
    """The chain of a channel was broken: what was known of it is void."""

    position: Position


class Outcome(StrEnum):
    """Whether what came after a position could be read."""

    OK = 'ok'
    TRIMMED = 'trimmed'  # it is not kept any more
    EPOCH = 'epoch'  # the position is of another numbering
    BROKEN = 'broken'  # offsets were given out again


class Reading(NamedTuple):
    """The answer to a read."""

    outcome: Outcome
    newest: Position
    kept: bytes | None
    entries: list[Entry]
    # Of the newest publication, which is the one that is kept.
    kind: Kind = Kind.TEXT


class PageRequest(NamedTuple):
    """Which part of a channel's history is wanted.

    At most ``limit`` entries after ``since``; with ``reverse`` those before it, the newest first.
    """

    channel: str
    since: Position | None
    limit: int
    reverse: bool


class Page(NamedTuple):
    """A part of a history, and the newest position; empty where ``since`` cannot be followed."""

    outcome: Outcome
    newest: Position
    entries: list[Entry]


class Published(NamedTuple):
    """The answer to a publication; not new where its idempotency key was used before."""

    position: Position
    is_new: bool


def random_name() -> str:
    """Return a name that nobody else will choose, for a tag or an epoch."""
    return secrets.token_hex(6)


def publish_command(
    keys: ChannelKeys,
    payload: bytes,
    options: FacilityOptions,
    *,
    keep_seconds: int,
    kind: Kind = Kind.TEXT,
    once: str | None = None,
    publish: bytes = b'PUBLISH',
    tag: str | None = None,
    again: bool = False,
) -> Command:
    """Return the call that publishes on a channel with a history.

    ``once`` is the idempotency key; ``publish`` is ``SPUBLISH`` in a Cluster. ``again`` says that
    Redis may have done it already, under the same ``tag``, and was not heard to say so.
    """
    names = [keys.plain, keys.stream, keys.position]
    if once is not None:
        names.append(keys.once + once.encode())
    return PUBLISH.call(
        names,
        (
            payload,
            kind,
            tag or random_name(),
            random_name(),
            options.history_size,
            options.history_seconds,
            max(POSITION_SECONDS, 2 * options.history_seconds),
            keep_seconds,
            keys.events,
            publish,
            ONCE_SECONDS,
            int(again),
        ),
    )


def read_command(
    keys: ChannelKeys,
    since: Position | None,
    *,
    limit: int = MAX_ENTRIES_PER_READ,
    max_bytes: int = MAX_BYTES_PER_READ,
    has_seen: bool = False,
    publish: bytes = b'PUBLISH',
) -> Command:
    """Return the call that reads what is kept, and at most ``limit`` entries after a position.

    Of more than ``max_bytes`` there is one entry at most.

    ``has_seen`` says that this process has taken the position from Redis itself. Then a chain that
    is broken there begins a new epoch; what clients name proves nothing.
    """
    epoch, offset, tag = since or ('', 0, '')
    # Clients name it, and a string in JSON may hold half a character.
    epoch_bytes, tag_bytes = epoch.encode(errors='replace'), tag.encode(errors='replace')
    return READ.call(
        (keys.plain, keys.stream, keys.position),
        (
            epoch_bytes,
            offset,
            tag_bytes,
            limit,
            random_name(),
            int(has_seen),
            POSITION_SECONDS,
            keys.events,
            publish,
            max_bytes,
            EMPTY_SECONDS,
        ),
    )


def parse_published(reply: Sequence[Any]) -> Published:
    epoch, offset, tag, is_new = reply
    return Published(Position(_text(epoch), int(offset), _text(tag)), bool(is_new))


def parse_reading(reply: Sequence[Any]) -> Reading:
    outcome, epoch, offset, tag, kept, entries, kind = reply
    return Reading(
        Outcome(_text(outcome)),
        Position(_text(epoch), int(offset), _text(tag)),
        kept,
        [
            Entry(int(number), payload, Kind(_text(kind)), _text(tag), _text(before))
            for number, payload, kind, tag, before in entries
        ],
        Kind(_text(kind)),
    )


def header_without_position(kind: Kind) -> bytes:
    """Return the header of a publication on a channel without a history."""
    return f'P - 0 - - {kind}'.encode()


def parse_event(event: bytes) -> Header | NewEpoch | None:
    """Return what an events channel says of publications; None for anything else."""
    words = event.decode(errors='replace').split(' ')
    if words[0] == 'P' and len(words) == 6:
        _, epoch, offset, tag, before, letter = words
        kind = _KINDS.get(letter)
        if kind is not None and offset.isdigit():
            if epoch == '-':
                return Header(None, '', kind)
            return Header(Position(epoch, int(offset), tag), before, kind)
    elif words[0] == 'E' and len(words) == 4 and words[2].isdigit():
        return NewEpoch(Position(words[1], int(words[2]), words[3]))
    return None


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
