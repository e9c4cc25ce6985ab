"""The scripts of presence, run by a real Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.timeouts import SOON_SECONDS, wait_until
from ws4redis.broker.keys import keys_of
from ws4redis.broker.presence import (
    LEASE_SECONDS,
    MEMBERS_PER_CALL,
    Change,
    ChangeKind,
    Member,
    Registration,
    Renewal,
    Roll,
    Version,
    drop_command,
    join_command,
    leave_command,
    living_command,
    parse_change,
    parse_registration,
    parse_renewal,
    parse_roll,
    processes_key,
    read_command,
    renew_command,
)
from ws4redis.broker.publication import Command
from ws4redis.broker.scripts import script_of

KEYS = keys_of(b'broadcast:chat')
PROCESSES = processes_key('')
A, B = 'a' * 16, 'b' * 16


class Channel:
    """Call the scripts for one channel, and note what is told."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.pubsub = client.pubsub()
        self.pubsub.subscribe(KEYS.events)
        assert self.pubsub.get_message(timeout=SOON_SECONDS)

    def run(self, command: Command) -> Any:
        return self.client.execute_command(*script_of(command).with_text(command))

    def join(self, process: str, *names: str, info: Any = None) -> Registration:
        members = {name: Member(name, name, info).encode() for name in names}
        return parse_registration(
            self.run(join_command(KEYS, process, members, epoch=f'e{process}'))
        )

    def leave(self, process: str, *names: str) -> None:
        assert self.run(leave_command(KEYS, process, names)) == b'0'

    def drop(self, process: str) -> int:
        cursor, calls = '0', 0
        while True:
            cursor = self.run(drop_command(KEYS, process, cursor)).decode()
            calls += 1
            if cursor == '0':
                return calls

    def roll(self, living: list[str] | None = None, **options: Any) -> Roll:
        return parse_roll(self.run(read_command(KEYS, living, **options)))

    def names(self, living: list[str] | None = None) -> set[str]:
        roll = self.roll(living)
        assert roll.size == len(roll.members) == self.roll(living, only_count=True).size
        return {member.id for member in roll.members}

    def changes(self) -> list[Change]:
        """Return what was told since the last call."""
        self.client.publish(KEYS.events, 'end')
        changes: list[Change] = []
        while True:
            message = self.pubsub.get_message(timeout=SOON_SECONDS)
            assert message is not None
            if message['data'] == b'end':
                return changes
            change = parse_change(message['data'])
            assert change is not None
            changes.append(change)

    def told(self) -> list[str]:
        return [f'{change.kind} {change.member.id}' for change in self.changes()]


@pytest.fixture
def channel(redis_client: redis.Redis) -> Iterator[Channel]:
    channel = Channel(redis_client)
    with channel.pubsub:
        yield channel


def test_a_member_is_told_once_however_many_processes_hold_him(channel: Channel) -> None:
    assert channel.join(A, 'john', 'mary') == Registration(2, frozenset({A}))
    assert channel.told() == ['J john', 'J mary']
    assert channel.join(B, 'john') == Registration(1, frozenset({A, B}))
    channel.join(A, 'john')
    assert channel.told() == []
    assert channel.names() == {'john', 'mary'}
    channel.leave(A, 'john')
    assert channel.told() == []
    channel.leave(A, 'john')
    channel.leave(B, 'john', 'mary')
    assert channel.told() == ['L john']
    assert channel.names() == {'mary'}


def test_changes_carry_versions_without_holes_and_what_the_member_told_last(
    channel: Channel,
) -> None:
    channel.join(A, 'john', info={'color': 'red'})
    channel.join(A, 'mary')
    channel.join(A, 'john', info={'color': 'blue'})
    channel.leave(A, 'john')
    changes = channel.changes()
    assert [change.version for change in changes] == [Version(f'e{A}', n) for n in (1, 2, 3)]
    assert changes[0].member == Member('john', 'john', {'color': 'red'})
    assert changes[2] == Change(
        ChangeKind.LEAVE, Version(f'e{A}', 3), Member('john', 'john', {'color': 'blue'})
    )
    assert channel.roll().version == Version(f'e{A}', 3)


def test_nothing_is_left_in_redis_of_a_channel_that_the_last_member_left(channel: Channel) -> None:
    channel.join(A, 'john')
    channel.leave(A, 'john')
    assert channel.client.keys() == []
    # Who comes next begins an epoch, which follows whatever an empty channel had.
    channel.join(B, 'mary')
    assert channel.changes()[-1].version == Version(f'e{B}', 1)


def test_all_keys_expire(channel: Channel) -> None:
    channel.join(A, 'john')
    channel.run(renew_command(PROCESSES, A, is_first=True))
    assert sorted(channel.client.keys()) == sorted(
        [KEYS.members, KEYS.holders, KEYS.presence, PROCESSES]
    )
    assert all(channel.client.ttl(key) > 3600 for key in channel.client.scan_iter())


