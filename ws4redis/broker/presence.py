"""Presence: what is asked of Redis about the members of a channel, and what it answers.

No connection is used here: commands are built, and replies are read. How it fits together is told
in ``docs/explanation/presence.md``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

from ws4redis.broker.keys import ChannelKeys
from ws4redis.broker.publication import Command
from ws4redis.broker.scripts import LEASE, PRESENCE_JOIN, PRESENCE_LEAVE, PRESENCE_READ

# After its last renewal a process counts as alive for 10 to 11.5 seconds: the grace for its clients
# to come back elsewhere. The next renewal of another process buries it, so within 13 seconds.
LEASE_SECONDS: Final = 11.5
RENEWAL_SECONDS: Final = 1.5
KEY_SECONDS: Final = 24 * 3600
# How many members a script looks at; Redis does nothing else meanwhile.
MEMBERS_PER_CALL: Final = 200

SCRIPTS: Final = (LEASE, PRESENCE_JOIN, PRESENCE_LEAVE, PRESENCE_READ)

# The fields of the hash that are no processes; the names of processes are longer.
_VERSION_FIELDS: Final = frozenset({b'e', b'n'})


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who is in a channel.

    ``id`` is the same however many connections he has; ``user`` is None for an anonymous visitor;
    ``info`` is what his token or the project tells of him.
    """

    id: str
    user: str | None
    info: Any

    def encode(self) -> bytes:
        """Return the member as Redis keeps it."""
        value = {'id': self.id, 'user': self.user, 'info': self.info}
        # In ASCII: a name may hold what is no Unicode.
        return json.dumps(value, separators=(',', ':')).encode()

    @classmethod
    def parse(cls, value: bytes) -> Member:
        """Return the member that Redis keeps; raise ``ValueError`` for anything else."""
        match json.loads(value):
            case {'id': str() as name, 'user': str() | None as user, 'info': info}:
                return cls(name, user, info)
        raise ValueError(f'{value!r:.100} is no member')


def member_id_of_user(name: str) -> str:
    return f'user:{name}'


class ChangeKind(StrEnum):
    """What became of a member."""

    JOIN = 'J'
    LEAVE = 'L'


class Version(NamedTuple):
    """The place of a change among those of its channel; counted within the epoch."""

    epoch: str
    number: int

    def precedes(self, other: Version) -> bool:
        """Tell whether the other one is the very next."""
        if other.epoch != self.epoch:
            # The first change to an empty channel begins an epoch.
            return not self.number and other.number == 1
        return other.number == self.number + 1

    def includes(self, other: Version) -> bool:
        """Tell whether the other one is this one, or came before."""
        return other.epoch == self.epoch and other.number <= self.number


class Change(NamedTuple):
    """A join or a leave, as it is told on the events channel."""

    kind: ChangeKind
    version: Version
    member: Member


class Renewal(NamedTuple):
    """The answer to the renewal of a lease; ``is_alive`` is false if the process was buried."""

    is_alive: bool
    processes: frozenset[str]


class Registration(NamedTuple):
    """The answer to a registration: how many members the process holds, and who else holds any."""

    held: int
    processes: frozenset[str]


class Roll(NamedTuple):
    """Who is in a channel; without the members where only their number was asked for."""

    version: Version
    size: int
    members: list[Member]


def processes_key(prefix: str) -> bytes:
    """Return the key of the leases; ``prefix`` is that of the settings, with its colon."""
    return f'{prefix}ws4redis:processes'.encode()


def renew_command(
    key: bytes, process: str, *, is_first: bool = False, may_bury: bool = False
) -> Command:
    """Return the call that renews the lease of a process, and tells who lives."""
    return LEASE.call(
        [key],
        (process, round(LEASE_SECONDS * 1000), int(is_first), int(may_bury), KEY_SECONDS),
    )


def living_command(key: bytes) -> Command:
    """Return the call that tells which processes live, and changes nothing."""
    return LEASE.call([key], ('', 0, 0, 0, 0))


def join_command(
    keys: ChannelKeys,
    process: str,
    members: Mapping[str, bytes],
    *,
    epoch: str,
    publish: bytes = b'PUBLISH',
) -> Command:
    """Return the call that registers members, given by name as :meth:`Member.encode` has them.

    Without members it verifies. ``epoch`` is a random name; ``publish`` is ``SPUBLISH`` in a
    Cluster.
    """
    words: list[bytes | str | int] = [process, epoch, KEY_SECONDS, keys.events, publish]
    for name, value in members.items():
        words += (_encoded(name), value)
    return PRESENCE_JOIN.call(_keys(keys), words)


def leave_command(
    keys: ChannelKeys, process: str, members: Iterable[str], *, publish: bytes = b'PUBLISH'
) -> Command:
    """Return the call that takes members away from a process."""
    return PRESENCE_LEAVE.call(
        _keys(keys), (process, keys.events, publish, '', *map(_encoded, members))
    )


def drop_command(
    keys: ChannelKeys, process: str, cursor: str = '0', *, publish: bytes = b'PUBLISH'
) -> Command:
    """Return the call that takes away what a process holds, some of it at a time.

    It returns the cursor of the next call; ``0`` when it is done.
    """
    return PRESENCE_LEAVE.call(
        _keys(keys), (process, keys.events, publish, cursor, MEMBERS_PER_CALL)
    )


def read_command(
    keys: ChannelKeys, living: Iterable[str] | None = None, *, only_count: bool = False
) -> Command:
    """Return the call that reads who is in a channel.

    Members of other processes than the ``living`` are left out; None: all count.
    """
    filters = living is not None
    return PRESENCE_READ.call(_keys(keys), (int(not only_count), int(filters), *(living or ())))


def parse_renewal(reply: Sequence[Any]) -> Renewal:
    is_alive, processes = reply
    return Renewal(bool(is_alive), frozenset(map(text_of, processes)))


def parse_registration(reply: Sequence[Any]) -> Registration:
    held, fields = reply
    return Registration(
        int(held), frozenset(text_of(f) for f in fields if f not in _VERSION_FIELDS)
    )


def parse_roll(reply: Sequence[Any]) -> Roll:
    epoch, number, count, members = reply
    return Roll(
        Version(text_of(epoch), int(number)), int(count), [Member.parse(m) for m in members]
    )


def parse_change(event: bytes) -> Change | None:
    """Return what an events channel says of members; None for anything else."""
    match event.split(b' ', 3):
        case [(b'J' | b'L') as kind, epoch, number, value] if number.isdigit():
            try:
                member = Member.parse(value)
                version = Version(epoch.decode(), int(number))
            except ValueError:
                return None
            return Change(ChangeKind(kind.decode()), version, member)
    return None


def text_of(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _encoded(name: str) -> bytes:
    return name.encode(errors='surrogatepass')


def _keys(keys: ChannelKeys) -> list[bytes]:
    return [keys.members, keys.holders, keys.presence]
