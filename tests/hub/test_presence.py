"""Presence and its mirrors in the loop, with a real Redis."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from tests.hub.rig import Home, bus_link_of
from ws4redis.broker.keys import keys_of
from ws4redis.broker.link import RedisLink
from ws4redis.broker.presence import (
    MEMBERS_PER_CALL,
    ChangeKind,
    Member,
    drop_command,
    join_command,
    member_id_of_user,
    processes_key,
    renew_command,
    text_of,
)
from ws4redis.broker.publication import Command
from ws4redis.broker.scripts import script_of
from ws4redis.hub import mirrors
from ws4redis.hub import presence as module
from ws4redis.hub.attendance import member_of
from ws4redis.hub.identity import Identity
from ws4redis.hub.options import HubOptions
from ws4redis.hub.presence import State
from ws4redis.servers.process import connect_to_redis
from ws4redis.settings.facilities import FacilityOptions

CHAT = b'broadcast:chat'
KEYS = keys_of(CHAT)
OTHER = 'f' * 16


def member(user: str, info: Any = None) -> Member:
    return Member(member_id_of_user(user), user, info)


def ids(*users: str) -> set[str]:
    return {member_id_of_user(user) for user in users}


class Process:
    """A loop with presence and mirrors, which hears what is told by a connection of its own."""

    def __init__(self, hub: Home, client: redis.Redis) -> None:
        self.hub = hub
        self.presence = hub.presence
        self.mirrors = hub.mirrors
        self.pubsub = client.pubsub(ignore_subscribe_messages=True)
        self.pubsub.subscribe(KEYS.events)
        self.told: list[str] = []
        self.seen: list[str] = []

    def lose_commands(self) -> None:
        link = self.hub.links.commands
        assert isinstance(link, RedisLink)
        link.lost('a test')

    def turn(self) -> None:
        self.hub.turn()
        while (message := self.pubsub.get_message()) is not None:
            kind, _, number, value = message['data'].split(b' ', 3)
            self.told.append(f'{kind.decode()}{number.decode()} {Member.parse(value).user}')
            self.mirrors.event_received(CHAT, message['data'])

    def turn_until(self, condition: Callable[[], object], message: str = '') -> None:
        def turned() -> object:
            self.turn()
            return condition()

        self.hub.turn_until(turned, message=message)

    def listen(self) -> None:
        self.mirrors.listen(CHAT, self._changed, self._ready)
        self.turn_until(lambda: self.seen)

    def _ready(self, members: list[Member]) -> None:
        self.seen.append('= ' + ' '.join(sorted(str(m.user) for m in members)))

    def _changed(self, channel: bytes, kind: ChangeKind, who: Member) -> None:
        self.seen.append(f'{kind} {who.user}')


class Database:
    """What Redis has."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def run(self, command: Command) -> Any:
        return self.client.execute_command(*script_of(command).with_text(command))

    def members(self) -> set[str]:
        return set(map(text_of, self.client.hkeys(KEYS.members)))

    def processes(self) -> set[str]:
        names: Any = self.client.zrange(processes_key(''), 0, -1)
        return set(map(text_of, names))

    def holders(self, user: str) -> list[str]:
        return text_of(self.client.hget(KEYS.holders, member_id_of_user(user)) or '').split()

    def join(self, process: str, *users: str) -> None:
        values = {member_id_of_user(user): member(user).encode() for user in users}
        self.run(join_command(KEYS, process, values, epoch=secrets.token_hex(4)))

    def begin(self, process: str) -> None:
        self.run(renew_command(processes_key(''), process, is_first=True))

    def end_leases(self, *processes: str) -> None:
        self.client.zadd(processes_key(''), dict.fromkeys(processes, 1))


@pytest.fixture
def database(redis_client: redis.Redis) -> Database:
    return Database(redis_client)


