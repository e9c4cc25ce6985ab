"""The bus: subscriptions, kept messages and what comes in, against a scripted Redis."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.hub.bus_rig import Joining, commands, reply
from tests.hub.rig import Home, bulk, bus_link_of, published, subscribed, unsubscribed
from ws4redis.broker.keys import keys_of
from ws4redis.hub.bus import CHANGES_PER_TURN
from ws4redis.hub.channel import Joined
from ws4redis.hub.options import HubOptions
from ws4redis.hub.websocket import Phase


@pytest.fixture
def hub() -> Iterator[Home]:
    with Home(options=HubOptions(heartbeat=b'--heartbeat--')) as hub:
        hub.turn(2)
        yield hub


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


def test_who_leaves_and_joins_again_as_it_is_told_gets_nothing_before_it_is_told_again(
    hub: Home,
) -> None:
    peer = hub.peer()
    told: list[Joined] = []

    def come_back(joined: object) -> None:
        hub.leave(peer.websocket, ['x'])
        hub.join(peer.websocket, 'x', told.append)

    hub.join(peer.websocket, 'x', come_back)
    commands(hub)
    reply(hub, subscribed(b'x') + bulk(None) + published(b'x', b'live'))
    assert commands(hub) == [[b'GET', b'x']]
    assert (told, peer.messages()) == ([], [])
    reply(hub, bulk(b'live') + published(b'x', b'more'))
    assert [joined.kept for joined in told] == [b'live']
    assert peer.messages() == ['more']


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
