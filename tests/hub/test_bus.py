"""The bus: subscriptions, kept messages and what comes in, against a scripted and a real Redis."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis
from django.test import override_settings

from tests.hub.rig import (
    Clock,
    Home,
    Peer,
    bulk,
    bus_link_of,
    published,
    subscribed,
    unsubscribed,
)
from tests.programs import RedisServer
from tests.timeouts import SOON_SECONDS, wait_until
from ws4redis.broker.keys import keys_of
from ws4redis.hub.bus import CHANGES_PER_TURN, REFUSED_SECONDS
from ws4redis.hub.options import HubOptions
from ws4redis.hub.recent import TOLERANCE_SECONDS
from ws4redis.hub.websocket import Phase
from ws4redis.servers.process import connect_to_redis, publication_packer

BUS = 0  # it connects first, the command connection second


@pytest.fixture
def hub() -> Iterator[Home]:
    with Home(options=HubOptions(heartbeat=b'--heartbeat--')) as hub:
        hub.turn(2)
        yield hub


class Joining:
    """A websocket that joins channels as a handshake does."""

    def __init__(self, hub: Home, *names: str, **options: object) -> None:
        self.done = 0
        self.refused = 0
        self.peer: Peer = hub.peer(**options)
        hub.join_names(self.peer.websocket, names, self._count, self._count_refused)

    def _count(self) -> None:
        self.done += 1

    def _count_refused(self) -> None:
        self.refused += 1


def commands(hub: Home, number: int = BUS) -> list[list[bytes]]:
    hub.turn()
    return hub.redis.commands(number)


def reply(hub: Home, data: bytes, number: int = BUS) -> None:
    hub.redis.reply(data, number)
    hub.turn()


# Joining and leaving


def test_the_first_websocket_of_a_channel_subscribes_and_each_one_gets_the_kept_message(
    hub: Home,
) -> None:
    first = Joining(hub, 'x')
    assert commands(hub) == [[b'SUBSCRIBE', b'x'], [b'GET', b'x']]
    reply(hub, subscribed(b'x'))
    assert first.done == 0
    reply(hub, bulk(b'kept'))
    assert first.done == 1
    assert first.peer.messages() == ['kept']
    second = Joining(hub, 'x')
    assert commands(hub) == [[b'GET', b'x']]
    reply(hub, bulk(b'kept'))
    assert second.peer.messages() == ['kept']
    assert first.peer.messages() == []
    reply(hub, published(b'x', b'live'))
    assert first.peer.messages() == second.peer.messages() == ['live']


def test_those_who_join_in_the_same_turn_share_one_question(hub: Home) -> None:
    joining = [Joining(hub, 'x') for _ in range(50)]
    assert commands(hub) == [[b'SUBSCRIBE', b'x'], [b'GET', b'x']]
    reply(hub, subscribed(b'x') + bulk(b'kept'))
    assert [j.done for j in joining] == [1] * 50
    assert all(j.peer.messages() == ['kept'] for j in joining)


def test_who_leaves_when_told_of_its_joining_is_not_in_the_channel(hub: Home) -> None:
    peer = hub.peer()
    told: list[object] = []

    def leave(joined: object) -> None:
        told.append(joined)
        hub.leave(peer.websocket, ['x'])

    hub.join(peer.websocket, 'x', leave)
    commands(hub)
    reply(hub, subscribed(b'x') + bulk(None))
    assert len(told) == 1
    assert peer.websocket.channels == ()
    assert commands(hub) == [[b'UNSUBSCRIBE', b'x']]
    reply(hub, published(b'x', b'live'))
    assert peer.messages() == []


def test_a_websocket_is_open_when_all_of_its_channels_are_confirmed(hub: Home) -> None:
    joining = Joining(hub, 'a', 'b', 'a')
    assert commands(hub) == [
        [b'SUBSCRIBE', b'a'],
        [b'GET', b'a'],
        [b'SUBSCRIBE', b'b'],
        [b'GET', b'b'],
    ]
    reply(hub, subscribed(b'a') + bulk(b'kept in a') + subscribed(b'b'))
    assert joining.done == 0
    reply(hub, bulk(None))
    assert joining.done == 1
    assert joining.peer.messages() == ['kept in a']


def test_the_last_one_to_leave_unsubscribes(hub: Home) -> None:
    first, second = Joining(hub, 'x'), Joining(hub, 'x')
    commands(hub)
    reply(hub, subscribed(b'x') + bulk(None))
    hub.leave(first.peer.websocket, ['x'])
    assert commands(hub) == []
    second.peer.websocket.lost()
    assert commands(hub) == [[b'UNSUBSCRIBE', b'x']]
    assert hub.bus.channels == {}
    # What was on its way is for nobody.
    reply(hub, published(b'x', b'late'))
    assert first.peer.messages() == []


def test_one_who_leaves_some_channels_stays_in_the_others(hub: Home) -> None:
    joining = Joining(hub, 'a', 'b')
    commands(hub)
    reply(hub, subscribed(b'a') + bulk(None) + subscribed(b'b') + bulk(None))
    hub.leave(joining.peer.websocket, ['a', 'never joined'])
    assert commands(hub) == [[b'UNSUBSCRIBE', b'a']]
    reply(hub, published(b'a', b'no') + published(b'b', b'yes'))
    assert joining.peer.messages() == ['yes']


def test_leaving_before_anything_was_written_costs_nothing(hub: Home) -> None:
    joining = Joining(hub, 'x')
    hub.leave(joining.peer.websocket, ['x'])
    assert commands(hub) == []
    assert joining.done == 1
    assert hub.bus.channels == {}


def test_one_who_leaves_while_redis_is_asked_is_sent_nothing_and_the_channel_is_given_up(
    hub: Home,
) -> None:
    joining = Joining(hub, 'x')
    commands(hub)
    joining.peer.websocket.lost()
    assert commands(hub) == [[b'UNSUBSCRIBE', b'x']]
    assert hub.bus.channels == {}
    reply(hub, subscribed(b'x') + bulk(b'kept') + unsubscribed(b'x'))
    assert joining.peer.messages() == []
    assert bus_link_of(hub).reconnects == 0


def test_one_who_joins_while_the_last_one_leaves_keeps_the_channel(hub: Home) -> None:
    first = Joining(hub, 'x')
    commands(hub)
    reply(hub, subscribed(b'x') + bulk(None))
    hub.leave(first.peer.websocket, ['x'])
    second = Joining(hub, 'x')
    assert commands(hub) == [[b'GET', b'x']]
    reply(hub, bulk(b'kept') + published(b'x', b'live'))
    assert second.peer.messages() == ['kept', 'live']


def test_one_who_leaves_and_joins_again_while_redis_is_asked_gets_each_message_once(
    hub: Home,
) -> None:
    joining = Joining(hub, 'x')
    commands(hub)
    websocket = joining.peer.websocket
    hub.leave(websocket, ['x'])
    hub.join_names(websocket, ['x'], lambda: None)
    assert commands(hub) == [[b'GET', b'x']]
    reply(hub, subscribed(b'x') + bulk(b'1') + published(b'x', b'2') + bulk(b'2'))
    reply(hub, published(b'x', b'3'))
    messages = joining.peer.messages()
    assert messages[-2:] == ['2', '3']
    assert len(messages) == len(set(messages))


def test_channels_subscribed_again_at_once_are_new_to_redis(hub: Home) -> None:
    first = Joining(hub, 'x')
    commands(hub)
    reply(hub, subscribed(b'x') + bulk(None))
    first.peer.websocket.lost()
    assert commands(hub) == [[b'UNSUBSCRIBE', b'x']]
    second = Joining(hub, 'x')
    assert commands(hub) == [[b'SUBSCRIBE', b'x'], [b'GET', b'x']]
    reply(hub, unsubscribed(b'x') + subscribed(b'x') + bulk(None) + published(b'x', b'live'))
    assert second.peer.messages() == ['live']


def test_a_websocket_that_ends_with_its_kept_message_is_in_no_audience(hub: Home) -> None:
    gone, reset, stays = (Joining(hub, 'x') for _ in range(3))
    commands(hub)
    # The first one reads no more, and the kept message is more than may wait for it; the second
    # has closed its socket, which is found out when something is written to it.
    gone.peer.websocket.send(b'x' * 2 * hub.options.max_queue_bytes)
    reset.peer.socket.close()
    reply(hub, subscribed(b'x') + bulk(b'y' * 100_000))
    assert gone.peer.websocket.phase is not Phase.OPEN
    assert reset.peer.websocket.phase is Phase.CLOSED
    channel = hub.bus.channels[b'x']
    assert list(channel.audiences.values()) == [{stays.peer.websocket}]
    stays.peer.websocket.lost()
    assert commands(hub) == [[b'UNSUBSCRIBE', b'x']]
    assert (gone.done, reset.done, stays.done) == (1, 1, 1)


def test_one_who_ends_while_another_gets_the_kept_message_is_in_no_audience(hub: Home) -> None:
    class EndsTheOther:
        @property
        def sends_persisted_messages(self) -> bool:
            second.peer.websocket.lost()
            return True

    first = Joining(hub, 'x', companion=EndsTheOther())
    second = Joining(hub, 'x')
    commands(hub)
    reply(hub, subscribed(b'x') + bulk(b'kept'))
    assert (first.done, second.done) == (1, 1)
    assert list(hub.bus.channels[b'x'].audiences.values()) == [{first.peer.websocket}]
    first.peer.websocket.lost()
    assert commands(hub) == [[b'UNSUBSCRIBE', b'x']]
    assert hub.bus.channels == {}


def test_many_channels_are_subscribed_over_several_turns_in_order(hub: Home) -> None:
    names = [f'channel {number}' for number in range(2 * CHANGES_PER_TURN + 1)]
    joining = Joining(hub, *names)
    asked: list[list[str]] = []
    while sum(map(len, asked)) < len(names):
        written = commands(hub)
        asked.append([command[1].decode() for command in written if command[0] == b'SUBSCRIBE'])
        assert 0 < len(asked[-1]) <= CHANGES_PER_TURN
    assert len(asked) >= 3
    assert [name for part in asked for name in part] == names
    hub.leave(joining.peer.websocket, names[1:])
    assert list(joining.peer.websocket.channels) == [hub.bus.channels[b'channel 0']]


def steps(act: Callable[[], object]) -> int:
    """Count the calls and lines of Python that something takes: time that no load changes."""
    count = 0

    def trace(frame: object, event: str, arg: object) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


def test_joining_and_leaving_cost_the_same_however_many_channels_a_websocket_has(
    hub: Home,
) -> None:
    costs = []
    keys_of(b'one more', '')  # looked up once in a while, for whatever channel
    for size in (100, 1000):
        websocket = hub.peer().websocket
        hub.join_names(websocket, [f'{size}/{n}' for n in range(size)], lambda: None)
        assert len(websocket.channels) == size
        assert isinstance(websocket.channels, dict)  # which finds one without looking at all
        joins = steps(partial(hub.join_names, websocket, ['one more'], lambda: None))
        leaves = steps(partial(hub.leave, websocket, ['one more']))
        sends = steps(partial(websocket.remember_own, b'x', ('one more',)))
        costs.append((joins, leaves, sends))
    assert all(abs(few - many) < 50 for few, many in zip(*costs, strict=True)), costs


def test_leaving_while_redis_is_asked_costs_the_same_however_many_are_asking(hub: Home) -> None:
    costs = []
    asked = 0
    for size in (100, 1000):
        while asked < size:
            Joining(hub, f'channel {asked}')
            last = Joining(hub, 'shared')
            hub.turn()
            asked += 1
        channel = hub.bus.channels[b'shared']
        assert len(channel.asking) == len({id(q) for q in channel.asking.values()}) > size - 5
        costs.append(steps(last.peer.websocket.lost))
    assert abs(costs[0] - costs[1]) < 50, costs


# Order


def test_what_came_before_the_answer_is_in_the_kept_message_and_what_follows_comes_once(
    hub: Home,
) -> None:
    old = Joining(hub, 'x')
    commands(hub)
    reply(hub, subscribed(b'x') + bulk(b'1'))
    new = Joining(hub, 'x')
    commands(hub)
    reply(hub, published(b'x', b'2') + published(b'x', b'3') + bulk(b'3') + published(b'x', b'4'))
    assert old.peer.messages() == ['1', '2', '3', '4']
    assert new.peer.messages() == ['3', '4']


def test_a_heartbeat_is_neither_delivered_nor_sent_as_a_kept_message(hub: Home) -> None:
    joining = Joining(hub, 'x')
    commands(hub)
    reply(hub, subscribed(b'x') + bulk(b'--heartbeat--') + published(b'x', b'--heartbeat--'))
    assert joining.done == 1
    assert joining.peer.messages() == []


def test_an_empty_message_is_a_message(hub: Home) -> None:
    joining = Joining(hub, 'x')
    commands(hub)
    reply(hub, subscribed(b'x') + bulk(b'') + published(b'x', b''))
    assert joining.peer.messages() == ['', '']


# Refusals


NO_PERMISSION = b'-NOPERM No permissions to access a channel\r\n'


def test_a_refused_subscription_is_told_before_anything_else_and_logged(
    hub: Home, caplog: pytest.LogCaptureFixture
) -> None:
    joining = Joining(hub, 'refused', 'fine')
    commands(hub)
    reply(hub, NO_PERMISSION)
    assert (joining.refused, joining.done) == (1, 1)
    reply(hub, bulk(b'kept') + subscribed(b'fine') + bulk(None))
    assert (joining.refused, joining.done) == (1, 1)
    assert joining.peer.messages() == ['kept']
    assert "refuses to subscribe to b'refused'" in caplog.text
    reply(hub, published(b'fine', b'live'))
    assert joining.peer.messages() == ['live']


def test_a_refused_kept_message_does_not_hinder_the_subscription(
    hub: Home, caplog: pytest.LogCaptureFixture
) -> None:
    joining = Joining(hub, 'x')
    commands(hub)
    reply(hub, subscribed(b'x') + b'-NOPERM no GET\r\n' + published(b'x', b'live'))
    assert joining.done == 1
    assert joining.peer.messages() == ['live']
    assert "message kept as b'x'" in caplog.text


def test_where_both_are_refused_the_replies_stay_in_step(hub: Home) -> None:
    refused, fine = Joining(hub, 'refused'), Joining(hub, 'fine')
    commands(hub)
    reply(hub, NO_PERMISSION * 2 + subscribed(b'fine') + bulk(b'kept'))
    assert (refused.done, fine.done) == (1, 1)
    assert refused.peer.messages() == []
    assert fine.peer.messages() == ['kept']
    second = Joining(hub, 'refused')
    assert commands(hub) == [[b'SUBSCRIBE', b'refused'], [b'GET', b'refused']]
    reply(hub, NO_PERMISSION * 2 + published(b'fine', b'live'))
    assert (second.refused, second.done) == (1, 1)
    assert fine.peer.messages() == ['live']


def test_a_refused_subscription_is_tried_again_and_missed_messages_are_made_up_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    with Home(clock=clock) as hub:
        hub.turn(2)
        refused = Joining(hub, 'x')
        commands(hub)
        reply(hub, NO_PERMISSION + bulk(None))
        for _ in range(2):
            clock.advance(REFUSED_SECONDS)
            hub.turn()
            assert [b'SUBSCRIBE', b'x'] in commands(hub)
            reply(hub, NO_PERMISSION + bulk(None))
        clock.advance(REFUSED_SECONDS)
        hub.turn()
        commands(hub)
        reply(hub, subscribed(b'x') + bulk(b'missed') + published(b'x', b'live'))
        assert refused.peer.messages() == ['missed', 'live']
        assert caplog.text.count('refuses to subscribe') == 1
        assert caplog.text.count('subscribed to again') == 1
        clock.advance(REFUSED_SECONDS)
        hub.turn()
        assert [b'SUBSCRIBE', b'x'] not in commands(hub)


def test_a_refused_channel_that_nobody_wants_any_more_is_not_tried_again() -> None:
    clock = Clock()
    with Home(clock=clock) as hub:
        hub.turn(2)
        refused = Joining(hub, 'x')
        commands(hub)
        reply(hub, NO_PERMISSION + bulk(None))
        refused.peer.websocket.lost()
        clock.advance(REFUSED_SECONDS)
        hub.turn(2)
        assert commands(hub) == []
        assert hub.bus.channels == {}


@pytest.mark.parametrize('error', ['LOADING Redis is loading', 'BUSY a script', 'MASTERDOWN link'])
def test_a_redis_that_cannot_serve_now_is_asked_again(hub: Home, error: str) -> None:
    joining = Joining(hub, 'x')
    commands(hub)
    reply(hub, subscribed(b'x') + f'-{error}\r\n'.encode())
    hub.turn_until(lambda: bus_link_of(hub).reconnects)
    assert joining.refused == 0
    assert commands(hub, 2) == [[b'SUBSCRIBE', b'x'], [b'GET', b'x'], [b'PING']]
    assert not bus_link_of(hub).is_subscribed
    reply(hub, subscribed(b'x') + bulk(b'kept') + b'+PONG\r\n', 2)
    assert joining.peer.messages() == ['kept']
    assert bus_link_of(hub).is_subscribed


def test_a_reply_that_nobody_asked_for_starts_the_connection_over(hub: Home) -> None:
    reply(hub, bulk(b'surprise'))
    hub.turn(3)
    assert bus_link_of(hub).reconnects == 1


# Reconnection


def reconnect(hub: Home) -> None:
    """Lose the connection of the bus; it connects again."""
    number = len(hub.redis.peers)
    hub.redis.hang_up(BUS)
    hub.turn_until(lambda: len(hub.redis.peers) > number)
    hub.turn()


def test_after_a_reconnection_all_is_subscribed_and_the_last_message_is_made_up_for(
    hub: Home,
) -> None:
    joining = Joining(hub, 'x')
    commands(hub)
    reply(hub, subscribed(b'x') + bulk(None) + published(b'x', b'1'))
    assert joining.peer.messages() == ['1']
    reconnect(hub)
    assert commands(hub, 2) == [[b'SUBSCRIBE', b'x'], [b'GET', b'x'], [b'PING']]
    reply(hub, subscribed(b'x') + bulk(b'missed') + published(b'x', b'live'), 2)
    assert joining.peer.messages() == ['missed', 'live']


def test_after_a_reconnection_a_message_that_was_delivered_is_not_sent_again(hub: Home) -> None:
    joining = Joining(hub, 'x')
    commands(hub)
    reply(hub, subscribed(b'x') + bulk(None) + published(b'x', b'1'))
    reconnect(hub)
    commands(hub, 2)
    reply(hub, subscribed(b'x') + bulk(b'1') + published(b'x', b'2'), 2)
    assert joining.peer.messages() == ['1', '2']


def test_after_a_reconnection_a_message_that_came_before_the_kept_one_is_not_repeated(
    hub: Home,
) -> None:
    joining = Joining(hub, 'x')
    commands(hub)
    reply(hub, subscribed(b'x') + bulk(None) + published(b'x', b'1'))
    reconnect(hub)
    commands(hub, 2)
    # Published between SUBSCRIBE and GET: it comes live, and is the kept message too.
    reply(hub, subscribed(b'x') + published(b'x', b'2') + bulk(b'2'), 2)
    assert joining.peer.messages() == ['1', '2']


def test_one_who_was_sent_the_kept_message_is_not_sent_it_again_by_a_reconnection(
    hub: Home,
) -> None:
    joining = Joining(hub, 'x')
    commands(hub)
    reply(hub, subscribed(b'x') + bulk(b'kept'))
    reconnect(hub)
    commands(hub, 2)
    reply(hub, subscribed(b'x') + bulk(b'kept'), 2)
    assert joining.peer.messages() == ['kept']


def test_an_older_kept_message_is_not_delivered_behind_a_newer_one_that_was_not_kept(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    options = HubOptions(ping_interval_seconds=None, expire_seconds=3600)
    with Home(connect=connect_to_redis, pack=publication_packer(), options=options) as hub:
        hub.turn_until(lambda: bus_link_of(hub).is_connected)
        joining = Joining(hub, 'x', 'y')
        hub.turn_until(lambda: joining.done)
        got: list[str | bytes] = []

        def publish(channel: str, message: str, *, keep: bool) -> None:
            with redis_client.pipeline() as pipeline:
                if keep:
                    pipeline.set(channel, message, ex=3600)
                pipeline.publish(channel, message)
                pipeline.execute()

        def arrived(*messages: str) -> None:
            def all_have() -> bool:
                got.extend(joining.peer.messages())
                return got == [*messages]

            hub.turn_until(all_have, message=f'{got}')

        publish('x', 'older', keep=True)
        publish('x', 'newer', keep=False)
        # Here the kept message is set again while nobody hears it.
        publish('y', 'on', keep=True)
        publish('y', 'off', keep=True)
        arrived('older', 'newer', 'on', 'off')
        time.sleep(2 * TOLERANCE_SECONDS)
        redis_client.set('y', 'on', ex=3600)
        redis_client.client_kill_filter(_type='pubsub')
        hub.turn_until(lambda: bus_link_of(hub).reconnects and bus_link_of(hub).is_subscribed)
        arrived('older', 'newer', 'on', 'off', 'on')


def test_where_redis_does_not_say_how_long_a_message_is_kept_it_is_compared_with_the_last() -> None:
    with Home(options=HubOptions(expire_seconds=3600)) as hub:
        hub.turn(2)
        joining = Joining(hub, 'x')
        commands(hub)
        reply(hub, subscribed(b'x') + bulk(None) + published(b'x', b'1') + published(b'x', b'2'))
        reconnect(hub)
        asked = [[b'SUBSCRIBE', b'x'], [b'PTTL', b'x'], [b'GET', b'x'], [b'PING']]
        assert commands(hub, 2) == asked
        reply(hub, subscribed(b'x') + NO_PERMISSION + bulk(b'1'), 2)
        assert joining.peer.messages() == ['1', '2', '1']


def test_a_question_that_was_lost_with_the_connection_is_asked_again(hub: Home) -> None:
    joining = Joining(hub, 'x')
    commands(hub)
    reconnect(hub)
    # It is not kept waiting.
    assert joining.done == 1
    assert commands(hub, 2) == [[b'SUBSCRIBE', b'x'], [b'GET', b'x'], [b'PING']]
    reply(hub, subscribed(b'x') + bulk(b'kept') + published(b'x', b'live'), 2)
    assert joining.peer.messages() == ['kept', 'live']


def test_without_redis_a_websocket_opens_and_joins_when_redis_is_there(hub: Home) -> None:
    hub.redis.refuses = True
    hub.redis.hang_up(BUS)
    hub.turn(3)
    joining, gone = Joining(hub, 'x'), Joining(hub, 'y')
    assert joining.done == 1
    gone.peer.websocket.lost()
    hub.redis.refuses = False
    hub.turn_until(lambda: bus_link_of(hub).is_connected)
    hub.turn()
    assert commands(hub, -1) == [[b'SUBSCRIBE', b'x'], [b'GET', b'x'], [b'PING']]
    reply(hub, subscribed(b'x') + bulk(b'kept'), -1)
    assert joining.peer.messages() == ['kept']


def test_channels_that_are_given_up_while_redis_is_away_are_forgotten(hub: Home) -> None:
    hub.redis.refuses = True
    hub.redis.hang_up(BUS)
    hub.turn(3)
    for number in range(100):
        joining = Joining(hub, f'channel {number}')
        joining.peer.websocket.lost()
        hub.turn()
    assert hub.bus.channels == {}


def test_own_messages_that_were_under_way_are_not_expected_after_a_reconnection(
    hub: Home,
) -> None:
    joining = Joining(hub, 'x', publishes=('x',))
    commands(hub)
    reply(hub, subscribed(b'x') + bulk(None))
    joining.peer.websocket.remember_own(b'lost', ('x',))
    joining.peer.websocket.remember_own(b'last', ('x',))
    reconnect(hub)
    commands(hub, 2)
    # Somebody else says the same later on.
    reply(hub, subscribed(b'x') + bulk(None) + published(b'x', b'lost'), 2)
    assert joining.peer.messages() == ['lost']


def test_a_silent_bus_is_checked_without_disturbing_the_order_of_answers() -> None:
    clock = Clock()
    with Home(clock=clock) as hub:
        hub.turn(2)
        for _ in range(3):
            clock.advance(5)
            hub.turn(2)
        assert [b'PING'] in commands(hub)
        joining = Joining(hub, 'x')
        assert commands(hub) == [[b'SUBSCRIBE', b'x'], [b'GET', b'x']]
        reply(hub, b'+PONG\r\n' + subscribed(b'x') + bulk(b'kept'))
        assert joining.peer.messages() == ['kept']
        assert bus_link_of(hub).reconnects == 0


# A real Redis


@pytest.fixture
def real_home(redis_server: RedisServer) -> Iterator[Home]:
    options = HubOptions(ping_interval_seconds=None)
    with Home(connect=connect_to_redis, pack=publication_packer(), options=options) as hub:
        hub.turn_until(lambda: bus_link_of(hub).is_connected)
        yield hub


class Publisher(threading.Thread):
    """Publish numbers on a channel as fast as Redis takes them, keeping the last one."""

    def __init__(self, server: RedisServer, channel: str, count: int) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._channel = channel
        self._count = count
        self.published = 0

    def run(self) -> None:
        with self._server.client() as client:
            for number in range(1, self._count + 1):
                with client.pipeline(transaction=True) as pipeline:
                    pipeline.set(self._channel, number, ex=60)
                    pipeline.publish(self._channel, number)
                    pipeline.execute()
                self.published = number


def test_websockets_that_open_at_full_speed_get_the_kept_message_once_and_all_after_it(
    real_home: Home, redis_server: RedisServer
) -> None:
    last = 2000
    publisher = Publisher(redis_server, 'x', last)
    publisher.start()
    joining: list[Joining] = []
    while publisher.is_alive():
        if publisher.published > 20 * len(joining):
            joining.append(Joining(real_home, 'x'))
        real_home.loop.turn(0.001)
    publisher.join()
    received: list[list[int]] = [[] for _ in joining]

    def all_have_the_last() -> bool:
        for numbers, j in zip(received, joining, strict=True):
            numbers += [int(m) for m in j.peer.messages()]
        return all(numbers and numbers[-1] == last for numbers in received)

    real_home.turn_until(all_have_the_last)
    assert len(joining) > 50
    for numbers in received:
        assert numbers == list(range(numbers[0], last + 1))


def test_no_message_is_repeated_or_out_of_order_when_the_connection_breaks_at_full_speed(
    real_home: Home, redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    last = 2000
    joining = [Joining(real_home, 'x') for _ in range(10)]
    real_home.turn_until(lambda: all(j.done for j in joining))
    publisher = Publisher(redis_server, 'x', last)
    publisher.start()
    cut_at = 200
    while publisher.is_alive():
        if publisher.published > cut_at and bus_link_of(real_home).is_connected:
            redis_client.client_kill_filter(_type='pubsub')
            cut_at += 200
        real_home.loop.turn(0.001)
    received: list[list[int]] = [[] for _ in joining]

    def all_have_the_last() -> bool:
        for numbers, j in zip(received, joining, strict=True):
            numbers += [int(m) for m in j.peer.messages()]
        return all(numbers and numbers[-1] == last for numbers in received)

    real_home.turn_until(all_have_the_last)
    assert bus_link_of(real_home).reconnects >= 1
    for numbers in received:
        assert numbers == sorted(set(numbers))


def test_ten_thousand_joins_and_leaves_leave_nothing_subscribed(
    real_home: Home, redis_client: redis.Redis
) -> None:
    rng = random.Random(1)
    hub = real_home
    peers = [hub.peer() for _ in range(50)]
    joins = 0
    while joins < 10_000:
        for peer in peers:
            names = [f'channel {rng.randrange(200)}' for _ in range(3)]
            hub.join_names(peer.websocket, names, lambda: None)
            joins += len(names)
            if rng.random() < 0.5:
                hub.leave(peer.websocket, rng.sample(names, 2))
            if rng.random() < 0.2:
                hub.leave_channels(peer.websocket)
        if rng.random() < 0.5:
            hub.turn()
    for peer in peers:
        hub.leave_channels(peer.websocket)
    hub.turn_until(lambda: not hub.bus.channels)
    hub.turn(2)

    def nothing_is_subscribed() -> bool:
        hub.turn()
        # Hubs of other tests may listen to their control channel.
        return not redis_client.pubsub_channels('channel *')

    wait_until(nothing_is_subscribed)
    assert bus_link_of(hub).reconnects == 0
    hub.turn_until(lambda: not bus_link_of(hub)._expected)
    assert not hub.bus._changed
    assert all(peer.websocket.channels == () for peer in peers)
    # And it still works.
    joining = Joining(hub, 'channel 1')
    hub.turn_until(lambda: joining.done)
    redis_client.publish('channel 1', 'hello')
    got: list[str | bytes] = []
    deadline = time.monotonic() + SOON_SECONDS
    while not got and time.monotonic() < deadline:
        hub.turn()
        got = joining.peer.messages()
    assert got == ['hello']


def test_an_access_list_that_forbids_a_channel_is_told_and_leaves_the_others_alone(
    redis_server: RedisServer, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis_client.execute_command(
        'ACL', 'SETUSER', 'limited', 'on', '>secret', '+@all', '~allowed:*', 'resetchannels',
        '&allowed:*',
    )  # fmt: skip
    redis_client.set('allowed:x', 'kept')
    redis_client.set('forbidden:x', 'secret')
    connection = {**redis_server.connection, 'username': 'limited', 'password': 'secret'}
    with override_settings(WS4REDIS_CONNECTION=connection):
        with Home(connect=connect_to_redis, pack=publication_packer()) as hub:
            hub.turn_until(lambda: bus_link_of(hub).is_connected)
            both = Joining(hub, 'forbidden:x', 'allowed:x')
            hub.turn_until(lambda: both.done)
            assert both.refused == 1
            hub.turn_until(lambda: not bus_link_of(hub)._expected)
            assert both.peer.messages() == ['kept']
            redis_client.publish('forbidden:x', 'secret')
            redis_client.publish('allowed:x', 'live')
            got: list[str | bytes] = []

            def arrived() -> bool:
                got.extend(both.peer.messages())
                return bool(got)

            hub.turn_until(arrived)
            assert got == ['live']
            assert "refuses to subscribe to b'forbidden:x'" in caplog.text
            assert bus_link_of(hub).reconnects == 0
    redis_client.execute_command('ACL', 'DELUSER', 'limited')


def test_a_key_of_another_type_is_no_kept_message(
    real_home: Home, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis_client.lpush('x', 'a list')
    joining = Joining(real_home, 'x')
    real_home.turn_until(lambda: joining.done)
    assert joining.peer.messages() == []
    assert 'WRONGTYPE' in caplog.text