@pytest.fixture
def process(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    monkeypatch.setattr(module, 'RENEWAL_SECONDS', 0.05)
    monkeypatch.setattr(module, 'VERIFICATION_SECONDS', 0.5)
    monkeypatch.setattr(module, 'GRACE_SECONDS', 0.1)
    monkeypatch.setattr(module, 'BURIAL_AGE_SECONDS', 0.1)
    monkeypatch.setattr(module, 'REFUSED_SECONDS', 0.2)
    monkeypatch.setattr(mirrors, 'RETRY_SECONDS', 0.05)
    with Home(connect=connect_to_redis) as hub:
        hub.turn_until(lambda: hub.links.commands.is_connected)
        process = Process(hub, redis_client)
        with process.pubsub:
            yield process


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


# Mirrors


def test_who_listens_gets_the_members_and_then_each_change(
    process: Process, database: Database
) -> None:
    database.begin(OTHER)
    database.join(OTHER, 'mary')
    process.listen()
    database.join(OTHER, 'john')
    database.join(OTHER, 'john')
    process.presence.joined(CHAT, 1, member('peter'))
    process.turn_until(lambda: len(process.seen) == 3)
    database.run(drop_command(KEYS, OTHER))
    process.turn_until(lambda: len(process.seen) == 5)
    assert process.seen[:3] == ['= mary', 'J john', 'J peter']
    assert sorted(process.seen[3:]) == ['L john', 'L mary']
    later: list[list[Member] | None] = []
    process.mirrors.ask(CHAT, later.append)
    assert later == [[member('peter')]]
    later.clear()
    process.mirrors.listen(CHAT, lambda *change: None, later.append)
    assert later == [[member('peter')]]


def test_a_mirror_that_missed_changes_is_read_again_and_tells_what_differs(
    process: Process, database: Database
) -> None:
    database.begin(OTHER)
    database.join(OTHER, 'mary', 'john')
    process.listen()
    process.pubsub.unsubscribe()
    database.run(drop_command(KEYS, OTHER))
    database.join(OTHER, 'john', 'peter')
    process.turn()
    process.pubsub.subscribe(KEYS.events)
    process.turn()
    database.join(OTHER, 'paul')
    process.turn_until(lambda: len(process.seen) == 4)
    assert process.seen[0] == '= john mary'
    assert sorted(process.seen[1:]) == ['J paul', 'J peter', 'L mary']


def test_after_a_reconnection_mirrors_are_read_again(process: Process, database: Database) -> None:
    database.begin(OTHER)
    database.join(OTHER, 'mary')
    process.presence.joined(CHAT, 1, member('john'))
    process.turn_until(lambda: len(database.members()) == 2)
    process.listen()
    process.pubsub.unsubscribe()
    database.client.flushall()
    process.turn_until(lambda: process.seen[-1] == 'L mary')
    assert 'L john' not in process.seen


def test_a_read_that_failed_is_tried_again(process: Process, database: Database) -> None:
    database.begin(OTHER)
    database.join(OTHER, 'mary')
    process.lose_commands()
    process.listen()
    assert process.seen == ['= mary']


def test_who_asks_is_answered_by_redis_or_by_the_mirror_once_it_is_read(
    process: Process, database: Database
) -> None:
    database.begin(OTHER)
    database.join(OTHER, 'mary')
    answers: list[list[Member] | None] = []
    process.mirrors.ask(CHAT, answers.append)
    assert answers == []
    process.turn_until(lambda: answers == [[member('mary')]])
    process.mirrors.listen(CHAT, process._changed, process._ready)
    process.mirrors.ask(CHAT, answers.append)
    process.turn_until(lambda: len(answers) == 2)
    process.mirrors.stop_listening(CHAT, process._changed)
    process.mirrors.listen(CHAT, process._changed, process._ready)
    process.mirrors.ask(CHAT, answers.append)
    # Nobody listens any more: who asked is answered all the same.
    process.mirrors.stop_listening(CHAT, process._changed)
    process.turn_until(lambda: len(answers) == 3)
    assert answers == [[member('mary')]] * 3
    process.lose_commands()
    process.mirrors.ask(CHAT, answers.append)
    assert answers[3:] == [None]


def test_the_last_who_listens_lets_the_mirror_go(process: Process) -> None:
    process.listen()
    process.mirrors.stop_listening(CHAT, process._changed)
    process.mirrors.stop_listening(CHAT, process._changed)
    assert not process.mirrors._mirrors
    process.mirrors.event_received(CHAT, b'J e 1 ' + member('john').encode())


def test_who_stops_listening_when_redis_is_away_hinders_no_other_mirror(process: Process) -> None:
    def stop(members: list[Member] | None) -> None:
        process.mirrors.stop_listening(CHAT, process._changed)

    process.lose_commands()
    process.mirrors.listen(CHAT, process._changed, process._ready)
    process.mirrors.listen(b'broadcast:other', process._changed, process._ready)
    process.mirrors.ask(CHAT, stop)
    process.mirrors.read_all()
    assert list(process.mirrors._mirrors) == [b'broadcast:other']


def test_while_redis_is_away_a_mirror_waits_for_one_more_read(process: Process) -> None:
    process.lose_commands()
    process.mirrors.listen(CHAT, process._changed, process._ready)
    timers = len(process.hub.loop.timers)
    process.mirrors.read_all()
    assert len(process.hub.loop.timers) == timers
    process.turn_until(lambda: process.seen == ['= '])


def test_no_listener_hinders_another(process: Process, caplog: pytest.LogCaptureFixture) -> None:
    def fails(*change: object) -> None:
        raise RuntimeError('a test')

    process.mirrors.listen(CHAT, fails, lambda members: None)
    process.listen()
    process.presence.joined(CHAT, 1, member('john'))
    process.turn_until(lambda: process.seen[-1] == 'J john')
    assert 'telling of a join or leave' in caplog.text


# Who a peer is


class Peer:
    def __init__(self, identity: Identity | None = None) -> None:
        self.identity = identity


def test_a_member_is_a_user_else_a_session_else_a_connection() -> None:
    user = Identity(user='john', session='s' * 32, info={'color': 'red'})
    assert member_of(Peer(user)) == Member('user:john', 'john', {'color': 'red'})
    first, second = (member_of(Peer(Identity(session='s' * 32))) for _ in range(2))
    assert first == second
    assert first.id.startswith('session:')
    assert 's' * 32 not in first.id
    assert first.user is None
    nobody = {member_of(Peer(identity)).id for identity in (None, None, Identity())}
    assert len(nobody) == 3


def test_peers_of_channels_with_presence_are_members_until_they_close_and_ten_seconds_more(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, 'GRACE_SECONDS', 0.3)
    options = HubOptions(
        key_prefix='',
        facility_of_channel=lambda name: FacilityOptions(presence=name == 'broadcast:chat'),
    )
    with Home(connect=connect_to_redis, options=options) as hub:
        peers = [hub.peer() for _ in range(3)]
        for peer, user in zip(peers, ('john', 'mary', 'peter'), strict=True):
            peer.websocket.identity = Identity(user=user)
            for name in ('broadcast:chat', 'broadcast:news'):
                hub.join(peer.websocket, name, lambda joined: None)
        hub.turn_until(lambda: database.members() == ids('john', 'mary', 'peter'))
        assert database.client.keys('*news*') == []
        seen: list[str] = []
        hub.mirrors.listen(
            CHAT,
            lambda channel, kind, who: seen.append(f'{kind} {who.user}'),
            lambda members: seen.append(str(len(members))),
        )
        hub.turn_until(lambda: seen == ['3'])
        hub.leave(peers[0].websocket, ['broadcast:chat'])
        hub.turn_until(lambda: seen == ['3', 'L john'])
        peers[1].socket.close()
        hub.turn_for(0.15)
        assert database.members() == ids('mary', 'peter')
        hub.turn_until(lambda: seen == ['3', 'L john', 'L mary'])
        peers[2].socket.close()
        hub.turn_until(lambda: not database.client.keys('*chat*'))


def test_who_unsubscribes_or_was_ended_leaves_without_a_grace(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, 'GRACE_SECONDS', 3600)
    options = HubOptions(facility_of_channel=lambda name: FacilityOptions(presence=True))
    with Home(connect=connect_to_redis, options=options) as hub:
        peers = {user: hub.peer() for user in ('ended', 'leaves', 'lost')}
        for user, peer in peers.items():
            peer.websocket.identity = Identity(user=user)
            hub.join(peer.websocket, 'broadcast:chat', lambda joined: None)
        hub.turn_until(lambda: database.members() == ids(*peers))
        peers['lost'].socket.close()
        peers['ended'].websocket.end(4001, 'logged out')
        hub.leave(peers['leaves'].websocket, ['broadcast:chat'])
        hub.turn_until(lambda: database.members() == ids('lost'))
        hub.turn_for(0.1)
        assert database.members() == ids('lost')


def test_after_the_bus_was_lost_mirrors_are_read_again(database: Database) -> None:
    options = HubOptions(facility_of_channel=lambda name: FacilityOptions(presence=True))
    with Home(connect=connect_to_redis, options=options) as hub:
        peer = hub.peer()
        peer.websocket.identity = Identity(user='john')
        hub.join(peer.websocket, 'broadcast:chat', lambda joined: None)
        hub.turn_until(lambda: database.members() == ids('john'))
        database.begin(OTHER)
        seen: list[str] = []
        hub.mirrors.listen(
            CHAT,
            lambda channel, kind, who: seen.append(f'{kind} {who.user}'),
            lambda members: seen.append(str(len(members))),
        )
        hub.turn_until(lambda: seen == ['1'])
        bus_link_of(hub).lost('a test')
        database.join(OTHER, 'mary')
        hub.turn_until(lambda: seen == ['1', 'J mary'])
