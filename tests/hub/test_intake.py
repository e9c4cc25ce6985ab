"""What peers send is taken in slices, and no faster than the rates allow."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hub.rig import Clock, Home, Peer, RecordingReceiver
from tests.websocket_client import CLOSE, PING, PONG, TEXT, close_payload, encode_frame
from ws4redis.hub import intake
from ws4redis.hub.options import MAX_FRAMES_AT_ONCE, HubOptions, limits_of_websockets
from ws4redis.hub.websocket import Paused, Phase, WebSocket
from ws4redis.protocol.extensions import Compression, negotiate
from ws4redis.protocol.frames import Opcode

EMPTY = encode_frame(TEXT, b'')


def numbered(count: int) -> bytes:
    return b''.join(encode_frame(TEXT, b'%d' % number) for number in range(count))


def payloads(peer: Peer) -> list[bytes]:
    return [payload for _, payload in peer.receiver.messages]


class SlowReceiver(RecordingReceiver):
    """Take a while for each message."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self._clock = clock
        self._seconds = seconds

    def receive_message(self, websocket: WebSocket, opcode: Opcode, payload: bytes) -> None:
        super().receive_message(websocket, opcode, payload)
        self._clock.advance(self._seconds)


def rated_home(clock: Clock, **rates: float) -> Home:
    limits = limits_of_websockets(max_messages_per_second=rates.get('max_messages_per_second'))
    options: dict[str, Any] = {'ping_interval_seconds': None, 'limits': limits, **rates}
    return Home(clock=clock, options=HubOptions(**options))


def pass_time(hub: Home, clock: Clock, seconds: float, *, step: float = 0.01) -> None:
    for _ in range(round(seconds / step)):
        clock.advance(step)
        hub.turn(2)


# Slices


def test_one_read_full_of_messages_is_taken_in_slices_and_in_order() -> None:
    clock = Clock()
    with Home(clock=clock) as hub:
        hub.turn(2)
        receiver = SlowReceiver(clock, 0.001)
        peer = hub.peer(receiver=receiver)
        peer.socket.send(numbered(1000))
        most = taken = 0
        turns = 0
        while taken < 1000:
            hub.turn()
            turns += 1
            most = max(most, len(receiver.messages) - taken)
            taken = len(receiver.messages)
        assert payloads(peer) == [b'%d' % number for number in range(1000)]
        # A slice when it is read, and what fits into the turn's share for leftovers.
        assert most <= 3 * MAX_FRAMES_AT_ONCE
        assert turns > 20


def test_others_are_served_between_the_slices_of_a_flood() -> None:
    clock = Clock()
    with Home(clock=clock) as hub:
        hub.turn(2)
        flooding = hub.peer(receiver=SlowReceiver(clock, 0.001))
        bystander = hub.peer()
        flooding.socket.send(EMPTY * 5000)
        hub.turn()
        bystander.socket.send(encode_frame(TEXT, b'hello'))
        before = clock.now
        hub.turn(2)
        assert payloads(bystander) == [b'hello']
        assert clock.now - before < 0.1


def test_floods_of_several_peers_are_served_in_turns() -> None:
    clock = Clock()
    with Home(clock=clock) as hub:
        hub.turn(2)
        peers = [hub.peer(receiver=SlowReceiver(clock, 0.001)) for _ in range(4)]
        for peer in peers:
            peer.socket.send(EMPTY * 500)
        hub.turn(20)
        counts = [len(peer.receiver.messages) for peer in peers]
        assert min(counts) > 0
        assert max(counts) < 500
        assert max(counts) - min(counts) <= 2 * MAX_FRAMES_AT_ONCE


def test_the_socket_is_not_read_while_something_is_left_over() -> None:
    clock = Clock()
    with Home(clock=clock) as hub:
        hub.turn(2)
        peer = hub.peer(receiver=SlowReceiver(clock, 0.001))
        peer.socket.send(EMPTY * 500)
        hub.turn()
        read = hub.statistics.bytes_received
        peer.socket.send(EMPTY * 500)
        hub.turn(3)
        assert hub.statistics.bytes_received == read
        hub.turn_until(lambda: len(peer.receiver.messages) == 1000)
        assert not peer.websocket.paused


def test_a_receiver_that_lags_holds_back_the_rest_of_a_read() -> None:
    class Lagging(RecordingReceiver):
        def receive_message(self, websocket: WebSocket, opcode: Opcode, payload: bytes) -> None:
            super().receive_message(websocket, opcode, payload)
            websocket.pause_reading(Paused.RECEIVER)

    with Home() as hub:
        hub.turn(2)
        peer = hub.peer(receiver=Lagging())
        peer.socket.send(numbered(100))
        hub.turn(20)
        assert len(peer.receiver.messages) <= MAX_FRAMES_AT_ONCE
        while len(peer.receiver.messages) < 100:
            before = len(peer.receiver.messages)
            peer.websocket.resume_reading(Paused.RECEIVER)
            hub.turn(2)
            assert len(peer.receiver.messages) > before
        assert payloads(peer) == [b'%d' % number for number in range(100)]


