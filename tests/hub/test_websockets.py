"""All websockets of a process: what they share, their limits, and their end."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub.rig import Clock, Home, pack_publish_only
from tests.programs import RedisServer
from tests.websocket_client import CLOSE
from ws4redis.hub.options import HubOptions
from ws4redis.hub.websocket import Phase
from ws4redis.hub.websockets import PublishingReceiver
from ws4redis.loop import timers
from ws4redis.protocol.frames import CloseCode, Opcode
from ws4redis.servers.process import connect_to_redis


@pytest.fixture
def home() -> Iterator[Home]:
    with Home(options=HubOptions(heartbeat=b'--heartbeat--')) as home:
        home.turn(2)
        yield home


def test_open_websockets_are_counted_and_iterated(home: Home) -> None:
    peers = [home.peer() for _ in range(5)]
    home.peer(attached=False)
    assert home.open_count == 5
    assert set(home) == {peer.websocket for peer in peers}
    assert home.highest_fd == max(peer.websocket.fd for peer in peers)
    peers[0].websocket.lost()
    assert home.open_count == 4
    assert peers[0].websocket not in set(home)
    assert home.statistics.handshakes == {101: 5}
    assert home.statistics.closes == {1006: 1}


def test_the_place_of_each_websocket_is_given_back_once() -> None:
    given_back: list[Any] = []
    with Home(give_back=given_back.append) as home:
        opened, unopened = home.peer(place='opened'), home.peer(place='unopened', attached=False)
        opened.websocket.lost()
        opened.websocket.lost()
        unopened.websocket.close()
        unopened.websocket.close()
        home.turn()
    assert given_back == ['opened', 'unopened']


def test_refused_handshakes_are_counted_by_their_status(home: Home) -> None:
    home.count_refused_handshake(403)
    home.count_refused_handshake(403)
    home.count_refused_handshake(400)
    assert home.statistics.handshakes == {403: 2, 400: 1}


def test_joining_nothing_is_done_at_once(home: Home) -> None:
    done: list[int] = []
    home.join(home.peer().websocket, [], lambda: done.append(1))
    assert done == [1]


def test_a_closed_websocket_joins_nothing(home: Home) -> None:
    peer = home.peer()
    peer.websocket.lost()
    done: list[int] = []
    home.join(peer.websocket, ['x'], lambda: done.append(1))
    assert done == [1]
    assert home.bus.channels == {}


# What websockets send


def published(home: Home) -> list[bytes]:
    home.turn()
    return [command[-1] for command in home.redis.commands(1) if command[0] == b'PUBLISH']


def test_the_receiver_publishes_on_the_chosen_channels(home: Home) -> None:
    peer = home.peer(receiver=PublishingReceiver(home), publishes=('a', 'b'))
    peer.send('hello')
    peer.send(b'\xff')
    assert published(home) == [b'hello', b'hello', b'\xff', b'\xff']


def test_heartbeats_and_messages_for_no_channel_are_not_published(home: Home) -> None:
    receiver = PublishingReceiver(home)
    publishing, silent = (
        home.peer(receiver=receiver, publishes=('a',)),
        home.peer(receiver=receiver),
    )
    publishing.send('--heartbeat--')
    silent.send('to nobody')
    publishing.send('hello')
    assert published(home) == [b'hello']
    assert silent.websocket.phase is Phase.OPEN


# The end


def test_draining_closes_all_with_the_given_code_then_ends_the_loop(home: Home) -> None:
    peers = [home.peer() for _ in range(10)]
    assert not home.is_draining
    home.drain(CloseCode.SERVICE_RESTART, 'restart', spread_seconds=0)
    assert home.is_draining
    for peer in peers:
        [close] = peer.frames()
        assert (close.close_code, close.close_reason) == (1012, 'restart')
        assert home.hub.running
        peer.send_close(1012)
        peer.socket.close()
    home.turn_until(lambda: not home.hub.running)
    assert home.open_count == 0


def test_draining_is_spread_over_its_time() -> None:
    clock = Clock()
    with Home(clock=clock) as home:
        home.turn(2)
        peers = [home.peer() for _ in range(100)]
        home.drain(CloseCode.GOING_AWAY, '', spread_seconds=2)
        closed_at = []
        for _ in range(100):
            closed_at.append(sum(peer.websocket.phase is not Phase.OPEN for peer in peers))
            clock.advance(0.02)
            home.turn()
        assert closed_at[0] == 1
        assert 40 <= closed_at[50] <= 60
        assert closed_at[-1] == 100


def test_draining_waits_no_longer_than_the_close_timeout_for_silent_peers() -> None:
    clock = Clock()
    with Home(clock=clock, options=HubOptions(close_timeout_seconds=3)) as home:
        home.turn(2)
        home.peer()
        home.drain(CloseCode.GOING_AWAY, '', spread_seconds=0)
        clock.advance(2.9)
        home.turn()
        assert home.hub.running
        clock.advance(0.2)
        home.turn()
        assert not home.hub.running


def test_draining_waits_until_what_websockets_sent_was_published(home: Home) -> None:
    peer = home.peer(receiver=PublishingReceiver(home), publishes=('x',))
    peer.send('last words')
    home.drain(CloseCode.GOING_AWAY, '', spread_seconds=0)
    peer.send_close(1001)
    peer.socket.close()
    home.turn_for(0.1)
    assert home.hub.running
    assert published(home) == [b'last words']
    home.redis.reply(b':0\r\n', 1)
    home.turn_until(lambda: not home.hub.running)


def test_draining_twice_is_draining_once(home: Home) -> None:
    peer = home.peer()
    home.drain(CloseCode.GOING_AWAY, 'first', spread_seconds=0)
    home.drain(CloseCode.SERVICE_RESTART, 'second', spread_seconds=0)
    assert [(f.opcode, f.close_reason) for f in peer.frames()] == [(CLOSE, 'first')]


def descriptors() -> int:
    return len(list(Path('/proc/self/fd').iterdir()))


def test_the_end_of_the_loop_frees_all_descriptors() -> None:
    gc.collect()
    before = descriptors()
    with Home() as home:
        home.turn(2)
        peers = [home.peer() for _ in range(20)]
        for peer in peers:
            home.join(peer.websocket, ['x'], lambda: None)
        home.turn()
    assert all(peer.receiver.closed for peer in peers)
    assert descriptors() == before


def test_websockets_of_every_end_leave_no_descriptor_no_object_and_no_timer(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Some cancelled timers may stay in the heap; here they would look like a leak.
    monkeypatch.setattr(timers, '_TOLERATED_CANCELLATIONS', 0)
    # Pings have timers of their own, which come and go with time.
    options = HubOptions(ping_interval_seconds=None)
    with Home(connect=connect_to_redis, pack=pack_publish_only, options=options) as home:
        home.turn_until(lambda: home.bus.is_connected and home.publications.is_connected)

        def come_and_go(count: int) -> None:
            for number in range(count):
                peer = home.peer(receiver=PublishingReceiver(home), publishes=(f'y{number}',))
                home.join(peer.websocket, ['x', f'x{number % 7}'], lambda: None)
                peer.send('hello')
                if number % 4 == 0:
                    peer.send_close()
                elif number % 4 == 1:
                    peer.websocket.close()
                    peer.send_close()
                elif number % 4 == 2:
                    peer.send_frame(3, b'violation')
                peer.socket.close()
                home.turn()
                home._peers.remove(peer)
            home.turn_until(lambda: not home.open_count and not home.bus.channels)
            home.turn_until(lambda: not home.publications.unanswered_bytes)

        come_and_go(20)
        gc.collect()
        before = descriptors(), len(home.hub.handlers), len(home.hub.timers)
        objects = len(gc.get_objects())
        come_and_go(1000)
        gc.collect()
        assert (descriptors(), len(home.hub.handlers), len(home.hub.timers)) == before
        assert len(gc.get_objects()) - objects < 200
        assert home.statistics.messages_received == home.statistics.messages_published


def test_messages_reach_the_receiver_with_their_opcode(home: Home) -> None:
    peer = home.peer()
    peer.send('text')
    peer.send(b'binary')
    assert peer.receiver.messages == [(Opcode.TEXT, b'text'), (Opcode.BINARY, b'binary')]
