"""Histories, positions and presence: the commands that read them, and their replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ws4redis.broker.history import (
    Entry,
    Kind,
    Outcome,
    Page,
    PageRequest,
    Position,
    parse_reading,
    read_command,
)
from ws4redis.broker.keys import ChannelKeys, keys_of
from ws4redis.broker.presence import (
    living_command,
    parse_renewal,
    processes_key,
)
from ws4redis.broker.presence import read_command as read_presence_command
from ws4redis.broker.publication import Command
from ws4redis.conf import conf


def _keys_of(channel: str) -> ChannelKeys:
    return keys_of(channel.encode(errors='surrogateescape'), conf.key_prefix)


def position_command(channel: str) -> Command:
    """Return the command that reads the newest position of a channel.

    Where nothing was published yet, it begins an epoch, so that what comes can be told to follow.
    """
    return read_command(_keys_of(channel), None, publish=conf.publish_word)


def position_of(reply: Sequence[Any]) -> Position:
    return parse_reading(reply).newest


def page_commands(request: PageRequest) -> list[Command]:
    """Return the commands that read a page; they are to be run in a transaction."""
    keys = _keys_of(request.channel)
    since = request.since
    # An entry's ID is its offset. Beside entries there may be markers of epochs: hence one more.
    if request.reverse:
        # There is none before the first, and Redis refuses to count down from 0.
        newest = '+' if since is None else str(max(since.offset - 1, 0))
        entries: Command = (b'XREVRANGE', keys.stream, newest, '-', b'COUNT', request.limit + 1)
    else:
        oldest = '-' if since is None else f'{since.offset + 1}-0'
        entries = (b'XRANGE', keys.stream, oldest, '+', b'COUNT', request.limit + 1)
    return [read_command(keys, since, limit=1, publish=conf.publish_word), entries]


def page_of(request: PageRequest, replies: Sequence[Any]) -> Page:
    reading = parse_reading(replies[0])
    found = [_entry_of(*item) for item in replies[1]]
    entries = [entry for entry in found if entry is not None][: request.limit]
    if request.since is not None and reading.outcome is not Outcome.OK:
        return Page(reading.outcome, reading.newest, [])
    return Page(Outcome.OK, reading.newest, entries)


def _entry_of(number: bytes, flat: list[bytes]) -> Entry | None:
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    if b'd' not in fields:
        return None
    return Entry(
        int(number.partition(b'-')[0]),
        fields[b'd'],
        Kind(fields[b'k'].decode()),
        fields[b't'].decode(),
        fields[b'p'].decode(),
    )


def living_commands() -> list[Command]:
    """Return the command that tells which processes live, for :func:`roll_commands`."""
    return [living_command(processes_key(conf.key_prefix))]


def living_in(replies: Sequence[Any]) -> frozenset[str]:
    return parse_renewal(replies[0]).processes


def roll_commands(
    channels: Sequence[str], living: frozenset[str], *, only_count: bool
) -> list[Command]:
    """Return the commands that read who is in each of some channels."""
    return [
        read_presence_command(_keys_of(channel), living, only_count=only_count)
        for channel in channels
    ]
