"""Pings and heartbeats, on a clock that the test moves."""

from __future__ import annotations

from collections import Counter

from tests.hub.rig import Clock, Home, Peer
from tests.websocket_client import CLOSE, PING, PONG
from ws4redis.hub.keepalive import SLOTS, Wheel
from ws4redis.hub.options import HubOptions
from ws4redis.hub.publication import Publication
from ws4redis.hub.websocket import Paused, WebSocket
from ws4redis.protocol.frames import Opcode

INTERVAL = 20.0
TICK = INTERVAL / SLOTS


def pinging_home(clock: Clock, *, timeout: float = 5.0) -> Home:
    options = HubOptions(ping_interval_seconds=INTERVAL, ping_timeout_seconds=timeout)
    return Home(clock=clock, options=options)


def pass_time(hub: Home, clock: Clock, seconds: float) -> None:
    """Let time pass, slot by slot."""
    for _ in range(round(seconds / TICK)):
        clock.advance(TICK)
        hub.turn()


def pass_time_until_ping(hub: Home, clock: Clock, peer: Peer) -> None:
    """Let time pass until the peer has been sent a ping, within one interval."""
    for _ in range(SLOTS + 1):
        pass_time(hub, clock, TICK)
        if sent := opcodes(peer):
            assert sent == [PING]
            return
    raise AssertionError('no ping was sent')


def opcodes(peer: Peer) -> list[int]:
    return [frame.opcode for frame in peer.frames()]


def test_the_wheel_visits_each_open_websocket_once_per_interval() -> None:
    clock = Clock()
    with Home(clock=clock, options=HubOptions(ping_interval_seconds=None)) as hub:
        peers = [hub.peer() for _ in range(100)]
        closing, gone = peers[3], peers[7]
        closing.websocket.close()
        gone.websocket.lost()
        visits: Counter[WebSocket] = Counter()
        most_at_once = 0

        def visit(websocket: WebSocket) -> None:
            visits[websocket] += 1

        Wheel(hub, INTERVAL, visit).start()
        for turn in range(1, 3):
            for _ in range(SLOTS):
                before = visits.total()
                clock.advance(TICK + 1e-9)
                hub.turn()
                most_at_once = max(most_at_once, visits.total() - before)
            assert visits == dict.fromkeys(
                (p.websocket for p in peers if p not in (closing, gone)), turn
            )
        # Spread over the slots, not all in one.
        assert most_at_once < 20


def test_an_idle_websocket_is_pinged_once_per_interval_and_stays_open_while_it_answers() -> None:
    clock = Clock()
    with pinging_home(clock) as hub:
        hub.turn()
        peer = hub.peer()
        pings = 0
        for _ in range(5 * SLOTS):
            pass_time(hub, clock, TICK)
            for opcode in opcodes(peer):
                assert opcode == PING
                pings += 1
                peer.send_frame(PONG)
        assert 4 <= pings <= 5


def test_a_websocket_that_does_not_answer_is_closed_in_time() -> None:
    clock = Clock()
    with pinging_home(clock) as hub:
        hub.turn()
        peer = hub.peer()
        pass_time_until_ping(hub, clock, peer)
        pass_time(hub, clock, 4)
        assert opcodes(peer) == []
        pass_time(hub, clock, 2)
        [close] = peer.frames()
        assert close.opcode == CLOSE
        assert close.close_code == 1011
        pass_time(hub, clock, 6)
        assert peer.receiver.closed == [(1011, '')]


def test_a_ping_is_answered_by_any_pong_even_when_the_timeout_exceeds_the_interval() -> None:
    clock = Clock()
    with pinging_home(clock, timeout=3 * INTERVAL) as hub:
        hub.turn()
        silent, talking = hub.peer(), hub.peer()
        pings = 0
        for _ in range(2):
            pass_time(hub, clock, INTERVAL)
            pings += opcodes(talking).count(PING)
            talking.send_frame(PONG)
        assert pings == 2
        # The one that has not answered is asked once, and given its time.
        assert opcodes(silent) == [PING]
        # It was asked somewhere in the first interval, and has three.
        pass_time(hub, clock, INTERVAL - 2 * TICK)
        assert opcodes(silent) == []
        pass_time(hub, clock, INTERVAL + 4 * TICK)
        assert opcodes(silent) == [CLOSE]


def test_one_that_could_not_be_read_is_not_blamed_and_is_asked_again_later() -> None:
    clock = Clock()
    with pinging_home(clock) as hub:
        hub.turn()
        peer = hub.peer()
        peer.websocket.pause_reading(Paused.REDIS)
        pass_time_until_ping(hub, clock, peer)
        pass_time(hub, clock, 6)
        assert opcodes(peer) == []
        peer.websocket.resume_reading(Paused.REDIS)
        # It never answers: it is found out all the same.
        pass_time_until_ping(hub, clock, peer)
        pass_time(hub, clock, 6)
        assert opcodes(peer) == [CLOSE]


