"""Presence: what this process holds of the channels whose members can be asked for.

How it fits together is told in ``docs/explanation/presence.md``. All of this runs in the loop.
"""

from __future__ import annotations

import logging
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ws4redis.broker.keys import ChannelKeys, keys_of
from ws4redis.broker.link import Commands, error_code
from ws4redis.broker.presence import (
    MEMBERS_PER_CALL,
    RENEWAL_SECONDS,
    SCRIPTS,
    Member,
    Registration,
    Renewal,
    Roll,
    drop_command,
    join_command,
    leave_command,
    parse_registration,
    parse_renewal,
    parse_roll,
    processes_key,
    read_command,
    renew_command,
)
from ws4redis.broker.publication import Command

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from ws4redis.loop.loop import Loop
    from ws4redis.loop.timers import Timer

logger = logging.getLogger('ws4redis')

# For this long a member stays whose last connection has closed: he may come back.
GRACE_SECONDS: Final = 10.0
# So old is a life before it buries others: after a restart of Redis all need the time to come back.
BURIAL_AGE_SECONDS: Final = 7.0
VERIFICATION_SECONDS: Final = 60.0
VERIFICATIONS_PER_RENEWAL: Final = 8
# How long after Redis refused a command a new life is tried.
REFUSED_SECONDS: Final = 5.0
# How long until it is tried when a slot of a Cluster is about to be elsewhere.
MOVED_SECONDS: Final = 0.5
_MOVED: Final = frozenset({'MOVED', 'ASK', 'TRYAGAIN', 'CLUSTERDOWN'})
# How many renewals may be due before an answer that is under way is given up: one may be lost
# where slots move.
PATIENT_RENEWALS: Final = 5
# The same for who asks for members.
READ_SECONDS: Final = 10.0
# What a turn writes at most, a few milliseconds of work.
MEMBERS_PER_TURN: Final = 1000
DROPS_PER_TURN: Final = 200

Rolled: TypeAlias = Callable[[Roll | None], object]


class State(IntEnum):
    """The life of this process, as Redis sees it."""

    AWAY = 0
    BEGINNING = 1
    ALIVE = 2


class Entry:
    """A member of a channel, as far as this process has connections of his."""

    __slots__ = ('connections', 'deadline', 'id', 'value', 'written')

    def __init__(self, member_id: str) -> None:
        self.id = member_id
        self.value = b''
        self.connections = 0
        # Until when he stays although his last connection has closed.
        self.deadline: float | None = None
        # The value with which he was registered under the present name.
        self.written: bytes | None = None

    @property
    def is_wanted(self) -> bool:
        return self.connections > 0 or self.deadline is not None


class Held:
    """A channel of which this process holds members."""

    __slots__ = ('changed', 'connections', 'keys', 'members', 'registered')

    def __init__(self, keys: ChannelKeys) -> None:
        self.keys = keys
        self.members: dict[str, Entry] = {}
        self.connections: dict[Hashable, Entry] = {}
        # Whose registration may have to change.
        self.changed: dict[Entry, None] = {}
        # How many members were written under the present name.
        self.registered = 0

    def forget_registrations(self) -> None:
        for entry in self.members.values():
            entry.written = None
        self.registered = 0
        self.changed = dict.fromkeys(self.members.values())

    def take_changed(self, limit: int) -> tuple[dict[str, bytes], list[str]]:
        """Return who joins and who leaves, at most so many, as if that was written."""
        joins: dict[str, bytes] = {}
        leaves: list[str] = []
        for entry in list(self.changed)[:limit]:
            del self.changed[entry]
            if not entry.is_wanted:
                if self.members.get(entry.id) is entry:
                    del self.members[entry.id]
                    if entry.written is not None:
                        leaves.append(entry.id)
                        self.registered -= 1
            elif entry.written != entry.value:
                joins[entry.id] = entry.value
                if entry.written is None:
                    self.registered += 1
                entry.written = entry.value
        return joins, leaves


