"""All websockets of a process: what they share, their limits, and their end."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub.rig import Clock, Home, bus_link_of, pack_publish_only
from tests.programs import RedisServer
from tests.websocket_client import CLOSE
from ws4redis.hub.hub import PublishingReceiver
from ws4redis.hub.options import HubOptions
from ws4redis.hub.websocket import Phase
from ws4redis.loop import timers
from ws4redis.protocol.frames import CloseCode, Opcode
from ws4redis.servers.process import connect_to_redis


@pytest.fixture
def hub() -> Iterator[Home]:
    with Home(options=HubOptions(heartbeat=b'--heartbeat--')) as hub:
        hub.turn(2)
        yield hub


def test_open_websockets_are_counted_and_iterated(hub: Home) -> None:
    peers = [hub.peer() for _ in range(5)]
    hub.peer(attached=False)
    assert hub.open_count == 5
    assert set(hub) == {peer.websocket for peer in peers}
    assert hub.highest_fd == max(peer.websocket.fd for peer in peers)
    peers[0].websocket.lost()
    assert hub.open_count == 4
    assert peers[0].websocket not in set(hub)
    assert hub.statistics.handshakes == {101: 5}
    assert hub.statistics.closes == {1006: 1}


def test_the_place_of_each_websocket_is_given_back_once() -> None:
    given_back: list[Any] = []
    with Home(give_back=given_back.append) as hub:
        opened, unopened = hub.peer(place='opened'), hub.peer(place='unopened', attached=False)
        opened.websocket.lost()
        opened.websocket.lost()
        unopened.websocket.close()
        unopened.websocket.close()
        hub.turn()
    assert given_back == ['opened', 'unopened']


def test_refused_handshakes_are_counted_by_their_status(hub: Home) -> None:
    hub.count_refused_handshake(403)
    hub.count_refused_handshake(403)
    hub.count_refused_handshake(400)
    assert hub.statistics.handshakes == {403: 2, 400: 1}


def test_joining_nothing_is_done_at_once(hub: Home) -> None:
    done: list[int] = []
    hub.join_names(hub.peer().websocket, [], lambda: done.append(1))
    assert done == [1]


def test_a_closed_websocket_joins_nothing(hub: Home) -> None:
    peer = hub.peer()
    peer.websocket.lost()
    done: list[int] = []
    hub.join_names(peer.websocket, ['x'], lambda: done.append(1))
    assert done == [1]
    assert hub.bus.channels == {}


# What websockets send


def published(hub: Home) -> list[bytes]:
    hub.turn()
    return [command[-1] for command in hub.redis.commands(1) if command[0] == b'PUBLISH']


def test_the_receiver_publishes_on_the_chosen_channels(hub: Home) -> None:
    peer = hub.peer(receiver=PublishingReceiver(hub), publishes=('a', 'b'))
    peer.send('hello')
    peer.send(b'\xff')
    assert published(hub) == [b'hello', b'hello', b'\xff', b'\xff']


def test_heartbeats_and_messages_for_no_channel_are_not_published(hub: Home) -> None:
    receiver = PublishingReceiver(hub)
    publishing, silent = (
        hub.peer(receiver=receiver, publishes=('a',)),
        hub.peer(receiver=receiver),
    )
    publishing.send('--heartbeat--')
    silent.send('to nobody')
    publishing.send('hello')
    assert published(hub) == [b'hello']
    assert silent.websocket.phase is Phase.OPEN


# The end


def test_draining_closes_all_with_the_given_code_then_ends_the_loop(hub: Home) -> None:
    peers = [hub.peer() for _ in range(10)]
    assert not hub.is_draining
    hub.drain(CloseCode.SERVICE_RESTART, 'restart', spread_seconds=0)
    assert hub.is_draining
    for peer in peers:
        [close] = peer.frames()
        assert (close.close_code, close.close_reason) == (1012, 'restart')
        assert hub.loop.running
        peer.send_close(1012)
        peer.socket.close()
    hub.turn_until(lambda: not hub.loop.running)
    assert hub.open_count == 0


def test_draining_is_spread_over_its_time() -> None:
    clock = Clock()
    with Home(clock=clock) as hub:
        hub.turn(2)
        peers = [hub.peer() for _ in range(100)]
        hub.drain(CloseCode.GOING_AWAY, '', spread_seconds=2)
        closed_at = []
        for _ in range(100):
            closed_at.append(sum(peer.websocket.phase is not Phase.OPEN for peer in peers))
            clock.advance(0.02)
            hub.turn()
        assert closed_at[0] == 1
        assert 40 <= closed_at[50] <= 60
        assert closed_at[-1] == 100


def test_draining_waits_no_longer_than_the_close_timeout_for_silent_peers() -> None:
    clock = Clock()
    with Home(clock=clock, options=HubOptions(close_timeout_seconds=3)) as hub:
        hub.turn(2)
        hub.peer()
        hub.drain(CloseCode.GOING_AWAY, '', spread_seconds=0)
        clock.advance(2.9)
        hub.turn()
        assert hub.loop.running
        clock.advance(0.2)
        hub.turn()
        assert not hub.loop.running


def test_draining_waits_until_what_websockets_sent_was_published(hub: Home) -> None:
    peer = hub.peer(receiver=PublishingReceiver(hub), publishes=('x',))
    peer.send('last words')
    hub.drain(CloseCode.GOING_AWAY, '', spread_seconds=0)
    peer.send_close(1001)
    peer.socket.close()
    hub.turn_for(0.1)
    assert hub.loop.running
    assert published(hub) == [b'last words']
    hub.redis.reply(b':0\r\n', 1)
    hub.turn_until(lambda: not hub.loop.running)


def test_draining_twice_is_draining_once(hub: Home) -> None:
    peer = hub.peer()
    hub.drain(CloseCode.GOING_AWAY, 'first', spread_seconds=0)
    hub.drain(CloseCode.SERVICE_RESTART, 'second', spread_seconds=0)
    assert [(f.opcode, f.close_reason) for f in peer.frames()] == [(CLOSE, 'first')]


def descriptors() -> int:
    return len(list(Path('/proc/self/fd').iterdir()))


def test_the_end_of_the_loop_frees_all_descriptors() -> None:
    gc.collect()
    before = descriptors()
    with Home() as hub:
        hub.turn(2)
        peers = [hub.peer() for _ in range(20)]
        for peer in peers:
            hub.join_names(peer.websocket, ['x'], lambda: None)
        hub.turn()
    assert all(peer.receiver.closed for peer in peers)
    assert descriptors() == before


def test_websockets_of_every_end_leave_no_descriptor_no_object_and_no_timer(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Some cancelled timers may stay in the heap; here they would look like a leak.
    monkeypatch.setattr(timers, '_TOLERATED_CANCELLATIONS', 0)
    # Pings have timers of their own, which come and go with time.
    options = HubOptions(ping_interval_seconds=None)
    with Home(connect=connect_to_redis, pack=pack_publish_only, options=options) as hub:
        hub.turn_until(lambda: bus_link_of(hub).is_connected and hub.publications.is_connected)

        def come_and_go(count: int) -> None:
            for number in range(count):
                peer = hub.peer(receiver=PublishingReceiver(hub), publishes=(f'y{number}',))
                hub.join_names(peer.websocket, ['x', f'x{number % 7}'], lambda: None)
                peer.send('hello')
                if number % 4 == 0:
                    peer.send_close()
                elif number % 4 == 1:
                    peer.websocket.close()
                    peer.send_close()
                elif number % 4 == 2:
                    peer.send_frame(3, b'violation')
                peer.socket.close()
                hub.turn()
                hub._peers.remove(peer)
            hub.turn_until(lambda: not hub.open_count and not hub.bus.channels)
            hub.turn_until(lambda: not hub.publications.unanswered_bytes)

        come_and_go(20)
        gc.collect()
        before = descriptors(), len(hub.loop.handlers), len(hub.loop.timers)
        objects = len(gc.get_objects())
        come_and_go(1000)
        gc.collect()
        assert (descriptors(), len(hub.loop.handlers), len(hub.loop.timers)) == before
        assert len(gc.get_objects()) - objects < 200
        assert hub.statistics.messages_received == hub.statistics.messages_published


def test_messages_reach_the_receiver_with_their_opcode(hub: Home) -> None:
    peer = hub.peer()
    peer.send('text')
    peer.send(b'binary')
    assert peer.receiver.messages == [(Opcode.TEXT, b'text'), (Opcode.BINARY, b'binary')]