def test_a_descriptor_that_is_used_again_inherits_no_ping() -> None:
    clock = Clock()
    with pinging_home(clock) as hub:
        hub.turn()
        first = hub.peer()
        fd = first.websocket.fd
        pass_time_until_ping(hub, clock, first)
        assert first.websocket.pinged_in_round
        first.websocket.lost()
        second = hub.peer()
        assert second.websocket.fd == fd
        pass_time(hub, clock, 6)
        assert CLOSE not in opcodes(second)


def test_without_an_interval_nobody_is_pinged() -> None:
    clock = Clock()
    with Home(clock=clock, options=HubOptions(ping_interval_seconds=None)) as hub:
        hub.turn()
        peer = hub.peer()
        pass_time(hub, clock, 100)
        assert opcodes(peer) == []


def heartbeating_home(clock: Clock) -> Home:
    options = HubOptions(
        ping_interval_seconds=None, heartbeat=b'--heartbeat--', heartbeat_interval_seconds=4.0
    )
    return Home(clock=clock, options=options)


def pass_interval(hub: Home, clock: Clock, *, slots: int = SLOTS) -> None:
    for _ in range(slots):
        clock.advance(4.0 / SLOTS)
        hub.turn()


def test_an_idle_websocket_is_sent_the_heartbeat_about_every_four_seconds() -> None:
    clock = Clock()
    with heartbeating_home(clock) as hub:
        hub.turn()
        peer = hub.peer(heartbeats=True)
        pass_interval(hub, clock)
        assert peer.messages() == []
        for _ in range(5):
            pass_interval(hub, clock)
            assert peer.messages() == ['--heartbeat--']


def test_one_whose_channel_has_messages_is_sent_no_heartbeat() -> None:
    clock = Clock()
    with heartbeating_home(clock) as hub:
        hub.turn()
        idle, busy = hub.peer(heartbeats=True), hub.peer(heartbeats=True)
        channel = hub.bus._channel('broadcast:x')
        channel.add(busy.websocket)
        busy.websocket.channels = (channel,)
        # One in each half of an interval, so that none of them is silent.
        for number in range(6):
            hub.fanout.arrive(channel, Publication(b'%d' % number))
            hub.turn()
            pass_interval(hub, clock, slots=SLOTS // 2)
        assert busy.messages() == ['0', '1', '2', '3', '4', '5']
        # The first interval was not silent as a whole.
        assert idle.messages() == ['--heartbeat--'] * 2
        pass_interval(hub, clock)
        pass_interval(hub, clock, slots=SLOTS // 2)
        assert busy.messages()[:1] == ['--heartbeat--']


def test_without_a_heartbeat_nothing_is_sent() -> None:
    clock = Clock()
    with Home(clock=clock, options=HubOptions(ping_interval_seconds=None)) as hub:
        hub.turn()
        peer = hub.peer(heartbeats=True)
        pass_interval(hub, clock)
        pass_interval(hub, clock)
        assert peer.frames() == []


def test_the_first_heartbeat_comes_after_a_whole_interval_of_silence() -> None:
    clock = Clock()
    with heartbeating_home(clock) as hub:
        hub.turn()
        peer = hub.peer(heartbeats=True)
        pass_interval(hub, clock, slots=SLOTS - 1)
        assert peer.messages() == []
        pass_interval(hub, clock, slots=SLOTS)
        assert peer.messages() == ['--heartbeat--']


def test_what_it_is_sent_apart_from_channels_counts_too() -> None:
    clock = Clock()
    with heartbeating_home(clock) as hub:
        hub.turn()
        peer = hub.peer(heartbeats=True)
        for number in range(6):
            pass_interval(hub, clock, slots=SLOTS // 2)
            peer.websocket.send_message(b'%d' % number)
        assert peer.messages() == ['0', '1', '2', '3', '4', '5']


def test_one_that_hears_only_its_own_messages_which_it_is_not_sent_is_idle() -> None:
    clock = Clock()
    with heartbeating_home(clock) as hub:
        hub.turn()
        peer = hub.peer(heartbeats=True)
        channel = hub.bus._channel('broadcast:x')
        channel.add(peer.websocket)
        peer.websocket.channels = (channel,)
        for number in range(6):
            peer.websocket.remember_own(b'%d' % number, ('broadcast:x',))
            hub.fanout.arrive(channel, Publication(b'%d' % number))
            hub.turn()
            pass_interval(hub, clock, slots=SLOTS // 2)
        assert peer.messages() == ['--heartbeat--'] * 2


def test_websockets_without_heartbeats_are_sent_none_unless_they_send_one() -> None:
    clock = Clock()
    with heartbeating_home(clock) as hub:
        hub.turn()
        silent, asking = hub.peer(), hub.peer()
        for _ in range(3):
            pass_interval(hub, clock)
        assert silent.messages() == []
        asking.send('--heartbeat--')
        asking.send('hello')
        assert asking.messages() == ['--heartbeat--']
        assert asking.receiver.messages == [(Opcode.TEXT, b'hello')]


def test_the_heartbeat_of_a_client_is_no_message_and_is_answered_by_the_next_of_ours() -> None:
    clock = Clock()
    with heartbeating_home(clock) as hub:
        hub.turn()
        peer = hub.peer(heartbeats=True)
        peer.send('--heartbeat--')
        assert peer.messages() == []
        assert peer.receiver.messages == []
