"""Publications that stay in memory, for tests that need no Redis."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Unpack

from ws4redis.broker.control import ControlMessage
from ws4redis.broker.history import (
    Entry,
    Kind,
    Outcome,
    Page,
    PageRequest,
    Position,
    random_name,
)
from ws4redis.broker.outgoing import Exchange, Outgoing, keep_seconds, options_of_channel
from ws4redis.broker.presence import Member, Roll, Version, member_id_of_user
from ws4redis.live.notification_store import MemoryNotifications, use_store
from ws4redis.publishing.broker import Positions, use_broker
from ws4redis.test.audience import Audience, channels_of

if TYPE_CHECKING:
    import unittest

    _TestCase = unittest.TestCase
else:
    # The mixin stands in front of a test case, whichever that is.
    _TestCase = object


@dataclass(frozen=True, slots=True)
class Publication:
    """One call of ``publish_message`` or its relatives.

    ``channels`` are full names, prefix included. ``expire`` is the number of seconds for which the
    message is kept; 0: not at all.
    """

    channels: frozenset[str]
    message: bytes
    expire: int
    kind: Kind = Kind.TEXT


@dataclass(frozen=True, slots=True)
class _Kept:
    message: bytes
    until: float


class _History:
    """The publications of one channel, numbered as Redis does."""

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque()
        self.newest = Position(random_name(), 0, '-')
        self.once: dict[str, Position] = {}

    def append(self, outgoing: Outgoing, size: int) -> Position:
        if outgoing.once in self.once:
            return self.once[outgoing.once]
        before = self.newest
        self.newest = Position(before.epoch, before.offset + 1, random_name())
        offset, tag = self.newest.offset, self.newest.tag
        self.entries.append(Entry(offset, outgoing.payload, outgoing.kind, tag, before.tag))
        while len(self.entries) > size:
            self.entries.popleft()
        if outgoing.once is not None:
            self.once[outgoing.once] = self.newest
        return self.newest

    def outcome(self, since: Position | None) -> Outcome:
        if since is None:
            return Outcome.OK
        if since.epoch != self.newest.epoch:
            return Outcome.EPOCH
        if since.offset > self.newest.offset:
            return Outcome.BROKEN
        oldest = self.entries[0].offset if self.entries else self.newest.offset + 1
        return Outcome.OK if since.offset + 1 >= oldest else Outcome.TRIMMED

    def page(self, request: PageRequest) -> Page:
        outcome = self.outcome(request.since)
        entries = list(self.entries)
        since = request.since
        if request.reverse:
            entries = [e for e in reversed(entries) if since is None or e.offset < since.offset]
        elif since is not None:
            entries = [e for e in entries if e.offset > since.offset]
        if outcome is not Outcome.OK:
            entries = []
        return Page(outcome, self.newest, entries[: request.limit])


class MemoryBroker:
    """Keep what is published in this process; ``outbox`` lists it, oldest first.

    ``told`` lists what :mod:`ws4redis.control` and Django's signals told the processes that hold
    connections. Facilities have the histories that ``WS4REDIS_FACILITIES`` gives them. ``clock``
    returns seconds, and decides when kept messages expire; histories are trimmed by size alone.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.outbox: list[Publication] = []
        self.told: list[ControlMessage] = []
        self._kept: dict[str, _Kept] = {}
        self._histories: dict[str, _History] = {}
        self.notifications = MemoryNotifications()
        self._members: dict[str, dict[str, Member]] = {}

    @property
    def client(self) -> NoReturn:
        raise RuntimeError(
            'Publications stay in memory in this test, so there is no Redis client. Test what '
            'needs Redis itself with ws4redis.test.WebSocketTestCase.'
        )

    def publish(self, outgoing: Outgoing, *, transaction: bool) -> Positions:
        # Refuses what Redis's broker refuses.
        Exchange(outgoing)
        positions = {}
        for channel in outgoing.channels:
            options = options_of_channel(channel)
            if options.has_history:
                history = self._history(channel)
                is_new = outgoing.once not in history.once
                positions[channel] = history.append(outgoing, options.history_size)
                if not is_new:
                    continue
            if seconds := keep_seconds(options, outgoing.expire):
                self._kept[channel] = _Kept(outgoing.payload, self._clock() + seconds)
        expire = keep_seconds(options_of_channel(outgoing.channels[0]), outgoing.expire)
        self.outbox.append(
            Publication(frozenset(outgoing.channels), outgoing.payload, expire, outgoing.kind)
        )
        return positions

    async def apublish(self, outgoing: Outgoing) -> Positions:
        return self.publish(outgoing, transaction=True)

    def fetch(self, channels: Sequence[str]) -> list[bytes | None]:
        now = self._clock()
        found = [self._kept.get(channel) for channel in channels]
        return [kept.message if kept and now < kept.until else None for kept in found]

    async def afetch(self, channels: Sequence[str]) -> list[bytes | None]:
        return self.fetch(channels)

    def read_page(self, request: PageRequest) -> Page:
        return self._history(request.channel).page(request)

    async def aread_page(self, request: PageRequest) -> Page:
        return self.read_page(request)

    def positions(self, channels: Sequence[str]) -> Positions:
        return {channel: self._history(channel).newest for channel in channels}

    async def apositions(self, channels: Sequence[str]) -> Positions:
        return self.positions(channels)

    def rolls(self, channels: Sequence[str], *, only_count: bool = False) -> list[Roll]:
        found = [list(self._members.get(channel, {}).values()) for channel in channels]
        return [Roll(Version('', 0), len(members), members) for members in found]

    async def arolls(self, channels: Sequence[str], *, only_count: bool = False) -> list[Roll]:
        return self.rolls(channels, only_count=only_count)

    def join(
        self, facility: str, user: str, info: Any = None, **audience: Unpack[Audience]
    ) -> None:
        """Let a user be there, for :class:`~ws4redis.presence.Presence`.

        The audience is given as to ``RedisPublisher``; by default it is the broadcast.
        """
        member = Member(member_id_of_user(user), user, info)
        for channel in channels_of(facility, audience or {'broadcast': True}):
            self._members.setdefault(channel, {})[member.id] = member

    def leave(self, facility: str, user: str, **audience: Unpack[Audience]) -> None:
        """Let a user be there no more."""
        for channel in channels_of(facility, audience or {'broadcast': True}):
            self._members.get(channel, {}).pop(member_id_of_user(user), None)

    def tell(self, messages: Sequence[ControlMessage]) -> None:
        self.told += messages

    async def atell(self, messages: Sequence[ControlMessage]) -> None:
        self.tell(messages)

    def mark(self, keys: Sequence[str], seconds: int) -> None:
        until = self._clock() + seconds
        self._kept.update({key: _Kept(b'1', until) for key in keys})

    def _history(self, channel: str) -> _History:
        return self._histories.setdefault(channel, _History())

    def published(self, facility: str, **audience: Unpack[Audience]) -> list[bytes]:
        """Return what was published to an audience, on all of its channels, oldest first."""
        channels = channels_of(facility, audience)
        return [item.message for item in self.outbox if channels <= item.channels]

    def clear(self) -> None:
        """Forget all publications, kept messages and members."""
        self.outbox.clear()
        self.told.clear()
        self._kept.clear()
        self._histories.clear()
        self.notifications.clear()
        self._members.clear()


