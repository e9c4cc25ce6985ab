"""The mirrors of who is present, in the loop, with a real Redis."""

from __future__ import annotations

import pytest

from tests.hub.presence_rig import CHAT, KEYS, OTHER, Database, Process, ids, member
from tests.hub.rig import Home, bus_link_of
from ws4redis.broker.presence import Member, drop_command
from ws4redis.hub.identity import Identity
from ws4redis.hub.options import HubOptions
from ws4redis.servers.process import connect_to_redis
from ws4redis.settings.facilities import FacilityOptions


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
