"""Channels with a history, against a real Redis: nothing is missed, or a gap is told."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import hiredis
import pytest
import redis
from django.test import override_settings

from tests.hub.history_rig import (
    KEYS,
    NAME,
    Member,
    channel_of,
    home,
    numbered,
    outage,
    publish,
    reads,
)
from tests.hub.rig import Clock, Home, bus_link_of
from tests.programs import RedisServer
from tests.timeouts import wait_until
from ws4redis.broker.history import NewEpoch, Position
from ws4redis.broker.keys import keys_of
from ws4redis.broker.link import pack_command
from ws4redis.hub import empty_channels, histories
from ws4redis.hub.bus_link import BusLink
from ws4redis.hub.channel import Joined, Outcome
from ws4redis.hub.history_channel import State


def test_a_newcomer_gets_the_kept_message_and_then_what_is_live(
    hub: Home, redis_client: redis.Redis
) -> None:
    publish(redis_client, b'1', b'2')
    member = Member(hub)
    joined = member.wait()
    assert (joined.outcome, joined.kept) == (Outcome.OK, b'2')
    assert joined.position is not None
    assert joined.position.offset == 2
    last = publish(redis_client, b'3', b'4')
    member.receive(b'2', b'3', b'4')
    assert channel_of(hub).position == last


def test_who_comes_back_gets_what_it_missed_and_no_kept_message(
    hub: Home, redis_client: redis.Redis
) -> None:
    seen = publish(redis_client, b'1', b'2')
    last = publish(redis_client, b'3', b'4', b'5')
    member = Member(hub, seen)
    joined = member.wait()
    assert joined.kept is None
    assert joined.position == last
    assert [p.position.offset for p in joined.publications if p.position] == [3, 4, 5]
    publish(redis_client, b'6')
    member.receive(b'3', b'4', b'5', b'6')
    assert reads(hub) == 1


def test_who_leaves_and_joins_again_as_it_is_told_gets_nothing_before_it_is_told_again(
    hub: Home, redis_client: redis.Redis
) -> None:
    publish(redis_client, b'1')
    peer = hub.peer()
    told: list[Joined] = []

    def come_back(joined: object) -> None:
        hub.leave(peer.websocket, [NAME])
        hub.join(peer.websocket, NAME, told.append)
        publish(redis_client, b'2')

    hub.join(peer.websocket, NAME, come_back)
    hub.turn_until(lambda: told)
    assert [joined.kept for joined in told] == [b'2']
    assert peer.messages() == []
    publish(redis_client, b'3')
    hub.turn_until(lambda: peer.messages() == ['3'])


def test_an_epoch_that_is_no_text_is_a_gap_and_stops_nobody(
    hub: Home, redis_client: redis.Redis
) -> None:
    publish(redis_client, b'1')
    # In JSON a client may name half a character.
    for position in (Position('\ud800', 1), Position('?', 1, '\ud800')):
        assert Member(hub, position, name='broadcast:chat/7').wait().outcome is Outcome.EPOCH
        assert Member(hub, position).wait().outcome is Outcome.EPOCH
    assert Member(hub).wait().kept == b'1'


def test_those_who_come_back_later_are_served_from_memory(
    hub: Home, redis_client: redis.Redis
) -> None:
    seen = publish(redis_client, b'1')
    Member(hub, seen).wait()
    publish(redis_client, b'2')
    hub.turn_until(lambda: channel_of(hub).position != seen)
    for _ in range(20):
        member = Member(hub, seen)
        assert member.wait().outcome is Outcome.OK
        member.receive(b'2')
    assert reads(hub) == 1


def test_ten_thousand_who_come_back_at_once_cost_one_read_and_share_what_they_get(
    hub: Home, redis_client: redis.Redis
) -> None:
    first = publish(redis_client, b'0')
    publish(redis_client, *numbered(1, 20))
    peer = hub.peer()
    answers: list[Joined] = []
    # The same websocket stands for all: what counts is what each of them is told.
    for _ in range(1000):
        other = hub.peer(attached=False)
        hub.join(other.websocket, NAME, answers.append, first)
    hub.turn_until(lambda: len(answers) == 1000)
    assert peer.messages() == []
    assert all(len(joined.publications) == 20 for joined in answers)
    assert len({id(joined) for joined in answers}) == 1
    assert reads(hub) == 1


def test_what_is_older_than_the_tail_is_read_once_and_put_before_it(
    hub: Home, redis_client: redis.Redis
) -> None:
    first = publish(redis_client, b'1')
    publish(redis_client, *numbered(2, 10))
    Member(hub).wait()
    publish(redis_client, *numbered(11, 12))
    hub.turn_until(lambda: channel_of(hub).tail.end == 12)
    assert channel_of(hub).tail.before == 10
    before = reads(hub)
    members = [Member(hub, first) for _ in range(5)]
    for member in members:
        member.receive(*numbered(2, 12))
    assert reads(hub) - before == 1
    assert channel_of(hub).tail.before == 1


def test_who_waits_for_what_is_older_is_served_though_the_channel_is_verified_meanwhile(
    hub: Home, redis_client: redis.Redis, redis_server: RedisServer
) -> None:
    seen = publish(redis_client, b'1')
    publish(redis_client, *numbered(2, 9))
    Member(hub).wait()
    redis_server.pause()
    try:
        behind = Member(hub, seen)
        hub.turn_until(lambda: channel_of(hub).earlier is not None)
        wrong = Member(hub, Position('another', 1))
        hub.turn_until(lambda: channel_of(hub).state is State.CATCHING_UP)
    finally:
        redis_server.resume()
    assert wrong.wait().outcome is Outcome.EPOCH
    assert behind.wait().outcome is Outcome.OK
    behind.receive(*numbered(2, 9))


def test_who_waits_for_what_is_older_is_looked_at_again_when_there_is_a_new_epoch(
    hub: Home, redis_client: redis.Redis, redis_server: RedisServer
) -> None:
    seen = publish(redis_client, b'1')
    publish(redis_client, *numbered(2, 9))
    Member(hub).wait()
    channel = channel_of(hub)
    redis_server.pause()
    try:
        behind = Member(hub, seen)
        hub.turn_until(lambda: channel.earlier is not None)
        # As if it had come from Redis before the answer.
        hub.bus.told(channel, b'', NewEpoch(Position('another', 9, 'tag')))
    finally:
        redis_server.resume()
    assert behind.wait().outcome is Outcome.OK
    behind.receive(*numbered(2, 9))


def test_who_waits_for_what_is_older_is_served_though_the_one_who_was_doubted_leaves(
    hub: Home, redis_client: redis.Redis, redis_server: RedisServer
) -> None:
    seen = publish(redis_client, b'1')
    publish(redis_client, *numbered(2, 9))
    Member(hub).wait()
    redis_server.pause()
    try:
        behind = Member(hub, seen)
        wrong = Member(hub, Position('another', 1))
        hub.turn_until(lambda: channel_of(hub).state is State.CATCHING_UP)
        assert channel_of(hub).returning
        wrong.peer.websocket.lost()
    finally:
        redis_server.resume()
    assert behind.wait().outcome is Outcome.OK
    behind.receive(*numbered(2, 9))


@pytest.mark.parametrize(
    ('since', 'cause'),
    [
        (lambda p: Position('?', 0), Outcome.EPOCH),
        (lambda p: Position(p.epoch, p.offset + 1), Outcome.BROKEN),
        (lambda p: Position(p.epoch, p.offset, 'another'), Outcome.BROKEN),
        (lambda p: Position(p.epoch, p.offset - 1, 'another'), Outcome.BROKEN),
        (lambda p: Position(p.epoch, 1), Outcome.TRIMMED),
    ],
)
@pytest.mark.parametrize('is_cold', [True, False])
def test_what_cannot_be_had_is_a_gap_with_the_newest_position_and_the_kept_message(
    hub: Home,
    redis_client: redis.Redis,
    since: Callable[[Position], Position],
    cause: Outcome,
    is_cold: bool,
) -> None:
    publish(redis_client, *numbered(1, 8))
    redis_client.xtrim(KEYS.stream, maxlen=4, approximate=False)
    last = publish(redis_client, b'9')
    if not is_cold:
        Member(hub).wait()
    member = Member(hub, since(last))
    joined = member.wait()
    assert (joined.outcome, joined.position, joined.kept) == (cause, last, b'9')
    assert joined.publications == []
    assert hub.statistics.recoveries[cause] == 1
    assert publish(redis_client, b'10').epoch == last.epoch
    member.receive(b'10')


def test_what_was_trimmed_while_the_tail_grew_is_a_gap(
    hub: Home, redis_client: redis.Redis
) -> None:
    Member(hub).wait()
    seen = publish(redis_client, b'0')
    publish(redis_client, *numbered(1, 150))
    hub.turn_until(lambda: channel_of(hub).tail.end == 151)
    assert channel_of(hub).tail.before == 51
    member = Member(hub, seen)
    assert member.wait().outcome is Outcome.TRIMMED
    before = reads(hub)
    assert Member(hub, seen).wait().outcome is Outcome.TRIMMED
    # It is known by now.
    assert reads(hub) == before
    nearly = Position(seen.epoch, 51)
    Member(hub, nearly).receive(*numbered(51, 150))


def test_who_is_ahead_of_this_process_is_not_told_of_a_gap(
    hub: Home, redis_client: redis.Redis
) -> None:
    Member(hub).wait()
    publish(redis_client, b'1')
    hub.turn_until(lambda: channel_of(hub).tail.end == 1)
    # Redis has answered the page, and what it has sent to this process was not read yet.
    seen = publish(redis_client, b'2', b'3')
    member = Member(hub, seen)
    assert channel_of(hub).tail.end == 1
    assert member.wait().outcome is Outcome.OK
    assert publish(redis_client, b'4').offset == 4
    member.receive(b'4')


def test_who_names_a_wrong_position_does_not_spoil_it_for_others(
    hub: Home, redis_client: redis.Redis
) -> None:
    first = publish(redis_client, b'1')
    publish(redis_client, b'2', b'3')
    wrong = [Member(hub, Position('?', 0)), Member(hub, Position(first.epoch, 77))]
    right = [Member(hub, first) for _ in range(3)]
    for member in right:
        member.receive(b'2', b'3')
    assert [member.wait().outcome for member in wrong] == [Outcome.EPOCH, Outcome.BROKEN]
    assert reads(hub) <= 2


def test_an_outage_of_the_bus_loses_nothing(
    hub: Home, redis_client: redis.Redis, redis_server: RedisServer
) -> None:
    seen = publish(redis_client, b'0')
    members = [Member(hub, seen) for _ in range(3)]
    for member in members:
        member.wait()
    for number in range(1, 6):
        bus_link_of(hub).lost('for the test')
        publish(redis_client, b'%d' % (2 * number - 1))
        hub.turn_until(lambda: bus_link_of(hub).is_connected)
        publish(redis_client, b'%d' % (2 * number))
    for member in members:
        member.receive(*numbered(1, 10))
    assert not hub.statistics.gaps


def test_what_is_published_between_the_commands_of_a_reconnection_comes_once(
    hub: Home, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = Member(hub, publish(redis_client, b'0'))
    member.wait()
    flush = BusLink.flush
    published: list[bytes] = []

    def flush_one_by_one(link: BusLink) -> bool:
        commands = hiredis.Reader()
        commands.feed(bytes(link._output))
        link._output.clear()
        while command := commands.gets():
            link.write(pack_command(*command))
            flush(link)
            if command[0] == b'SUBSCRIBE':
                wait_until(lambda: all(dict(redis_client.pubsub_numsub(*command[1:])).values()))
                published.append(b'%d' % (len(published) + 1))
                publish(redis_client, published[-1])
        return flush(link)

    with monkeypatch.context() as patched:
        patched.setattr(BusLink, 'flush', flush_one_by_one)
        outage(hub, lambda: None)
    last = b'%d' % (len(published) + 1)
    assert published
    publish(redis_client, last)
    member.receive(*published, last)
    assert not hub.statistics.gaps


def test_redis_restarted_with_its_data_loses_nothing() -> None:
    options = {'appendonly': 'yes', 'appendfsync': 'always'}
    with (
        RedisServer(options=options) as server,
        override_settings(WS4REDIS_CONNECTION=server.connection),
        home() as hub,
    ):
        with server.client() as redis_client:
            seen = publish(redis_client, b'0')
        member = Member(hub, seen)
        member.wait()
        server.stop()
        hub.turn_until(lambda: not bus_link_of(hub).is_connected)
        server.start()
        with server.client() as redis_client:
            publish(redis_client, b'1')
            hub.turn_until(lambda: bus_link_of(hub).is_connected)
            publish(redis_client, b'2')
        member.receive(b'1', b'2')
        assert not hub.statistics.gaps


def test_thousands_of_channels_are_verified_without_holding_up_the_loop(
    hub: Home, redis_client: redis.Redis
) -> None:
    names = [f'broadcast:chat{number}' for number in range(2000)]
    peers = [hub.peer() for _ in range(20)]
    joined: list[Joined] = []
    for number, name in enumerate(names):
        hub.join(peers[number % 20].websocket, name, joined.append)
    hub.turn_until(lambda: len(joined) == len(names))
    bus_link_of(hub).lost('for the test')
    publish(redis_client, b'missed', name=names[-1])
    longest = 0.0
    channels = [channel_of(hub, name) for name in names]
    while not all(channel.state is State.LIVE for channel in channels):
        timeout = hub.loop.timeout()
        begin = time.thread_time()
        hub.loop.turn(0.01 if timeout is None else min(timeout, 0.01))
        longest = max(longest, time.thread_time() - begin)
    assert longest < 0.02
    hub.turn_until(lambda: gc.isenabled())
    assert peers[1999 % 20].messages() == ['missed']


def test_the_tails_of_all_channels_have_a_bound(redis_server: RedisServer) -> None:
    with (
        redis_server.client() as redis_client,
        home(max_tail_bytes=50_000) as hub,
    ):
        names = [f'broadcast:chat{number}' for number in range(10)]
        members = [Member(hub, name=name) for name in names]
        for member in members:
            member.wait()
        seen = {name: publish(redis_client, b'0', name=name) for name in names}
        for name in names:
            publish(redis_client, *(b'x' * 1000 for _ in range(10)), name=name)
        hub.turn_until(
            lambda: all(
                position is not None and position.offset == 11
                for position in (channel_of(hub, name).position for name in names)
            )
        )
        assert hub.bus.histories.tail_bytes <= 50_000
        assert sum(channel_of(hub, name).tail.bytes for name in names) <= 50_000
        # What is not in memory any more is read.
        first = Member(hub, seen[names[0]], name=names[0])
        assert len(first.wait().publications) == 10
        assert hub.bus.histories.tail_bytes <= 50_000


def test_a_channel_stays_subscribed_for_a_while_after_the_last_one_left(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    with redis_server.client() as redis_client, home(clock=clock) as hub:
        seen = publish(redis_client, b'1')
        Member(hub, seen).wait()
        [websocket] = [*channel_of(hub).audiences.popitem()[1]]
        channel_of(hub).add(websocket)
        hub.leave(websocket, [NAME])
        hub.turn(2)
        publish(redis_client, b'2')
        hub.turn_until(lambda: channel_of(hub).tail.end == 2)
        before = reads(hub)
        again = Member(hub, seen)
        again.receive(b'2')
        assert reads(hub) == before
        hub.leave(again.peer.websocket, [NAME])
        hub.turn()
        clock.advance(histories.LINGER_SECONDS + 1)
        hub.turn(3)
        assert hub.bus.get(NAME) is None
        wait_until(lambda: redis_client.pubsub_numsub(NAME)[0][1] == 0)
        assert hub.bus.histories.tail_bytes == 0


def test_the_numbering_of_an_empty_channel_lives_as_long_as_somebody_is_there(
    redis_server: RedisServer,
) -> None:
    clock = Clock()
    with redis_server.client() as redis_client, home(clock=clock) as hub:
        names = [f'broadcast:chat{number}' for number in range(3)]
        members = {name: Member(hub, name=name) for name in names}
        for member in members.values():
            member.wait()
        publish(redis_client, b'1', name=names[0])
        members[names[0]].receive(b'1')
        hub.leave(members[names[1]].peer.websocket, [names[1]])
        positions = [keys_of(name.encode()).position for name in names]
        for position in positions:
            redis_client.expire(position, 10)
        start = channel_of(hub, names[2]).position

        def is_renewed() -> bool:
            # In small steps, else the connection would seem to be dead.
            clock.advance(empty_channels.RENEW_SECONDS / 50)
            return int(redis_client.ttl(positions[2])) > 10

        for _ in range(2):
            hub.turn_until(is_renewed)
            redis_client.expire(positions[2], 10)
        hub.turn_until(lambda: channel_of(hub, names[2]).state is State.LIVE)
        assert [redis_client.ttl(position) > 10 for position in positions] == [False, False, False]
        last = publish(redis_client, b'1', name=names[2])
        members[names[2]].receive(b'1')
        assert start is not None
        assert (last.epoch, last.offset) == (start.epoch, 1)
        assert not hub.statistics.gaps


def test_the_numbering_of_an_empty_channel_is_renewed_where_somebody_comes_back(
    redis_server: RedisServer,
) -> None:
    clock = Clock()
    with redis_server.client() as redis_client, home(clock=clock) as hub:
        member = Member(hub)
        member.wait()
        link = bus_link_of(hub)

        def advance(seconds: float) -> None:
            end = clock() + seconds
            while clock() < end:
                # In small steps, else the connection would seem to be dead.
                clock.advance(empty_channels.RENEW_SECONDS / 50)
                hub.turn()
                hub.turn_until(lambda: not link._expected)

        advance(empty_channels.RENEW_SECONDS - histories.LINGER_SECONDS / 4)
        hub.leave(member.peer.websocket, [NAME])
        advance(histories.LINGER_SECONDS / 2)
        Member(hub).wait()
        connections = [each['id'] for each in redis_client.client_list(_type='pubsub')]
        before = reads(hub)
        advance(empty_channels.RENEW_SECONDS)
        assert reads(hub) == before + 1
        assert [each['id'] for each in redis_client.client_list(_type='pubsub')] == connections