@contextmanager
def publish_in_memory() -> Iterator[MemoryBroker]:
    """Publish into memory and fetch from it, in all threads of this process; also a decorator.

    The value of the ``with`` has ``outbox``, the list of publications, ``published(facility, …)``
    and ``clear()``. Messages reach no websocket: use ``WebSocketTestCase`` for that.
    """
    broker = MemoryBroker()
    with use_broker(broker), use_store(broker.notifications):
        yield broker


class PublishingMixin(_TestCase):
    """Keep what a test publishes in memory; put it in front of Django's ``TestCase``.

    ``RedisPublisher`` publishes into ``self.outbox`` and fetches kept messages from memory. Each
    test begins with nothing published. No Redis is needed, and none is written to.
    """

    _broker: MemoryBroker

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        from ws4redis.test.cases import WebSocketTestCase

        if issubclass(cls, WebSocketTestCase):
            raise TypeError(
                f'{cls.__name__} is a WebSocketTestCase, whose messages pass through Redis: '
                'leave PublishingMixin out, or test publishing in a class of its own.'
            )

    @classmethod
    def setUpClass(cls) -> None:
        # Before Django's, which calls setUpTestData().
        cls._broker = cls.enterClassContext(publish_in_memory())
        super().setUpClass()

    # Not in setUp(), which test classes override without calling ours.
    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        self._broker.clear()
        return super().run(result)

    @property
    def outbox(self) -> list[Publication]:
        """What was published in this test, oldest first."""
        return self._broker.outbox

    def published(self, facility: str, **audience: Unpack[Audience]) -> list[bytes]:
        """Return what was published to an audience in this test, oldest first.

        The audience is given as to ``RedisPublisher``. A message counts that was published on each
        of its channels, maybe among others.
        """
        return self._broker.published(facility, **audience)

    @contextmanager
    def assertPublished(  # noqa: N802 (as unittest names its assertions)
        self,
        message: str | bytes | None = None,
        *,
        facility: str,
        **audience: Unpack[Audience],
    ) -> Iterator[list[bytes]]:
        """Assert that a message is published in the ``with`` block, to an audience.

        The audience is given as to ``RedisPublisher``; the message has to be published on each of
        its channels. Without ``message``, any will do. The value of the ``with`` is a list, which
        holds the messages to this audience once the block has ended.
        """
        channels = channels_of(facility, audience)
        expected = message.encode() if isinstance(message, str) else message
        count_before = len(self.outbox)
        published: list[bytes] = []
        yield published
        in_block = self.outbox[count_before:]
        published += [item.message for item in in_block if channels & item.channels]
        reached = {
            channel
            for item in in_block
            if expected is None or item.message == expected
            for channel in item.channels
        }
        if missing := sorted(channels - reached):
            what = 'No message' if expected is None else repr(expected)
            self.fail(f'{what} was published on {", ".join(missing)}; {_as_text(in_block)}')


def _as_text(publications: list[Publication]) -> str:
    if not publications:
        return 'nothing was published.'
    lines = [f'  {item.message!r} on {", ".join(sorted(item.channels))}' for item in publications]
    return '\n'.join(['these messages were published:', *lines])
