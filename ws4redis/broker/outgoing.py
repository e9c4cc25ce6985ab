"""One publication on its way to Redis: the commands that it takes, and what their replies say.

Publishers hand the commands to redis-py, be it blocking or not; the loop writes them to its own
connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ws4redis.broker.channels import facility_in
from ws4redis.broker.history import (
    Kind,
    Position,
    header_without_position,
    parse_published,
    publish_command,
    random_name,
)
from ws4redis.broker.kept import KeptByClients
from ws4redis.broker.keys import keys_of
from ws4redis.broker.publication import Command, publication_commands
from ws4redis.conf import conf
from ws4redis.settings.facilities import DEFAULT_OPTIONS, FacilityOptions


@dataclass(slots=True, eq=False)
class Outgoing:
    """A message, and the full names of the channels that it is published on.

    ``expire`` is the number of seconds for which it is kept, None: as the settings say. ``once`` is
    an idempotency key; it needs a history on every channel.
    """

    channels: tuple[str, ...]
    payload: bytes
    kind: Kind = Kind.TEXT
    expire: int | None = None
    once: str | None = None


def options_of_channel(channel: str) -> FacilityOptions:
    """Return the options of a channel's facility; the defaults where its name has none."""
    facility = facility_in(channel, prefix=conf.key_prefix)
    return DEFAULT_OPTIONS if facility is None else conf.facility_options(facility)


def require_histories(channels: Iterable[str]) -> None:
    """Raise ``ValueError`` unless all channels have a history, as an idempotency key needs it."""
    for channel in channels:
        if not options_of_channel(channel).has_history:
            raise _no_history(channel)


def _no_history(channel: str) -> ValueError:
    return ValueError(
        f'an idempotency key needs a history, which the facility of {channel!r} does not '
        'have; give it one by HISTORY_SIZE in WS4REDIS_FACILITIES'
    )


def keep_seconds(options: FacilityOptions, expire: int | None) -> int:
    """Return for how many seconds a message is kept; 0: not at all."""
    for seconds in (expire, options.keep):
        if seconds is not None:
            return seconds
    return conf.WS4REDIS_EXPIRE or 0


class Route(NamedTuple):
    """What the settings say of a channel, read once for many publications on it."""

    name: bytes
    options: FacilityOptions
    # What keep_seconds() returns where a publication says nothing of it.
    keep: int
    # The command that publishes.
    publish: bytes


def route_to(channel: str) -> Route:
    """Return what the settings say of a channel now."""
    options = options_of_channel(channel)
    name = channel.encode(errors='surrogateescape')
    return Route(name, options, keep_seconds(options, None), conf.publish_word)


class Exchange:
    """The commands of one publication, in order, and the meaning of their replies.

    ``kept`` bounds what is kept of it, where clients send it; raise ``NotKept`` where a history has
    no room. ``tag`` and ``again`` are those of :func:`~ws4redis.broker.history.publish_command`;
    :attr:`tag` is empty where no channel has a history. ``find`` returns the route to a channel.
    """

    def __init__(
        self,
        outgoing: Outgoing,
        *,
        kept: KeptByClients | None = None,
        tag: str = '',
        again: bool = False,
        find: Callable[[str], Route] = route_to,
    ) -> None:
        self._kept = kept
        self._again = again
        self._find = find
        self.tag = tag
        # Whether any of the channels has one.
        self.has_history = False
        self.commands: list[Command] = []
        # The channel whose position the command at the same place returns.
        self._channels: list[str | None] = []
        for channel in outgoing.channels:
            self._add(channel, outgoing)

    def _add(self, channel: str, outgoing: Outgoing) -> None:
        name, options, keep, word = self._find(channel)
        if outgoing.expire is not None:
            keep = outgoing.expire
        if options.has_history:
            self.has_history = True
            # The same on all channels: the publication's name.
            self.tag = self.tag or random_name()
            keys = keys_of(name, conf.key_prefix)
            if self._kept is not None and not self._again:
                self._kept.admit_entry(
                    keys.stream, outgoing.payload, options.history_size, options.history_seconds
                )
            command = publish_command(
                keys,
                outgoing.payload,
                options,
                keep_seconds=keep,
                kind=outgoing.kind,
                once=outgoing.once,
                publish=word,
                tag=self.tag,
                again=self._again,
            )
            self.commands.append(command)
            self._channels.append(channel)
            return
        if outgoing.once is not None:
            raise _no_history(channel)
        may_keep = None if self._kept is None else self._kept.admits
        commands = publication_commands(
            [name], outgoing.payload, keep, may_keep=may_keep, publish=word
        )
        if outgoing.kind is not Kind.TEXT:
            events = keys_of(name, conf.key_prefix).events
            commands.insert(-1, (word, events, header_without_position(outgoing.kind)))
        self.commands += commands
        self._channels += [None] * len(commands)

    def positions(self, replies: Sequence[Any]) -> dict[str, Position]:
        """Return the position on each channel that has a history."""
        return {
            channel: parse_published(reply).position
            for channel, reply in zip(self._channels, replies, strict=True)
            if channel is not None
        }