def test_a_close_frame_is_answered_after_all_that_came_before_it() -> None:
    with Home() as hub:
        hub.turn(2)
        peer = hub.peer()
        peer.send_bytes(numbered(500) + encode_frame(CLOSE, close_payload(1000)))
        [close] = peer.frames_until_end()
        assert close.close_code == 1000
        assert len(peer.receiver.messages) == 500
        peer.socket.close()
        hub.turn_until(lambda: peer.receiver.closed)
        assert hub.open_count == 0


def test_what_is_left_over_of_a_websocket_that_we_close_is_thrown_away_up_to_its_close() -> None:
    clock = Clock()
    with Home(clock=clock) as hub:
        hub.turn(2)
        peer = hub.peer(receiver=SlowReceiver(clock, 0.001))
        peer.socket.send(EMPTY * 500 + encode_frame(CLOSE, close_payload(1001)))
        hub.turn()
        taken = len(peer.receiver.messages)
        peer.websocket.pause_reading(Paused.REDIS)
        hub.turn(2)
        peer.websocket.close(1001)
        hub.turn_until(lambda: peer.websocket.phase is Phase.ENDING)
        assert len(peer.receiver.messages) <= taken + 2 * MAX_FRAMES_AT_ONCE
        peer.socket.close()
        hub.turn_until(lambda: peer.receiver.closed)
        assert peer.receiver.closed[0][0] == 1001


def test_a_websocket_that_is_lost_leaves_the_queue() -> None:
    clock = Clock()
    with Home(clock=clock) as hub:
        hub.turn(2)
        peer = hub.peer(receiver=SlowReceiver(clock, 0.001))
        peer.socket.send(EMPTY * 500)
        hub.turn()
        peer.websocket.lost()
        hub.turn(2)
        assert not hub.intake._waiting
        assert not hub.loop._unfinished


def test_a_peer_that_hangs_up_behind_its_messages_has_them_all_taken() -> None:
    clock = Clock()
    with Home(clock=clock) as hub:
        hub.turn(2)
        peer = hub.peer(receiver=SlowReceiver(clock, 0.001))
        peer.socket.send(numbered(500))
        peer.socket.close()
        hub.turn_until(lambda: peer.receiver.closed)
        assert len(peer.receiver.messages) == 500


def test_a_receiver_that_raises_ends_its_websocket_only(caplog: pytest.LogCaptureFixture) -> None:
    class Raising(RecordingReceiver):
        def receive_message(self, websocket: WebSocket, opcode: Opcode, payload: bytes) -> None:
            super().receive_message(websocket, opcode, payload)
            if len(self.messages) > 2 * MAX_FRAMES_AT_ONCE:
                raise RuntimeError('broken')

    with Home() as hub:
        hub.turn(2)
        peer, bystander = hub.peer(receiver=Raising()), hub.peer()
        peer.socket.send(EMPTY * 500)
        hub.turn(50)
        [close] = peer.frames()
        assert close.close_code == 1011
        assert 'has sent failed' in caplog.text
        bystander.send('hello')
        assert payloads(bystander) == [b'hello']


def test_a_read_that_inflates_to_much_is_taken_message_by_message() -> None:
    _, deflate = negotiate('permessage-deflate', Compression(enabled=True))
    assert deflate is not None
    message = b'x' * 1_000_000
    frame = bytearray(deflate.wire.encode_message(message))
    length = len(frame) - 4
    masked = bytes([frame[0], 0xFE]) + length.to_bytes(2, 'big') + bytes(4) + bytes(frame[4:])
    clock = Clock()
    with Home(clock=clock) as hub:
        hub.turn(2)
        peer = hub.peer(receiver=SlowReceiver(clock, 0.01))
        peer.websocket.protocol._deflate = deflate
        peer.socket.send(masked * 10)
        taken = 0
        while taken < 10:
            hub.turn()
            assert len(peer.receiver.messages) <= taken + 2
            taken = len(peer.receiver.messages)
        assert payloads(peer) == [message] * 10


# Rates


def test_who_sends_more_messages_than_allowed_is_read_more_slowly_and_loses_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    with rated_home(clock, max_messages_per_second=100) as hub:
        hub.turn(2)
        steady, hasty = hub.peer(), hub.peer()
        hasty.socket.send(numbered(500))
        hub.turn(10)
        # A second's worth may come at once, in two halves.
        assert len(hasty.receiver.messages) <= 100 + MAX_FRAMES_AT_ONCE
        before = len(hasty.receiver.messages)
        for _ in range(100):
            steady.socket.send(encode_frame(TEXT, b'x'))
            pass_time(hub, clock, 0.02)
        assert len(steady.receiver.messages) == 100
        taken = len(hasty.receiver.messages) - before
        assert 180 <= taken <= 220 + MAX_FRAMES_AT_ONCE
        pass_time(hub, clock, 5)
        assert payloads(hasty) == [b'%d' % number for number in range(500)]
        assert hasty.websocket.phase is Phase.OPEN
        assert caplog.text.count('exceeds WS4REDIS_MAX_MESSAGES_PER_SECOND') == 1