class Presence:
    """Register members in Redis, keep the lease of this process, and sweep dead ones.

    ``link`` carries the commands; who owns it calls :meth:`link_connected` and :meth:`link_lost`.
    ``renewed`` is called when a life has begun and all is registered: who has read before may have
    missed something.
    """

    def __init__(
        self,
        loop: Loop,
        link: Commands,
        *,
        prefix: str = '',
        publish: bytes = b'PUBLISH',
        renewed: Callable[[], object] = lambda: None,
    ) -> None:
        self.name = ''
        self.state = State.AWAY
        self._loop = loop
        self._link = link
        self._prefix = prefix
        self._publish = publish
        self._renewed = renewed
        self._processes_key = processes_key(prefix)
        self._held: OrderedDict[bytes, Held] = OrderedDict()
        # Those of all that is held.
        self.members = 0
        self._changed: dict[Held, None] = {}
        # Deadlines of those whose last connection has closed, the earliest first.
        self._leaving: deque[tuple[float, Held, Entry]] = deque()
        self._leave_timer: Timer | None = None
        self._renewal_timer: Timer | None = None
        self._retry_timer: Timer | None = None
        self._has_scripts = False
        self._began_at = 0.0
        # How many more renewals were due since the one that is under way; None: none is.
        self._renewals_due: int | None = None
        # Whether a life has begun, and not all is registered yet.
        self._is_renewing = False
        self._living: frozenset[str] = frozenset()
        # Processes that hold members of our channels, and are not known to live.
        self._suspects: dict[str, dict[Held, None]] = {}
        self._drops: deque[tuple[str, Iterator[Held]]] = deque()
        # Names of former lives whose leases have not ended yet.
        self._former: set[str] = set()
        self._leased = ''
        self._complaint: str | None = None
        self._questions: dict[object, Rolled] = {}

    # Joining and leaving

    def joined(self, channel: bytes, connection: Hashable, member: Member) -> None:
        """Let a connection of a member be in a channel."""
        held = self._held.get(channel)
        if held is None:
            held = self._held[channel] = Held(keys_of(channel, self._prefix))
        if connection in held.connections:
            return
        entry = held.members.get(member.id)
        if entry is None:
            entry = held.members[member.id] = Entry(member.id)
            self.members += 1
        held.connections[connection] = entry
        entry.connections += 1
        entry.deadline = None
        entry.value = member.encode()
        if entry.value != entry.written:
            self._note_change(held, entry)
        if self.state is State.AWAY and self._link.is_connected and self._retry_timer is None:
            self._begin()

    def left(self, channel: bytes, connection: Hashable, *, at_once: bool = False) -> None:
        """Take a connection out of a channel; whose last one it was leaves after the grace."""
        held = self._held.get(channel)
        entry = None if held is None else held.connections.pop(connection, None)
        if held is None or entry is None:
            return
        entry.connections -= 1
        if entry.connections:
            return
        if at_once:
            self._note_change(held, entry)
            return
        entry.deadline = self._loop.timers.clock() + GRACE_SECONDS
        self._leaving.append((entry.deadline, held, entry))
        if self._leave_timer is None:
            self._leave_timer = self._loop.call_later(GRACE_SECONDS, self._grace_is_over)

    def _grace_is_over(self) -> None:
        self._leave_timer = None
        now = self._loop.timers.clock()
        while self._leaving and self._leaving[0][0] <= now:
            deadline, held, entry = self._leaving.popleft()
            # Who came back and left again is further behind in the queue.
            if entry.deadline == deadline:
                entry.deadline = None
                self._note_change(held, entry)
        if self._leaving:
            wait = self._leaving[0][0] - now
            self._leave_timer = self._loop.call_later(wait, self._grace_is_over)

    def _note_change(self, held: Held, entry: Entry) -> None:
        held.changed[entry] = None
        self._changed[held] = None

    # Asking

    def read(self, channel: bytes, done: Rolled, *, only_count: bool = False) -> None:
        """Ask Redis who is in a channel; ``done`` gets None if Redis cannot tell."""
        if not self._link.is_connected:
            done(None)
            return
        self._load_scripts()
        keys = keys_of(channel, self._prefix)
        question = object()
        self._questions[question] = done
        overdue = self._loop.call_later(READ_SECONDS, self._answer, question, None)

        def replied(reply: Any) -> None:
            self._loop.timers.cancel(overdue)
            self._answer(question, parse_roll(reply))

        def refused(error: Exception) -> None:
            self._refuse(error)
            self._loop.timers.cancel(overdue)
            self._answer(question, None)

        self._link.send(
            *read_command(keys, only_count=only_count), replied=replied, refused=refused
        )

    def _answer(self, question: object, roll: Roll | None) -> None:
        done = self._questions.pop(question, None)
        if done is not None:
            done(roll)

    # The connection

    def link_connected(self) -> None:
        if self._held and self._retry_timer is None:
            self._begin()

    def _load_scripts(self) -> None:
        """Let Redis know the scripts, once for each connection that needs them."""
        if not self._has_scripts:
            self._has_scripts = True
            for script in SCRIPTS:
                # Where that is refused, so is the call.
                self._link.send(b'SCRIPT', b'LOAD', script.text)

    def link_lost(self) -> None:
        self.state = State.AWAY
        self._has_scripts = False
        questions, self._questions = self._questions, {}
        for done in questions.values():
            done(None)

    def _begin(self) -> None:
        """Begin a life under a new name; who was held under another is registered anew."""
        self._load_scripts()
        self.name = secrets.token_hex(8)
        self.state = State.BEGINNING
        self._began_at = self._loop.timers.clock()
        self._suspects.clear()
        self._drops.clear()
        self._changed.clear()
        for held in self._held.values():
            held.forget_registrations()
            self._changed[held] = None
        self._renew()
        if self._renewal_timer is None:
            self._renewal_timer = self._loop.call_later(RENEWAL_SECONDS, self._tick)

    def _send(self, command: Command, replied: Callable[[Any], object]) -> None:
        """Send a command whose answer counts only in this life."""
        name = self.name

        def taken(reply: Any) -> None:
            if name == self.name:
                replied(reply)

        def refused(error: Exception) -> None:
            if name == self.name:
                self._refuse(error)

        self._link.send(*command, replied=taken, refused=refused)

    def _refuse(self, error: Exception) -> None:
        """Begin anew, later: nothing of this life is certain any more."""
        code = error_code(error)
        wait = {'NOSCRIPT': 0.0}.get(code, MOVED_SECONDS if code in _MOVED else REFUSED_SECONDS)
        if code == 'NOSCRIPT':
            self._has_scripts = False
        if wait == REFUSED_SECONDS and str(error) != self._complaint:
            self._complaint = str(error)
            logger.error('Redis refuses to keep presence: %s', error)
        if self.state is State.AWAY:
            return
        self.state = State.AWAY
        self.name = ''
        if self._retry_timer is None:
            self._retry_timer = self._loop.call_later(wait, self._begin_again)

    def _begin_again(self) -> None:
        self._retry_timer = None
        if self.state is State.AWAY and self._link.is_connected:
            self.link_connected()

    # The lease

    def _tick(self) -> None:
        self._renewal_timer = None
        if not self._held:
            # The lease may end: nothing depends on it.
            self.state = State.AWAY
            return
        self._renewal_timer = self._loop.call_later(RENEWAL_SECONDS, self._tick)
        if self._renewals_due is not None:
            self._renewals_due += 1
        if self._renewals_due is None and self.state is State.ALIVE:
            self._renew()
        elif (self._renewals_due or 0) >= PATIENT_RENEWALS and self.state is not State.AWAY:
            self._begin()
        if self.state is State.ALIVE:
            self._verify_some()

    def _renew(self) -> None:
        self._renewals_due = 0
        age = self._loop.timers.clock() - self._began_at
        command = renew_command(
            self._processes_key,
            self.name,
            is_first=self.state is State.BEGINNING,
            may_bury=age >= BURIAL_AGE_SECONDS,
        )
        self._send(command, lambda reply: self._take_renewal(parse_renewal(reply)))

    def _take_renewal(self, renewal: Renewal) -> None:
        self._renewals_due = None
        if not renewal.is_alive:
            logger.warning('presence: this process was taken for dead, and registers anew')
            self._begin()
            return
        if self._complaint is not None:
            self._complaint = None
            logger.warning('Redis keeps presence again')
        before, self._living = self._living, renewal.processes
        if self.state is State.BEGINNING:
            self.state = State.ALIVE
            self._is_renewing = True
            self._former.add(self._leased)
            self._leased = self.name
        self._former &= self._living
        for process in before - self._living:
            self._suspects.pop(process, None)
            self._drops.append((process, iter(list(self._held.values()))))
        suspects, self._suspects = self._suspects, {}
        for process, where in suspects.items():
            if process not in self._living:
                self._drops.append((process, iter(where)))

    # What is written when a turn ends

    def turn_end(self) -> bool:
        """Write what has changed; tell whether there is more."""
        if self.state is not State.ALIVE:
            return False
        self._write_changes()
        if self._is_renewing and not self._changed:
            self._is_renewing = False
            # Who leaves from now on must not stay for the rest of a former lease.
            self._drops.extend((name, iter(list(self._held.values()))) for name in self._former)
            self._renewed()
        if not self._changed:
            # Before that, members of our own former lives would be told to leave.
            self._write_drops()
        return bool(self._changed or self._drops)

    def _write_changes(self) -> None:
        room = MEMBERS_PER_TURN
        for held in list(self._changed):
            if room <= 0:
                return
            before = len(held.changed)
            members = len(held.members)
            joins, leaves = held.take_changed(min(room, MEMBERS_PER_CALL))
            self.members -= members - len(held.members)
            room -= max(1, before - len(held.changed))
            if not held.changed:
                del self._changed[held]
            if joins:
                self._register(held, joins)
            if leaves:
                self._send(
                    leave_command(held.keys, self.name, leaves, publish=self._publish),
                    lambda reply: None,
                )
            if not held.members and self._held.get(held.keys.plain) is held:
                del self._held[held.keys.plain]
                for name in self._former:
                    self._drop(name, held, '0')

    def _register(self, held: Held, members: dict[str, bytes]) -> None:
        expected = held.registered
        self._send(
            join_command(
                held.keys,
                self.name,
                members,
                epoch=secrets.token_hex(4),
                publish=self._publish,
            ),
            lambda reply: self._take_registration(
                held, parse_registration(reply), None if members else expected
            ),
        )

    def _take_registration(
        self, held: Held, registration: Registration, expected: int | None
    ) -> None:
        for process in registration.processes - self._living:
            self._suspects.setdefault(process, {})[held] = None
        if expected is None or registration.held == expected:
            return
        logger.warning(
            'presence: Redis has %d members of this process in %r, not %d; registering anew',
            *(registration.held, held.keys.plain, expected),
        )
        if registration.held > expected:
            # Of whom, nobody knows; but they are all under the present name.
            self._begin()
        else:
            held.forget_registrations()
            self._changed[held] = None

    def _verify_some(self) -> None:
        wanted = len(self._held) * RENEWAL_SECONDS / VERIFICATION_SECONDS
        for _ in range(min(VERIFICATIONS_PER_RENEWAL, int(wanted) + 1)):
            channel, held = next(iter(self._held.items()))
            self._held.move_to_end(channel)
            if not held.changed:
                self._register(held, {})

    def _write_drops(self) -> None:
        for _ in range(DROPS_PER_TURN):
            if not self._drops:
                return
            process, where = self._drops[0]
            held = next(where, None)
            if held is None:
                self._drops.popleft()
            elif self._held.get(held.keys.plain) is held:
                self._drop(process, held, '0')

    def _drop(self, process: str, held: Held, cursor: str) -> None:
        command = drop_command(held.keys, process, cursor, publish=self._publish)
        self._send(command, lambda reply: self._take_cursor(process, held, reply))

    def _take_cursor(self, process: str, held: Held, reply: bytes) -> None:
        cursor = reply.decode()
        if cursor != '0':
            self._drop(process, held, cursor)
