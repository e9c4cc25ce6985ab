"""Mirrors: the members of channels whose joins and leaves somebody of this process wants to know.

A mirror is read once, and follows the changes that are told; where one is missing it is read again,
and what differs is told. So for whoever listens, joins minus leaves are the members, whatever was
missed meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from ws4redis.broker.presence import Change, ChangeKind, Member, Roll, Version, parse_change

if TYPE_CHECKING:
    from ws4redis.hub.presence import Presence
    from ws4redis.loop.loop import Loop

logger = logging.getLogger('ws4redis')

# After a read that failed, or changes that did not fit, it is tried again.
RETRY_SECONDS: Final = 0.5
# Changes that wait for a read; past that the next read will have them.
MAX_WAITING: Final = 1000

Listener: TypeAlias = Callable[[bytes, ChangeKind, Member], object]
Ready: TypeAlias = Callable[[list[Member]], object]
Answered: TypeAlias = Callable[[list[Member] | None], object]


class Mirror:
    """The members of one channel, and who listens."""

    __slots__ = (
        'asking',
        'is_reading',
        'listeners',
        'members',
        'retries',
        'version',
        'waiting',
        'wants_read',
    )

    def __init__(self) -> None:
        # Those who are not told yet wait for the members that their changes follow.
        self.listeners: dict[Listener, Ready | None] = {}
        self.members: dict[str, Member] = {}
        # Who asked before it was read.
        self.asking: list[Answered] = []
        # None until it was read.
        self.version: Version | None = None
        self.is_reading = False
        # Whether it is read again in a moment, after a read that failed.
        self.retries = False
        # Whether something was missed since the read that is under way was asked for.
        self.wants_read = False
        self.waiting: list[Change] = []


class Mirrors:
    """Keep mirrors of channels for those who listen. All of this runs in the loop."""

    def __init__(self, loop: Loop, presence: Presence) -> None:
        self._loop = loop
        self._presence = presence
        self._mirrors: dict[bytes, Mirror] = {}

    def listen(self, channel: bytes, listener: Listener, ready: Ready) -> None:
        """Call ``ready`` with the members of a channel, then ``listener`` for each change.

        Both are called in the loop, ``ready`` maybe at once.
        """
        mirror = self._mirrors.get(channel)
        if mirror is None:
            mirror = self._mirrors[channel] = Mirror()
        if mirror.version is None:
            mirror.listeners[listener] = ready
            self._read(channel, mirror)
        else:
            mirror.listeners[listener] = None
            ready(list(mirror.members.values()))

    def stop_listening(self, channel: bytes, listener: Listener) -> None:
        """Call a listener no more; a mirror that nobody uses is dropped."""
        mirror = self._mirrors.get(channel)
        if mirror is not None:
            mirror.listeners.pop(listener, None)
            if not mirror.listeners:
                del self._mirrors[channel]
                for done in mirror.asking:
                    self.ask(channel, done)

    def ask(self, channel: bytes, done: Answered) -> None:
        """Call ``done`` with the members, as those who listen know them; else Redis is asked.

        It gets None if Redis cannot tell.
        """
        mirror = self._mirrors.get(channel)
        if mirror is None:
            self._presence.read(channel, lambda roll: done(None if roll is None else roll.members))
        elif mirror.version is None:
            mirror.asking.append(done)
        else:
            done(list(mirror.members.values()))

    # What is told

    def event_received(self, channel: bytes, event: bytes) -> None:
        """Take what the events channel tells of members."""
        mirror = self._mirrors.get(channel)
        change = None if mirror is None else parse_change(event)
        if mirror is None or change is None:
            return
        if mirror.is_reading:
            if len(mirror.waiting) < MAX_WAITING:
                mirror.waiting.append(change)
            else:
                mirror.wants_read = True
        elif mirror.version is not None:
            self._follow(channel, mirror, change)

    def read_all(self) -> None:
        """Read all mirrors again: changes may have been missed."""
        # Where Redis is away who asks is told at once, and may stop listening.
        for channel, mirror in list(self._mirrors.items()):
            self._read(channel, mirror)

    def _follow(self, channel: bytes, mirror: Mirror, change: Change) -> None:
        assert mirror.version is not None
        if mirror.version.precedes(change.version):
            mirror.version = change.version
            self._apply(channel, mirror, change.kind, change.member)
        elif not mirror.version.includes(change.version):
            self._read(channel, mirror)

    def _apply(self, channel: bytes, mirror: Mirror, kind: ChangeKind, member: Member) -> None:
        """Tell of a change, unless it changes nothing."""
        was_there = member.id in mirror.members
        if kind is ChangeKind.JOIN:
            mirror.members[member.id] = member
        else:
            mirror.members.pop(member.id, None)
        if was_there != (kind is ChangeKind.JOIN):
            for listener in list(mirror.listeners):
                try:
                    listener(channel, kind, member)
                except Exception:
                    logger.exception('telling of a join or leave in %r failed', channel)

    # Reading

    def _read(self, channel: bytes, mirror: Mirror) -> None:
        if mirror.is_reading:
            mirror.wants_read = True
            return
        mirror.is_reading = True
        mirror.wants_read = False
        mirror.waiting.clear()
        self._presence.read(channel, lambda roll: self._take_roll(channel, mirror, roll))

    def _take_roll(self, channel: bytes, mirror: Mirror, roll: Roll | None) -> None:
        mirror.is_reading = False
        if self._mirrors.get(channel) is not mirror:
            return
        asking, mirror.asking = mirror.asking, []
        if roll is None:
            if not mirror.retries:
                mirror.retries = True
                self._loop.call_later(RETRY_SECONDS, self._read_again, channel, mirror)
            for done in asking:
                done(None)
            return
        self._take_members(channel, mirror, roll)
        for done in asking:
            done(list(mirror.members.values()))
        for listener, ready in list(mirror.listeners.items()):
            if ready is not None:
                mirror.listeners[listener] = None
                ready(list(mirror.members.values()))
        waiting, mirror.waiting = mirror.waiting, []
        for change in waiting:
            if not mirror.is_reading:
                self._follow(channel, mirror, change)
        if mirror.wants_read and not mirror.is_reading:
            self._read(channel, mirror)

    def _take_members(self, channel: bytes, mirror: Mirror, roll: Roll) -> None:
        is_first = mirror.version is None
        mirror.version = roll.version
        members = {member.id: member for member in roll.members}
        if is_first:
            mirror.members = members
            return
        for member in list(mirror.members.values()):
            if member.id not in members:
                self._apply(channel, mirror, ChangeKind.LEAVE, member)
        for member in roll.members:
            self._apply(channel, mirror, ChangeKind.JOIN, member)

    def _read_again(self, channel: bytes, mirror: Mirror) -> None:
        mirror.retries = False
        if self._mirrors.get(channel) is mirror:
            self._read(channel, mirror)
