"""The command connection: what websockets send is published, or its sender is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
import redis

from tests.hub.rig import Clock, Home, Peer, bulk, bus_link_of, subscribed
from tests.programs import RedisServer
from tests.timeouts import wait_until
from tests.websocket_client import CLOSE
from ws4redis.hub import publications
from ws4redis.hub.options import HubOptions
from ws4redis.hub.websocket import Paused, Phase
from ws4redis.servers.process import connect_to_redis, publication_packer


@pytest.fixture
def hub() -> Iterator[Home]:
    with Home(options=HubOptions(redis_timeout_seconds=30)) as hub:
        hub.turn(2)
        yield hub


COMMANDS = 1  # the bus connects first


def published(hub: Home) -> list[tuple[bytes, bytes]]:
    """Return what has been published since the last call."""
    return [
        (command[1], command[2])
        for command in hub.redis.commands(COMMANDS)
        if command[0] == b'PUBLISH'
    ]


def publish(hub: Home, peer: Peer, *payloads: bytes, channels: tuple[str, ...] = ('x',)) -> None:
    for payload in payloads:
        hub.publications.publish(peer.websocket, channels, payload)
    hub.turn()


def test_messages_are_published_in_order_on_each_channel(hub: Home) -> None:
    peer = hub.peer()
    publish(hub, peer, b'1', b'2', channels=('a', 'b'))
    assert published(hub) == [(b'a', b'1'), (b'b', b'1'), (b'a', b'2'), (b'b', b'2')]
    assert hub.publications.unanswered_bytes > 0
    hub.redis.reply(b':0\r\n' * 4, COMMANDS)
    hub.turn()
    assert hub.publications.unanswered_bytes == 0
    assert hub.statistics.messages_published == 2


def test_senders_are_held_back_while_redis_lags_and_read_again_when_it_has_caught_up(
    hub: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publications, 'MAX_UNANSWERED_BYTES', 10_000)
    quick, idle = hub.peer(), hub.peer()
    count = 0
    while not quick.websocket.paused:
        publish(hub, quick, b'x' * 1000)
        count += 1
    assert quick.websocket.paused == Paused.REDIS
    assert not idle.websocket.paused
    assert 7 <= count <= 9
    answered = 0
    while quick.websocket.paused:
        hub.redis.reply(b':0\r\n', COMMANDS)
        hub.turn()
        answered += 1
    assert 4 <= answered <= 7
    assert len(published(hub)) == count


def test_unanswered_messages_are_published_again_on_the_next_connection(hub: Home) -> None:
    peer = hub.peer()
    publish(hub, peer, b'1', b'2', b'3')
    hub.redis.reply(b':0\r\n', COMMANDS)
    hub.turn()
    hub.redis.hang_up(COMMANDS)
    hub.turn(3)
    assert [m for c in hub.redis.commands(2) for m in c[2:]] == [b'2', b'3']
    hub.redis.reply(b':0\r\n' * 2, 2)
    hub.turn()
    assert hub.statistics.messages_published == 3
    assert hub.publications.unanswered_bytes == 0


def test_while_redis_is_away_senders_are_held_back_and_their_messages_wait(hub: Home) -> None:
    hub.redis.refuses = True
    hub.redis.hang_up(COMMANDS)
    hub.turn(2)
    peer = hub.peer()
    publish(hub, peer, b'waits')
    assert peer.websocket.paused == Paused.REDIS
    assert peer.websocket.phase is Phase.OPEN
    hub.redis.refuses = False
    hub.turn_until(lambda: hub.publications.is_connected)
    hub.turn()
    assert [m for c in hub.redis.commands(2) for m in c[2:]] == [b'waits']
    assert not peer.websocket.paused


def test_a_sender_whose_message_redis_does_not_take_in_time_is_closed_with_1013() -> None:
    clock = Clock()
    with Home(
        clock=clock, options=HubOptions(redis_timeout_seconds=10, ping_interval_seconds=None)
    ) as hub:
        hub.turn(2)
        hub.redis.refuses = True
        hub.redis.hang_up(COMMANDS)
        hub.turn(2)
        early, late, silent = hub.peer(), hub.peer(), hub.peer()
        publish(hub, early, b'early')
        clock.advance(6)
        hub.turn()
        publish(hub, late, b'late')
        clock.advance(4.5)
        hub.turn(2)
        [close] = early.frames()
        assert (close.opcode, close.close_code) == (CLOSE, 1013)
        assert late.websocket.phase is Phase.OPEN
        clock.advance(6)
        hub.turn(2)
        [close] = late.frames()
        assert close.close_code == 1013
        assert silent.websocket.phase is Phase.OPEN
        assert hub.publications.unanswered_bytes == 0
        assert hub.statistics.messages_dropped == 2


def test_a_redis_that_hangs_with_a_message_is_given_up_and_its_sender_told() -> None:
    clock = Clock()
    with Home(
        clock=clock, options=HubOptions(redis_timeout_seconds=10, ping_interval_seconds=None)
    ) as hub:
        hub.turn(2)
        peer = hub.peer()
        publish(hub, peer, b'stuck')
        clock.advance(10.5)
        hub.turn(3)
        [close] = peer.frames()
        assert close.close_code == 1013
        # Redis has it in its socket, and will publish it when it goes on.
        assert 'may be published' in close.close_reason
        assert len(hub.redis.peers) > 2


def test_past_the_bound_those_are_closed_who_sent_most(
    hub: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(publications, 'MAX_WAITING_BYTES', 20_000)
    hub.redis.refuses = True
    hub.redis.hang_up(COMMANDS)
    hub.turn(2)
    # Long names cost nothing: they are shared by the messages of a websocket.
    channels = ('broadcast:' + 'x' * 4000,)
    modest = [hub.peer() for _ in range(20)]
    for peer in modest:
        publish(hub, peer, b'modest', channels=channels)
    greedy = hub.peer()
    for _ in range(60):
        if greedy.websocket.phase is Phase.OPEN:
            publish(hub, greedy, b'greedy', channels=channels)
    [close] = greedy.frames()
    assert (close.close_code, close.close_reason) == (1013, 'you sent too much for Redis')
    assert all(peer.websocket.phase is Phase.OPEN for peer in modest)
    assert hub.publications.unanswered == 20
    assert hub.publications.unanswered_bytes == 20 * (6 + publications.MESSAGE_OVERHEAD_BYTES)
    assert hub.statistics.messages_not_published[1013] > 50
    assert 'too much waits for Redis' in caplog.text
    hub.redis.refuses = False
    hub.turn_until(lambda: hub.publications.is_connected)
    hub.turn()
    assert [c[2] for c in hub.redis.commands(2)] == [b'modest'] * 20


def test_no_more_is_written_before_redis_answers_than_the_bound(
    hub: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publications, 'MAX_UNANSWERED_BYTES', 10_000)
    peer = hub.peer()
    # As from one read: the sender is paused only after it.
    for number in range(50):
        hub.publications.publish(peer.websocket, ('c' * 1000,), b'%d' % number)
    hub.turn()
    got = published(hub)
    assert 5 < len(got) < 12
    while len(got) < 50:
        hub.redis.reply(b':0\r\n', COMMANDS)
        hub.turn()
        got += published(hub)
    assert [payload for _, payload in got] == [b'%d' % number for number in range(50)]


def test_what_waited_is_published_once_the_bus_is_subscribed_again(hub: Home) -> None:
    joined: list[str] = []
    peer = hub.peer()
    hub.join_names(peer.websocket, ['x'], lambda: joined.append('x'))
    hub.turn()
    hub.redis.reply(subscribed(b'x') + bulk(None), 0)
    hub.turn()
    assert joined == ['x']
    hub.redis.hang_up(0)
    hub.redis.hang_up(COMMANDS)
    hub.turn_until(lambda: hub.publications.reconnects and bus_link_of(hub).reconnects)
    hub.publications.publish(peer.websocket, ('x',), b'waits')
    hub.turn(3)
    commands = {number: hub.redis.commands(number) for number in (2, 3)}
    [bus] = [number for number in commands if [b'SUBSCRIBE', b'x'] in commands[number]]
    [other] = {2, 3} - {bus}
    assert commands[other] == []
    assert peer.websocket.paused == Paused.REDIS
    hub.redis.reply(subscribed(b'x') + bulk(None), bus)
    hub.turn(2)
    assert hub.redis.commands(other) == []
    # The answer to what was written behind all subscriptions.
    hub.redis.reply(b'+PONG\r\n', bus)
    hub.turn(2)
    assert hub.redis.commands(other) == [[b'PUBLISH', b'x', b'waits']]
    assert not peer.websocket.paused


def test_while_only_the_bus_is_away_messages_wait_for_it_but_not_for_ever() -> None:
    clock = Clock()
    options = HubOptions(redis_timeout_seconds=10, ping_interval_seconds=None)
    with Home(clock=clock, options=options) as hub:
        hub.turn(2)
        hub.redis.refuses = True
        hub.redis.hang_up(0)
        hub.turn(2)
        peer = hub.peer()
        publish(hub, peer, b'waits')
        assert published(hub) == []
        clock.advance(10.5)
        hub.turn(2)
        [close] = peer.frames()
        assert (close.close_code, close.close_reason) == (1013, 'Redis is not available')
        # Nothing is wrong with the command connection.
        assert hub.publications.is_connected
        assert hub.publications.reconnects == 0


@pytest.mark.parametrize('error', ['LOADING', 'BUSY', 'MASTERDOWN', 'TRYAGAIN', 'CLUSTERDOWN'])
def test_a_message_waits_for_a_redis_that_cannot_serve_now(hub: Home, error: str) -> None:
    peer = hub.peer()
    publish(hub, peer, b'waits')
    hub.redis.reply(f'-{error} not now\r\n'.encode(), COMMANDS)
    hub.turn_until(lambda: hub.publications.reconnects)
    hub.turn()
    assert hub.redis.commands(2) == [[b'PUBLISH', b'x', b'waits']]
    hub.redis.reply(b':0\r\n', 2)
    hub.turn()
    assert hub.statistics.messages_published == 1
    assert peer.frames() == []


def test_after_a_failover_both_connections_are_made_anew(hub: Home) -> None:
    peer = hub.peer()
    publish(hub, peer, b'1')
    hub.redis.reply(b':0\r\n', COMMANDS)
    hub.turn()
    publish(hub, peer, b'2')
    hub.redis.reply(b'-READONLY a replica\r\n', COMMANDS)
    hub.turn_until(lambda: hub.publications.reconnects and bus_link_of(hub).reconnects)
    hub.turn()
    # The address still leads to the old one: the bus is left alone, until it does no more.
    number = len(hub.redis.peers)
    [commands] = [n for n in (2, 3) if hub.redis.commands(n)]
    hub.redis.reply(b'-READONLY a replica\r\n', commands)
    hub.turn_until(lambda: len(hub.redis.peers) > number and hub.publications.is_connected)
    hub.turn()
    assert bus_link_of(hub).reconnects == 1
    assert hub.redis.commands() == [[b'PUBLISH', b'x', b'2']]
    hub.redis.reply(b':0\r\n')
    hub.turn_until(lambda: bus_link_of(hub).reconnects == 2)
    assert hub.statistics.messages_published == 2
    assert peer.frames() == []


def test_an_error_inside_of_a_transaction_refuses_the_message(hub: Home) -> None:
    peer = hub.peer()
    publish(hub, peer, b'1')
    hub.redis.reply(b'*2\r\n+OK\r\n-ERR no\r\n', COMMANDS)
    hub.turn()
    assert [f.close_code for f in peer.frames()] == [1011]
    assert hub.statistics.messages_published == 0


def test_what_a_closed_websocket_had_sent_is_published_all_the_same(hub: Home) -> None:
    hub.redis.refuses = True
    hub.redis.hang_up(COMMANDS)
    hub.turn(2)
    peer = hub.peer()
    publish(hub, peer, b'last words')
    peer.websocket.lost()
    hub.redis.refuses = False
    hub.turn_until(lambda: hub.publications.is_connected)
    hub.turn()
    assert [m for c in hub.redis.commands(2) for m in c[2:]] == [b'last words']


def test_a_refused_message_closes_its_sender_alone_with_1011(
    hub: Home, caplog: pytest.LogCaptureFixture
) -> None:
    refused, other = hub.peer(), hub.peer()
    publish(hub, refused, b'no', channels=('a', 'b'))
    publish(hub, other, b'yes')
    no_permission = b'-NOPERM no permissions\r\n'
    hub.redis.reply(no_permission * 2 + b':0\r\n', COMMANDS)
    hub.turn()
    [close] = refused.frames()
    assert close.close_code == 1011
    assert 'NOPERM' not in close.close_reason
    assert 'NOPERM' in caplog.text
    assert other.websocket.phase is Phase.OPEN
    assert hub.statistics.messages_published == 1
    assert hub.publications.unanswered_bytes == 0


def test_a_refusal_lets_go_of_others_who_were_held_back(
    hub: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publications, 'MAX_UNANSWERED_BYTES', 3000)
    held, refused = hub.peer(), hub.peer()
    publish(hub, refused, b'x' * 2900)
    publish(hub, held, b'y' * 1000)
    publish(hub, refused, b'x' * 2900)
    hub.redis.reply(b':0\r\n' * 2, COMMANDS)
    hub.turn()
    # Its own message is published, but only the refused one makes room.
    assert held.websocket.paused
    hub.redis.reply(b'-OOM out of memory\r\n', COMMANDS)
    hub.turn()
    assert not held.websocket.paused


def test_an_answer_that_nobody_asked_for_starts_the_connection_over(hub: Home) -> None:
    hub.redis.reply(b'+OK\r\n', COMMANDS)
    hub.turn(3)
    assert hub.publications.reconnects == 1


def test_a_real_redis_keeps_the_message_with_its_expiry_and_publishes_it(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    with (
        redis_client.pubsub() as pubsub,
        Home(connect=connect_to_redis, pack=publication_packer()) as hub,
    ):
        pubsub.subscribe('broadcast:x', 'broadcast:y')
        for _ in range(2):
            assert pubsub.get_message(timeout=5) is not None
        peer = hub.peer()
        channels = ('broadcast:x', 'broadcast:y')
        hub.publications.publish(peer.websocket, channels, b'hello')
        hub.turn_until(lambda: hub.statistics.messages_published == 1)
        for channel in channels:
            message = pubsub.get_message(timeout=5)
            assert message is not None
            assert (message['channel'], message['data']) == (channel.encode(), b'hello')
            assert redis_client.get(channel) == b'hello'
            assert 3590 <= int(redis_client.ttl(channel)) <= 3600
        assert peer.frames() == []


def test_messages_wait_while_a_real_redis_is_a_replica(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    with Home(connect=connect_to_redis, pack=publication_packer()) as hub:
        peer = hub.peer()
        hub.turn_until(lambda: hub.publications.is_connected)
        redis_client.replicaof('127.0.0.1', 1)
        try:
            hub.publications.publish(peer.websocket, ('broadcast:x',), b'waits')
            hub.turn_until(lambda: hub.publications.reconnects)
            assert hub.publications.unanswered == 1
        finally:
            redis_client.replicaof('NO', 'ONE')
        hub.turn_until(lambda: hub.statistics.messages_published)
        assert redis_client.get('broadcast:x') == b'waits'
        assert peer.frames() == []


def test_messages_wait_while_a_real_redis_runs_a_script(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    def run_on() -> None:
        with redis_server.client() as client, suppress(redis.ResponseError):
            client.eval('while true do end', 0)

    redis_client.config_set('lua-time-limit', 1)
    script = threading.Thread(target=run_on, daemon=True)
    try:
        with Home(connect=connect_to_redis, pack=publication_packer()) as hub:
            peer = hub.peer()
            hub.turn_until(lambda: hub.publications.is_connected and bus_link_of(hub).is_connected)
            script.start()
            wait_until(lambda: is_busy(redis_client))
            hub.publications.publish(peer.websocket, ('broadcast:x',), b'waits')
            hub.turn_until(lambda: not hub.publications.is_connected)
            redis_client.execute_command('SCRIPT', 'KILL')
            script.join()
            hub.turn_until(lambda: hub.statistics.messages_published)
            assert redis_client.get('broadcast:x') == b'waits'
            assert peer.frames() == []
    finally:
        redis_client.config_set('lua-time-limit', 5000)


def is_busy(client: redis.Redis) -> bool:
    try:
        client.ping()
    except redis.ResponseError:
        return True
    return False


def test_a_real_redis_that_refuses_by_its_access_list_closes_the_sender(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    redis_client.execute_command(
        'ACL', 'SETUSER', 'limited', 'on', '>secret', '+@all', '~*', 'resetchannels', '&allowed:*'
    )
    from django.test import override_settings

    connection = {**redis_server.connection, 'username': 'limited', 'password': 'secret'}
    with override_settings(WS4REDIS_CONNECTION=connection):
        with Home(connect=connect_to_redis, pack=publication_packer()) as hub:
            refused, allowed = hub.peer(), hub.peer()
            hub.publications.publish(refused.websocket, ('broadcast:x',), b'no')
            hub.publications.publish(allowed.websocket, ('allowed:x',), b'yes')
            hub.turn_until(lambda: hub.statistics.messages_published == 1)
            assert [f.close_code for f in refused.frames()] == [1011]
            assert allowed.frames() == []
            assert redis_client.get('broadcast:x') is None
            assert redis_client.get('allowed:x') == b'yes'
    redis_client.execute_command('ACL', 'DELUSER', 'limited')