def test_what_a_dead_process_held_is_dropped_and_told_but_for_those_whom_others_hold(
    channel: Channel,
) -> None:
    channel.join(A, 'john', 'mary')
    channel.join(B, 'john')
    channel.changes()
    channel.drop(A)
    assert channel.told() == ['L mary']
    assert channel.names() == {'john'}
    assert channel.join(B) == Registration(1, frozenset({B}))


def test_a_large_channel_is_dropped_in_bounded_steps(channel: Channel) -> None:
    names = [f'member {number}' for number in range(4 * MEMBERS_PER_CALL)]
    channel.join(A, *names)
    channel.join(B, *names[::2])
    channel.changes()
    assert channel.drop(A) >= 4
    assert sorted(channel.told()) == sorted(f'L {name}' for name in names[1::2])
    assert channel.names() == set(names[::2])
    assert channel.drop(A) == 1


def test_readers_leave_out_the_members_of_processes_that_do_not_live(channel: Channel) -> None:
    channel.join(A, 'john', 'mary')
    channel.join(B, 'john', 'peter')
    assert channel.names([A, B]) == {'john', 'mary', 'peter'}
    assert channel.names([B]) == {'john', 'peter'}
    assert channel.names([]) == set()
    assert channel.names() == {'john', 'mary', 'peter'}


@pytest.mark.parametrize('key', [KEYS.members, KEYS.holders, KEYS.presence])
def test_when_a_key_was_evicted_a_verification_says_so_and_all_can_register_again(
    channel: Channel, key: bytes
) -> None:
    channel.join(A, 'john', 'mary')
    channel.client.delete(key)
    assert channel.join(A).held == 0
    assert channel.join(A, 'john', 'mary').held == 2
    channel.client.delete(key)
    channel.leave(A, 'john')
    assert channel.names() == set()
    channel.join(A, 'mary')
    assert channel.names() == {'mary'}
    channel.leave(A, 'mary')
    assert channel.client.keys() == []


def test_a_lease_ends_by_itself_and_its_process_is_buried_by_another(channel: Channel) -> None:
    def renew(process: str, **options: bool) -> Renewal:
        return parse_renewal(channel.run(renew_command(PROCESSES, process, **options)))

    def end_of_lease(process: str) -> float:
        end = channel.client.zscore(PROCESSES, process)
        assert isinstance(end, float)
        return end

    def let_end(process: str) -> None:
        channel.client.zadd(PROCESSES, {process: end_of_lease(process) - 60_000})

    def living() -> frozenset[str]:
        return parse_renewal(channel.run(living_command(PROCESSES))).processes

    assert living() == frozenset()
    assert renew(A, is_first=True) == Renewal(True, frozenset({A}))
    remaining = end_of_lease(A) - time.time() * 1000
    assert LEASE_SECONDS * 1000 - 1000 < remaining <= LEASE_SECONDS * 1000 + 1000
    assert renew(B, is_first=True).processes == {A, B}
    assert living() == {A, B}
    # Whose lease has ended counts no more, but lives on if he comes before anybody buries him.
    let_end(A)
    assert living() == {B}
    assert renew(B).processes == {A, B}
    assert renew(A).is_alive
    assert living() == {A, B}
    let_end(A)
    assert renew(B, may_bury=True).processes == {B}
    assert not renew(A, may_bury=True).is_alive
    assert living() == {B}


def test_a_lease_is_over_after_its_seconds(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('ws4redis.broker.presence.LEASE_SECONDS', 0.05)
    channel.run(renew_command(PROCESSES, A, is_first=True))
    wait_until(lambda: not parse_renewal(channel.run(living_command(PROCESSES))).processes)


@pytest.mark.parametrize(
    'event',
    [
        b'',
        b'J',
        b'J e 1',
        b'J e x {}',
        b'J e 1 {}',
        b'J e 1 [1',
        b'P e 1 t b t',
        b'L e 1 {"id": 1}',
    ],
)
def test_what_is_no_change_is_not_taken_for_one(event: bytes) -> None:
    assert parse_change(event) is None


def test_a_member_survives_encoding_whatever_he_is_called() -> None:
    for name in ('john', 'a b\nc', 'ñ', '\ud800', '"{}'):
        member = Member(name, name, {'x': [1, name]})
        assert Member.parse(member.encode()) == member


def test_a_version_is_followed_by_the_next_number_or_by_another_epoch_if_it_was_empty() -> None:
    assert Version('e', 1).precedes(Version('e', 2))
    assert not Version('e', 1).precedes(Version('e', 1))
    assert not Version('e', 1).precedes(Version('f', 2))
    assert not Version('e', 1).precedes(Version('f', 1))
    assert Version('', 0).precedes(Version('f', 1))
