"""Presence in the loop, with a real Redis."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hub.presence_rig import CHAT, KEYS, OTHER, Database, Process, ids, member
from ws4redis.broker.presence import MEMBERS_PER_CALL, Member, drop_command, processes_key, text_of
from ws4redis.hub import presence as module
from ws4redis.hub.presence import State


def test_a_member_is_registered_once_however_many_connections_he_has(
    process: Process, database: Database
) -> None:
    for connection in ('tab 1', 'tab 2', 'tab 2'):
        process.presence.joined(CHAT, connection, member('john'))
    process.turn_until(lambda: process.told)
    assert database.members() == ids('john')
    assert database.holders('john') == [process.presence.name]
    process.presence.left(CHAT, 'tab 1', at_once=True)
    process.presence.left(CHAT, 'tab 1', at_once=True)
    process.presence.joined(CHAT, 'tab 3', member('mary'))
    process.turn_until(lambda: len(process.told) == 2)
    process.presence.left(CHAT, 'tab 2', at_once=True)
    process.turn_until(lambda: len(process.told) == 3)
    assert process.told == ['J1 john', 'J2 mary', 'L3 john']
    assert database.members() == ids('mary')


def test_who_comes_back_within_the_grace_has_neither_left_nor_joined(
    process: Process, database: Database
) -> None:
    process.presence.joined(CHAT, 1, member('john'))
    process.turn_until(lambda: process.told)
    process.presence.left(CHAT, 1)
    process.hub.turn_for(0.05)
    process.presence.joined(CHAT, 2, member('john'))
    process.hub.turn_for(0.2)
    process.presence.left(CHAT, 2)
    process.turn_until(lambda: len(process.told) == 2)
    assert process.told == ['J1 john', 'L2 john']
    assert not database.members()
    assert not process.presence._held
    assert not process.presence._leaving


def test_what_members_tell_of_themselves_can_change(process: Process, database: Database) -> None:
    def info() -> Any:
        values: Any = database.client.hvals(KEYS.members)
        return Member.parse(values[0]).info if values else None

    process.presence.joined(CHAT, 1, member('john', 'red'))
    process.turn_until(lambda: info() == 'red')
    process.presence.joined(CHAT, 2, member('john', 'blue'))
    process.turn_until(lambda: info() == 'blue')
    # Changed and gone within a turn: nothing is left behind.
    process.presence.joined(CHAT, 3, member('john', 'green'))
    for connection in (1, 2, 3):
        process.presence.left(CHAT, connection, at_once=True)
    process.turn_until(lambda: not database.members())
    process.turn_until(lambda: len(process.told) == 2)


def test_many_members_are_registered_in_few_commands(process: Process, database: Database) -> None:
    count = 3 * module.MEMBERS_PER_TURN
    before = database.client.info('commandstats').get('cmdstat_evalsha', {}).get('calls', 0)
    for number in range(count):
        process.presence.joined(CHAT, number, member(f'member {number}'))
    process.turn_until(lambda: len(database.members()) == count)
    after = database.client.info('commandstats')['cmdstat_evalsha']['calls']
    assert after - before < count / MEMBERS_PER_CALL + 30
    for number in range(count):
        process.presence.left(CHAT, number, at_once=True)
    process.turn_until(lambda: not database.members())


def test_a_process_that_dies_is_buried_and_its_leaves_are_told(
    process: Process, database: Database
) -> None:
    database.begin(OTHER)
    database.join(OTHER, 'john', 'mary')
    process.presence.joined(CHAT, 1, member('mary'))
    process.presence.joined(b'broadcast:elsewhere', 1, member('mary'))
    process.turn_until(lambda: OTHER in process.presence._living)
    process.hub.turn_for(0.3)
    assert database.members() == ids('john', 'mary')
    database.end_leases(OTHER)
    process.turn_until(lambda: database.members() == ids('mary'))
    process.turn_until(lambda: process.told[-1] == 'L3 john')
    assert database.processes() == {process.presence.name}
    assert database.holders('mary') == [process.presence.name]


def test_a_process_that_was_buried_before_we_came_is_dropped_as_well(
    process: Process, database: Database
) -> None:
    database.join(OTHER, 'john')
    process.presence.joined(CHAT, 1, member('mary'))
    process.turn_until(lambda: database.members() == ids('mary'))


def test_a_young_process_buries_nobody(
    process: Process, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, 'BURIAL_AGE_SECONDS', 3600)
    database.begin(OTHER)
    database.join(OTHER, 'john')
    database.end_leases(OTHER)
    process.presence.joined(CHAT, 1, member('mary'))
    process.turn_until(lambda: 'mary' in str(process.told))
    process.hub.turn_for(0.3)
    assert database.members() == ids('john', 'mary')


def test_a_process_that_was_taken_for_dead_registers_anew(
    process: Process, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    process.presence.joined(CHAT, 1, member('john'))
    process.turn_until(lambda: process.told)
    former = process.presence.name
    database.client.zrem(processes_key(''), former)
    database.run(drop_command(KEYS, former))
    process.turn_until(lambda: database.members() == ids('john'))
    assert process.presence.name != former
    assert database.processes() == {process.presence.name}
    process.turn_until(lambda: len(process.told) == 3)
    assert process.told == ['J1 john', 'L2 john', 'J1 john']
    assert 'taken for dead' in caplog.text


def test_a_connection_that_was_lost_begins_another_life_and_nothing_is_told(
    process: Process, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(500):
        process.presence.joined(CHAT, number, member(str(number)))
    process.turn_until(lambda: len(process.told) == 500)
    former = process.presence.name
    process.lose_commands()
    process.presence.left(CHAT, 7, at_once=True)
    process.turn_until(lambda: process.presence.state is State.ALIVE)
    assert process.presence.name != former
    process.turn_until(lambda: database.holders('8') == [process.presence.name])
    process.hub.turn_for(0.1)
    process.turn()
    assert process.told[500:] == ['L501 7']
    assert len(database.members()) == 499


def test_who_leaves_after_a_reconnection_does_not_stay_for_the_rest_of_the_former_lease(
    process: Process, database: Database
) -> None:
    others = [b'broadcast:left at once', b'broadcast:left later']
    for channel in (CHAT, *others):
        process.presence.joined(channel, 1, member('john'))
    process.presence.joined(CHAT, 2, member('mary'))
    process.turn_until(lambda: len(process.told) == 2)
    former = process.presence.name

    def holders() -> list[str]:
        return [text_of(key) for key in database.client.keys('*holders*')]

    process.lose_commands()
    process.presence.left(others[0], 1, at_once=True)
    process.turn_until(lambda: process.presence.state is State.ALIVE)
    process.presence.left(others[1], 1, at_once=True)
    process.presence.left(CHAT, 2, at_once=True)
    process.turn_until(lambda: holders() == [text_of(KEYS.holders)])
    process.turn_until(lambda: database.holders('john') == [process.presence.name])

    # Everybody still believes in the former life.
    assert former in database.processes()
    assert database.members() == ids('john')
    process.turn_until(lambda: len(process.told) == 3)
    assert process.told[2:] == ['L3 mary']


def test_after_redis_was_emptied_all_register_again(process: Process, database: Database) -> None:
    process.presence.joined(CHAT, 1, member('john'))
    process.turn_until(lambda: database.members() == ids('john'))
    database.client.flushall()
    process.turn_until(lambda: database.members() == ids('john'))


def test_members_that_were_evicted_are_registered_again(
    process: Process, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    process.presence.joined(CHAT, 1, member('john'))
    process.turn_until(lambda: database.members() == ids('john'))
    name = process.presence.name
    database.client.delete(KEYS.holders)
    process.turn_until(lambda: database.holders('john') == [name])
    assert database.members() == ids('john')
    # More than we know of are under our name: only another name helps.
    database.join(name, 'ghost')
    process.turn_until(lambda: process.presence.name not in ('', name))
    database.end_leases(name)
    process.turn_until(lambda: database.members() == ids('john'))
    assert 'registering anew' in caplog.text


def test_scripts_that_redis_has_forgotten_are_loaded_again(
    process: Process, database: Database
) -> None:
    process.presence.joined(CHAT, 1, member('john'))
    process.turn_until(lambda: process.told)
    database.client.script_flush()
    process.presence.joined(CHAT, 2, member('mary'))
    process.turn_until(lambda: database.members() == ids('john', 'mary'))


def test_while_redis_refuses_it_is_logged_once_and_tried_again(
    process: Process, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    database.client.config_set('maxmemory', 1)
    try:
        process.presence.joined(CHAT, 1, member('john'))
        process.turn_until(lambda: 'refuses to keep presence' in caplog.text)
        process.presence.joined(CHAT, 2, member('mary'))
        process.hub.turn_for(0.5)
        assert caplog.text.count('refuses to keep presence') == 1
    finally:
        database.client.config_set('maxmemory', 0)
    process.turn_until(lambda: database.members() == ids('john', 'mary'))
    assert 'Redis keeps presence again' in caplog.text


def test_a_process_that_holds_nobody_sends_nothing(process: Process, database: Database) -> None:
    process.presence.joined(CHAT, 1, member('john'))
    process.turn_until(lambda: process.told)
    process.presence.left(CHAT, 1, at_once=True)
    process.turn_until(lambda: process.presence.state is State.AWAY)
    assert process.presence._renewal_timer is None
    process.presence.joined(CHAT, 1, member('john'))
    process.turn_until(lambda: database.members() == ids('john'))


class Deaf:
    """Commands of which none arrives."""

    is_connected = True

    def __init__(self) -> None:
        self.users: list[Any] = []
        self.lost = 0

    def send(self, *words: object, **answers: object) -> None:
        self.lost += 1


def test_answers_that_do_not_come_are_given_up(
    process: Process, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, 'READ_SECONDS', 0.2)
    process.presence.joined(CHAT, 1, member('john'))
    process.turn_until(lambda: database.members() == ids('john'))
    name = process.presence.name
    deaf = Deaf()
    answers: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(process.presence, '_link', deaf)
        process.mirrors.listen(CHAT, process._changed, process._ready)
        process.mirrors.ask(CHAT, answers.append)
        process.turn_until(lambda: process.presence.name != name)
        process.turn_until(lambda: answers)
        assert answers == [None]
        assert process.presence.state is State.BEGINNING
    process.turn_until(lambda: process.presence.state is State.ALIVE)
    process.turn_until(lambda: process.seen == ['= john'])
    assert database.members() == ids('john')