def test_a_fraction_of_a_message_per_second_is_a_rate_too() -> None:
    clock = Clock()
    with rated_home(clock, max_messages_per_second=0.5) as hub:
        hub.turn(2)
        peer = hub.peer()
        for _ in range(10):
            peer.socket.send(encode_frame(TEXT, b'x'))
            hub.turn(2)
        pass_time(hub, clock, 1)
        assert len(peer.receiver.messages) <= 2
        pass_time(hub, clock, 20, step=0.1)
        assert len(peer.receiver.messages) == 10


def test_who_sends_more_bytes_than_allowed_is_read_more_slowly() -> None:
    clock = Clock()
    with rated_home(clock, max_bytes_per_second=1_000_000) as hub:
        hub.turn(2)
        peer = hub.peer(tcp=True)
        data = encode_frame(TEXT, b'x' * 1_000_000) * 4

        def pass_time_sending(seconds: float) -> None:
            nonlocal data
            for _ in range(round(seconds / 0.01)):
                while data:
                    try:
                        data = data[peer.socket.send(data) :]
                    except BlockingIOError:
                        break
                    hub.turn()
                clock.advance(0.01)
                hub.turn()

        pass_time_sending(0.5)
        assert hub.statistics.bytes_received < 1_200_000
        pass_time_sending(1)
        assert hub.statistics.bytes_received < 2_300_000
        pass_time_sending(3)
        assert len(peer.receiver.messages) == 4


@pytest.mark.parametrize('opcode', [PING, PONG])
def test_who_sends_more_pings_than_allowed_is_read_more_slowly(opcode: int) -> None:
    clock = Clock()
    with rated_home(clock, max_pings_per_second=50) as hub:
        hub.turn(2)
        peer = hub.peer()
        peer.socket.send(encode_frame(opcode, b'x') * 1000 + encode_frame(TEXT, b'behind'))
        pass_time(hub, clock, 1)
        assert peer.receiver.messages == []
        if opcode == PING:
            assert 50 <= len(peer.frames()) <= 110 + MAX_FRAMES_AT_ONCE
        pass_time(hub, clock, 21, step=0.05)
        assert payloads(peer) == [b'behind']


def test_a_peer_whose_pong_lies_behind_its_flood_is_not_taken_for_dead() -> None:
    clock = Clock()
    options: dict[str, Any] = {
        'ping_interval_seconds': 2.0,
        'ping_timeout_seconds': 1.0,
        'max_messages_per_second': 10,
    }
    with Home(clock=clock, options=HubOptions(**options)) as hub:
        hub.turn(2)
        peer = hub.peer()
        peer.socket.send(numbered(100))
        pass_time(hub, clock, 8)
        assert peer.websocket.phase is Phase.OPEN
        assert len(peer.receiver.messages) < 100


def test_a_websocket_that_is_closed_while_it_rests_is_closed_at_once() -> None:
    clock = Clock()
    with rated_home(clock, max_messages_per_second=10) as hub:
        hub.turn(2)
        peer = hub.peer()
        peer.socket.send(numbered(100) + encode_frame(CLOSE, close_payload(1000)))
        hub.turn(5)
        assert peer.websocket.paused & Paused.RATE
        peer.websocket.close(1001)
        hub.turn(20)
        assert peer.websocket.phase is Phase.ENDING
        assert len(peer.receiver.messages) < 40


def test_without_rates_nobody_rests() -> None:
    with Home() as hub:
        hub.turn(2)
        peer = hub.peer()
        peer.send_bytes(numbered(5000))
        hub.turn_until(lambda: len(peer.receiver.messages) == 5000)
        assert hub.loop.timers.next_deadline() is not None


def test_the_log_names_the_rate_at_most_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with rated_home(clock, max_messages_per_second=10) as hub:
        hub.turn(2)
        peers = [hub.peer() for _ in range(5)]
        for peer in peers:
            peer.socket.send(numbered(40))
            hub.turn(3)
        assert caplog.text.count('exceeds') == 1
        pass_time(hub, clock, intake.LOG_INTERVAL_SECONDS, step=0.5)
        peers[0].socket.send(numbered(40))
        hub.turn(3)
        assert caplog.text.count('exceeds') == 2


def test_a_peer_that_only_answers_pings_costs_no_memory_between_them() -> None:
    clock = Clock()
    with rated_home(clock, max_messages_per_second=10, max_pings_per_second=5) as hub:
        peer = hub.peer()
        assert peer.websocket.allowance is None
        peer.socket.send(encode_frame(PONG, b''))
        hub.turn(2)
        assert peer.websocket.allowance is not None
        hub.intake.forget_rested(peer.websocket)
        assert peer.websocket.allowance is not None
        clock.advance(1)
        hub.intake.forget_rested(peer.websocket)
        assert peer.websocket.allowance is None


def test_a_peer_that_is_in_debt_is_not_let_off_by_a_ping() -> None:
    clock = Clock()
    with rated_home(clock, max_messages_per_second=10) as hub:
        peer = hub.peer()
        peer.socket.send(numbered(20))
        hub.turn(2)
        hub.intake.forget_rested(peer.websocket)
        assert peer.websocket.allowance is not None
        assert peer.websocket.paused & Paused.RATE
