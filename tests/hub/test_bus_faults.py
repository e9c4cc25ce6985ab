"""The bus when Redis refuses, or its connection breaks, against a scripted Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis

from tests.hub.bus_rig import BUS, Joining, commands, reply
from tests.hub.rig import Clock, Home, bulk, bus_link_of, published, subscribed
from tests.programs import RedisServer
from ws4redis.hub.bus import REFUSED_SECONDS
from ws4redis.hub.options import HubOptions
from ws4redis.hub.recent import TOLERANCE_SECONDS
from ws4redis.servers.process import connect_to_redis, publication_packer


@pytest.fixture
def hub() -> Iterator[Home]:
    with Home(options=HubOptions(heartbeat=b'--heartbeat--')) as hub:
        hub.turn(2)
        yield hub


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
