"""One websocket over a socketpair: its output bound, its closing, its pauses."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hub.rig import Clock, Home, Peer, RecordingReceiver
from tests.timeouts import SOON_SECONDS
from tests.websocket_client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    close_payload,
    encode_frame,
)
from ws4redis.hub.messages import Messages
from ws4redis.hub.options import HubOptions
from ws4redis.hub.websocket import Paused, Phase
from ws4redis.protocol.frames import CloseCode, Opcode
from ws4redis.protocol.limits import Limits


@pytest.fixture
def hub() -> Iterator[Home]:
    with Home() as hub:
        yield hub


def fill(peer: Peer, *, size: int = 1000) -> int:
    """Send messages until the socket takes no more; return how many."""
    count = 0
    while not peer.websocket.queued_bytes:
        peer.websocket.send_message(b'%07d' % count + b'x' * (size - 7))
        count += 1
    return count


def fill_more(peer: Peer) -> int:
    """Send more than the kernel will take while the peer does not read; return how many."""
    for _ in range(8):
        peer.websocket.send_message(b'x' * 100_000)
    assert peer.websocket.queued_bytes > 100_000
    return 8


def closed(peer: Peer) -> tuple[int, str]:
    """Return code and reason with which the websocket told that it closed, exactly once."""
    receiver: RecordingReceiver = peer.receiver
    [end] = receiver.closed
    return end


# Messages


@pytest.mark.parametrize('message', ['text', 'Grüße', '', b'\xff\x00', 'x' * 70_000])
def test_what_the_peer_sends_is_received(hub: Home, message: str | bytes) -> None:
    peer = hub.peer()
    peer.send(message)
    hub.turn_until(lambda: peer.receiver.messages)
    expected = message.encode() if isinstance(message, str) else message
    opcode = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
    assert peer.receiver.messages == [(opcode, expected)]


def test_a_fragmented_message_is_received_whole(hub: Home) -> None:
    peer = hub.peer()
    peer.send_frame(TEXT, b'frag', fin=False)
    assert peer.receiver.messages == []
    peer.send_frame(CONTINUATION, b'ments')
    assert peer.receiver.messages == [(Opcode.TEXT, b'fragments')]


def test_text_is_sent_as_text_and_anything_else_as_binary(hub: Home) -> None:
    peer = hub.peer()
    peer.websocket.send_message('Grüße'.encode())
    peer.websocket.send_message(b'\xff')
    peer.websocket.send_message(b'valid text', Opcode.BINARY)
    assert [(f.opcode, f.payload) for f in peer.frames()] == [
        (TEXT, 'Grüße'.encode()),
        (BINARY, b'\xff'),
        (BINARY, b'valid text'),
    ]


def test_a_ping_is_answered_with_its_payload(hub: Home) -> None:
    peer = hub.peer()
    peer.send_frame(PING, b'payload')
    assert [(f.opcode, f.payload) for f in peer.frames()] == [(PONG, b'payload')]


def test_a_pong_answers_our_ping(hub: Home) -> None:
    peer = hub.peer()
    peer.websocket.pinged_in_round = 3
    peer.websocket.send_ping(b'hi')
    [ping] = peer.frames()
    assert (ping.opcode, ping.payload) == (PING, b'hi')
    peer.send_frame(PONG, ping.payload)
    assert peer.websocket.pinged_in_round == 0


def test_what_is_sent_during_the_handshake_follows_it_in_order(hub: Home) -> None:
    peer = hub.peer(attached=False)
    peer.websocket.send_message(b'first')
    peer.websocket.send_message(b'second')
    assert peer.messages() == []
    peer.attach()
    peer.websocket.send_message(b'third')
    assert peer.messages() == ['first', 'second', 'third']
    assert peer.websocket.direct


# Output that the peer does not take


def test_what_the_socket_does_not_take_is_sent_later_whole_and_in_order(hub: Home) -> None:
    peer = hub.peer(small_buffers=True)
    count = fill(peer)
    peer.websocket.send_message(b'last')
    assert not peer.websocket.direct
    messages: list[str | bytes] = []
    while len(messages) < count + 1:
        messages += peer.messages()
        hub.turn()
    assert [str(m)[:7] for m in messages] == [f'{n:07}' for n in range(count)] + ['last']
    assert peer.websocket.queued_bytes == 0
    assert peer.websocket.direct
    assert peer.receiver.drained == 1
    assert hub.statistics.messages_sent == count + 1


def test_a_turn_gives_a_socket_a_part_of_what_waits_for_it(
    hub: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = hub.peer(small_buffers=True)
    count = fill(peer)
    for _ in range(2):
        peer.websocket.send_message(b'x' * 60_000)
    peer.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    monkeypatch.setattr('ws4redis.hub.peer.FLUSH_BYTES', 10_000)
    waiting = peer.websocket.queued_bytes
    messages = peer.messages()
    for _ in range(3):
        hub.turn()
        assert waiting - 20_000 < peer.websocket.queued_bytes < waiting
        waiting = peer.websocket.queued_bytes
        messages += peer.messages()
    while len(messages) < count + 2:
        hub.turn()
        messages += peer.messages()
    assert messages[-2:] == ['x' * 60_000] * 2


def small_bound(max_queue_bytes: int = 10_000) -> Home:
    return Home(options=HubOptions(max_queue_bytes=max_queue_bytes))


def test_a_peer_that_cannot_keep_up_is_closed_with_1013_and_gets_whole_frames_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with small_bound() as hub:
        peer = hub.peer(small_buffers=True)
        sent = 0
        while peer.websocket.phase is Phase.OPEN:
            peer.websocket.send_message(b'%07d' % sent + b'x' * 993)
            sent += 1
            assert peer.websocket.queued_bytes <= 10_000 + 1004
        # What fits is kept; only the message that did not fit is lost.
        dropped = hub.statistics.messages_dropped
        assert dropped == 1
        # What comes now is not queued either.
        peer.websocket.send_message(b'late')
        frames: list[Frame] = []
        while not frames or frames[-1].opcode != CLOSE:
            frames += peer.frames()
            hub.turn()
        *messages, close = frames
        assert close.close_code == CloseCode.TRY_AGAIN_LATER
        assert [f.payload[:7] for f in messages] == [b'%07d' % n for n in range(len(messages))]
        assert len(messages) + dropped == sent
        assert hub.statistics.messages_sent == len(messages)
        assert 'cannot keep up' in caplog.text
        peer.send_close(close.close_code)
        assert peer.frames_until_end() == []
        peer.socket.close()
        hub.turn_until(lambda: peer.receiver.closed)
        assert closed(peer)[0] == CloseCode.TRY_AGAIN_LATER


def frames_until_close(hub: Home, peer: Peer) -> list[Frame]:
    frames: list[Frame] = []
    while not frames or frames[-1].opcode != CLOSE:
        frames += peer.frames()
        hub.turn()
    return frames


def test_of_a_batch_larger_than_the_bound_the_messages_that_fit_are_sent() -> None:
    with small_bound() as hub:
        peer = hub.peer(small_buffers=True)
        payloads = [b'%07d' % n + b'x' * 993 for n in range(500)]
        peer.websocket.deliver(Messages.of(payloads))
        assert peer.websocket.phase is Phase.CLOSING
        waiting = peer.websocket.queued_bytes
        assert 8000 < waiting <= 10_000 + 100
        *messages, close = frames_until_close(hub, peer)
        assert close.close_code == CloseCode.TRY_AGAIN_LATER
        assert [f.payload for f in messages] == payloads[: len(messages)]
        assert len(messages) + hub.statistics.messages_dropped == 500
        assert hub.statistics.messages_sent == len(messages)


def test_of_a_batch_behind_others_the_messages_that_fit_are_sent() -> None:
    with small_bound() as hub:
        peer = hub.peer(small_buffers=True)
        count = fill(peer)
        room = 10_000 - peer.websocket.queued_bytes
        peer.websocket.deliver(Messages.of([b'%07d' % n + b'x' * 993 for n in range(20)]))
        *messages, close = frames_until_close(hub, peer)
        assert close.close_code == CloseCode.TRY_AGAIN_LATER
        assert len(messages) == count + room // 1004
        assert hub.statistics.messages_dropped == 20 - room // 1004


def test_a_single_message_larger_than_the_bound_is_delivered() -> None:
    with small_bound() as hub:
        peer = hub.peer(small_buffers=True)
        peer.websocket.send_message(b'x' * 200_000)
        messages: list[str | bytes] = []
        while not messages:
            messages = peer.messages()
            hub.turn()
        assert messages == ['x' * 200_000]
        assert peer.websocket.phase is Phase.OPEN


def test_messages_behind_a_large_one_reach_the_bound_and_it_is_finished() -> None:
    with small_bound() as hub:
        peer = hub.peer(small_buffers=True)
        peer.websocket.send_message(b'x' * 200_000)
        peer.websocket.send_message(b'dropped')
        assert peer.websocket.phase is Phase.CLOSING
        frames: list[Frame] = []
        while not frames or frames[-1].opcode != CLOSE:
            frames += peer.frames()
            hub.turn()
        assert [(f.opcode, len(f.payload)) for f in frames[:-1]] == [(TEXT, 200_000)]
        assert frames[-1].close_code == CloseCode.TRY_AGAIN_LATER


def test_one_that_cannot_keep_up_does_not_disturb_another() -> None:
    with small_bound() as hub:
        slow = hub.peer(small_buffers=True)
        quick = hub.peer()
        for number in range(100):
            for peer in (slow, quick):
                peer.websocket.send_message(b'%d' % number + b'x' * 1000)
            hub.turn()
            assert quick.messages() == [f'{number}' + 'x' * 1000]
        assert slow.websocket.phase is Phase.CLOSING


def test_no_data_follows_our_close_frame(hub: Home) -> None:
    peer = hub.peer()
    peer.websocket.close(1001, 'bye')
    peer.websocket.send_message(b'late')
    peer.websocket.deliver(Messages.of([b'late']))
    peer.send_close(1001)
    assert [f.opcode for f in peer.frames_until_end()] == [CLOSE]


# All queues together


def test_what_queues_share_counts_once_and_is_let_go_with_the_last() -> None:
    with Home() as hub:
        peers = [hub.peer(small_buffers=True) for _ in range(10)]
        for peer in peers:
            fill(peer)
        before = hub.queues.bytes
        messages = Messages.of([b'x' * 100_000, b'y' * 100_000])
        for peer in peers:
            peer.websocket.deliver(messages)
        assert 200_000 < hub.queues.bytes - before < 201_000
        for peer in peers:
            peer.websocket.lost()
        assert hub.queues.bytes == 0


def test_the_longest_queues_are_given_up_when_all_together_take_too_much(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Home(options=HubOptions(max_total_queue_bytes=1_050_000)) as hub:
        short = hub.peer(small_buffers=True)
        long = [hub.peer(small_buffers=True) for _ in range(3)]
        short.websocket.send_message(b's' * 100_000)
        for number, peer in enumerate(long):
            fill(peer)
            for _ in range(3):
                peer.websocket.send_message(b'%d' % number + b'l' * 99_999)
        hub.turn()
        assert hub.queues.bytes <= 1_050_000
        assert all(peer.websocket.phase is Phase.OPEN for peer in (short, *long))
        long[1].websocket.send_message(b'x' * 200_000)
        hub.turn()
        assert 'hold 1' in caplog.text
        assert long[1].websocket.phase is Phase.CLOSING
        assert short.websocket.phase is long[0].websocket.phase is Phase.OPEN
        assert hub.statistics.messages_not_delivered[1013] >= 4
        # What was begun is finished.
        *messages, close = frames_until_close(hub, long[1])
        assert close.close_code == CloseCode.TRY_AGAIN_LATER
        assert {len(message.payload) for message in messages} == {1000}
        while not short.messages():
            hub.turn()


def test_what_is_given_up_while_it_closes_is_reset() -> None:
    with Home(options=HubOptions(max_total_queue_bytes=100_000)) as hub:
        peer = hub.peer(tcp=True, small_buffers=True)
        fill(peer)
        peer.websocket.send_message(b'x' * 200_000)
        peer.websocket.close(1001)
        hub.turn()
        assert closed(peer)[0] == 1001
        assert hub.queues.bytes == 0
        with pytest.raises(ConnectionResetError):
            while peer.socket.recv(100_000):
                pass


def test_what_waits_for_the_socket_of_a_handshake_counts_as_well() -> None:
    with Home(options=HubOptions(max_total_queue_bytes=100_000)) as hub:
        peer = hub.peer(attached=False)
        peer.websocket.send_message(b'x' * 200_000)
        hub.turn()
        assert peer.websocket.phase is Phase.CLOSED
        assert hub.queues.bytes == 0


# Closing


def test_a_peer_that_has_ended_its_half_gets_what_is_queued_for_it(hub: Home) -> None:
    peer = hub.peer(small_buffers=True)
    count = fill_more(peer)
    peer.websocket.send_message(b'last')
    peer.socket.shutdown(socket.SHUT_WR)
    hub.turn(2)
    assert peer.websocket.phase is Phase.ENDING
    frames = peer.frames_until_end()
    assert len(frames) == count + 1
    assert frames[-1].payload == b'last'
    peer.socket.close()
    hub.turn_until(lambda: peer.receiver.closed)
    assert closed(peer) == (1006, '')
    assert hub.statistics.messages_sent == count + 1
    assert hub.statistics.messages_dropped == 0


def test_a_peer_that_has_ended_its_half_and_reads_nothing_is_given_up() -> None:
    clock = Clock()
    with Home(clock=clock, options=HubOptions(close_timeout_seconds=5)) as hub:
        peer = hub.peer(tcp=True, small_buffers=True)
        fill_more(peer)
        peer.socket.shutdown(socket.SHUT_WR)
        hub.turn(2)
        assert peer.receiver.closed == []
        clock.advance(5.1)
        hub.turn()
        assert closed(peer)[0] == 1006
        assert hub.statistics.messages_dropped > 0


def test_our_close_waits_for_the_peers(hub: Home) -> None:
    peer = hub.peer()
    peer.websocket.close(4001, 'as asked')
    hub.turn()
    [close] = peer.frames()
    assert (close.close_code, close.close_reason) == (4001, 'as asked')
    assert peer.websocket.phase is Phase.CLOSING
    assert peer.receiver.closed == []
    peer.send_close(4001)
    assert peer.frames_until_end() == []
    peer.socket.close()
    hub.turn_until(lambda: peer.receiver.closed)
    assert closed(peer) == (4001, '')
    assert hub.open_count == 0


def test_the_peers_close_is_echoed_and_told_with_its_reason(hub: Home) -> None:
    peer = hub.peer()
    peer.send_close(4002, 'I leave')
    [close] = peer.frames_until_end()
    assert close.close_code == 4002
    peer.socket.close()
    hub.turn_until(lambda: peer.receiver.closed)
    assert closed(peer) == (4002, 'I leave')


def test_messages_before_a_close_in_the_same_read_are_received(hub: Home) -> None:
    peer = hub.peer()
    frames = encode_frame(TEXT, b'one') + encode_frame(CLOSE, struct.pack('!H', 1000))
    peer.send_bytes(frames + encode_frame(TEXT, b'too late'))
    hub.turn()
    assert peer.receiver.messages == [(Opcode.TEXT, b'one')]


def test_messages_that_arrive_after_our_close_are_dropped(hub: Home) -> None:
    peer = hub.peer()
    peer.websocket.close(1000)
    peer.send('late')
    peer.send_close()
    assert peer.receiver.messages == []


def test_after_the_close_frame_our_end_is_shut_and_the_peers_rest_is_thrown_away(
    hub: Home,
) -> None:
    peer = hub.peer(tcp=True)
    # A close frame and unread input behind it: closing the socket now would send a reset.
    peer.send_bytes(
        encode_frame(CLOSE, struct.pack('!H', 1000)) + encode_frame(BINARY, b'x' * 100_000)
    )
    [close] = peer.frames_until_end()
    assert close.close_code == 1000
    peer.socket.close()
    hub.turn_until(lambda: peer.receiver.closed)


def test_a_peer_that_lingers_after_the_close_is_given_up() -> None:
    clock = Clock()
    with Home(clock=clock) as hub:
        peer = hub.peer()
        peer.send_close()
        peer.frames_until_end()
        assert peer.receiver.closed == []
        clock.advance(2.1)
        hub.turn()
        assert closed(peer)[0] == 1000
        assert not peer.websocket.is_timed


def test_a_peer_that_does_not_answer_our_close_is_reset() -> None:
    clock = Clock()
    with Home(clock=clock, options=HubOptions(close_timeout_seconds=5)) as hub:
        peer = hub.peer(tcp=True)
        peer.websocket.close(1001)
        clock.advance(4.9)
        hub.turn()
        assert peer.receiver.closed == []
        clock.advance(0.2)
        hub.turn()
        assert closed(peer)[0] == 1001
        peer.socket.settimeout(SOON_SECONDS)
        with pytest.raises(ConnectionResetError):
            while peer.socket.recv(1000):
                pass


def test_a_peer_that_does_not_take_our_close_frame_is_reset() -> None:
    clock = Clock()
    with Home(clock=clock, options=HubOptions(close_timeout_seconds=5)) as hub:
        peer = hub.peer(tcp=True, small_buffers=True)
        fill(peer)
        peer.websocket.close(1001)
        clock.advance(5.1)
        hub.turn()
        assert closed(peer)[0] == 1001
        assert hub.statistics.messages_dropped > 0
        peer.socket.settimeout(SOON_SECONDS)
        with pytest.raises(ConnectionResetError):
            while peer.socket.recv(100_000):
                pass


def test_what_is_queued_goes_out_before_the_close_frame(hub: Home) -> None:
    peer = hub.peer(small_buffers=True)
    count = fill(peer)
    peer.websocket.close(1012)
    frames: list[Frame] = []
    while not frames or frames[-1].opcode != CLOSE:
        frames += peer.frames()
        hub.turn()
    assert len(frames) == count + 1


@pytest.mark.parametrize(
    ('frame', 'code'),
    [
        (encode_frame(TEXT, b'unmasked', mask=None), 1002),
        (encode_frame(TEXT, b'\xff'), 1007),
        (encode_frame(BINARY, b'x' * 1001), 1009),
    ],
    ids=['unmasked', 'no UTF-8', 'too big'],
)
def test_a_violation_is_answered_with_its_close_code(frame: bytes, code: int) -> None:
    with Home(options=HubOptions(limits=Limits(max_message_size=1000))) as hub:
        peer = hub.peer()
        peer.send_bytes(frame)
        [close] = peer.frames_until_end()
        assert close.close_code == code
        peer.socket.close()
        hub.turn_until(lambda: peer.receiver.closed)
        assert closed(peer)[0] == code


@pytest.mark.parametrize('how', ['closes', 'resets'])
def test_a_peer_that_leaves_without_a_word_ends_with_1006(hub: Home, how: str) -> None:
    peer = hub.peer(tcp=True)
    if how == 'resets':
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    peer.socket.close()
    hub.turn_until(lambda: peer.receiver.closed)
    assert closed(peer) == (1006, '')
    assert peer.websocket.sock is None
    assert hub.open_count == 0
    assert hub.statistics.closes == {1006: 1}


def test_sending_to_a_peer_that_has_gone_ends_the_websocket(hub: Home) -> None:
    peer = hub.peer(tcp=True)
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    peer.socket.close()
    while not peer.receiver.closed:
        peer.websocket.send_message(b'anybody there?')
    assert closed(peer)[0] == 1006
    peer.websocket.send_message(b'still sent')
    peer.websocket.close()
    hub.turn()
    assert len(peer.receiver.closed) == 1


def test_closed_during_its_handshake_it_takes_no_socket(hub: Home) -> None:
    peer = hub.peer(attached=False)
    peer.websocket.close(1012, 'restart')
    assert closed(peer) == (1012, 'restart')
    peer.attach()
    assert peer.websocket.phase is Phase.CLOSED
    assert peer.ours.fileno() == -1
    assert hub.open_count == 0
    assert sum(hub.statistics.closes.values()) == 0


def test_an_exception_of_our_own_closes_that_websocket_alone_with_1011(
    hub: Home, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(RecordingReceiver):
        def receive_message(self, websocket: Any, opcode: Opcode, payload: bytes) -> None:
            raise RuntimeError('broken receiver')

    broken, other = hub.peer(receiver=Broken()), hub.peer()
    broken.send('hello')
    other.send('hello')
    [close] = broken.frames()
    assert close.close_code == CloseCode.INTERNAL_ERROR
    assert close.close_reason == ''
    assert 'broken receiver' in caplog.text
    assert other.receiver.messages == [(Opcode.TEXT, b'hello')]


# Pauses


def test_a_paused_websocket_is_not_read_until_all_reasons_are_gone(hub: Home) -> None:
    peer = hub.peer()
    peer.websocket.pause_reading(Paused.REDIS)
    peer.websocket.pause_reading(Paused.RECEIVER)
    peer.send('waits')
    peer.websocket.resume_reading(Paused.REDIS)
    hub.turn(3)
    assert peer.receiver.messages == []
    peer.websocket.resume_reading(Paused.RECEIVER)
    hub.turn()
    assert peer.receiver.messages == [(Opcode.TEXT, b'waits')]


def test_paused_during_its_handshake_it_is_not_read_when_it_opens(hub: Home) -> None:
    peer = hub.peer(attached=False)
    peer.websocket.pause_reading(Paused.RECEIVER)
    peer.attach()
    peer.send('waits')
    hub.turn()
    assert peer.receiver.messages == []
    peer.websocket.resume_reading(Paused.RECEIVER)
    hub.turn()
    assert peer.receiver.messages


def test_a_paused_websocket_is_sent_what_it_is_due(hub: Home) -> None:
    peer = hub.peer(small_buffers=True)
    peer.websocket.pause_reading(Paused.REDIS)
    count = fill(peer)
    messages: list[str | bytes] = []
    while len(messages) < count:
        messages += peer.messages()
        hub.turn()


def test_a_paused_websocket_whose_peer_has_gone_ends_and_does_not_keep_the_loop_busy(
    hub: Home,
) -> None:
    peer = hub.peer()
    peer.websocket.pause_reading(Paused.REDIS)
    peer.socket.close()
    hub.turn_until(lambda: peer.receiver.closed)


def test_a_paused_websocket_that_is_closed_reads_the_peers_close_frame(hub: Home) -> None:
    peer = hub.peer()
    peer.websocket.pause_reading(Paused.REDIS)
    peer.websocket.close(1012)
    peer.send_close(1012)
    assert [f.opcode for f in peer.frames_until_end()] == [CLOSE]


# Deliveries that are held back, and own messages


def test_held_deliveries_follow_what_the_subscriber_sent_without_repeating_it(
    hub: Home,
) -> None:
    peer = hub.peer()
    websocket = peer.websocket
    websocket.hold()
    for payload in (b'kept', b'live', b'kept'):
        websocket.deliver(Messages.of([payload]))
    websocket.send_message(b'kept')
    assert peer.messages() == ['kept']
    websocket.release_held([b'kept'])
    websocket.deliver(Messages.of([b'later']))
    assert peer.messages() == ['live', 'kept', 'later']
    assert websocket.direct


def test_what_is_held_back_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    with small_bound() as hub:
        peer = hub.peer()
        peer.websocket.hold()
        for _ in range(10):
            peer.websocket.deliver(Messages.of([b'x' * 1000]))
        assert peer.websocket.phase is Phase.OPEN
        peer.websocket.deliver(Messages.of([b'x' * 1000]))
        [close] = peer.frames()
        assert close.close_code == CloseCode.TRY_AGAIN_LATER
        assert hub.statistics.messages_not_delivered == {1013: 11}
        assert '11 messages were not delivered' in caplog.text
        peer.websocket.release_held([])


def test_what_is_held_back_at_the_end_was_not_delivered(hub: Home) -> None:
    peer = hub.peer()
    peer.websocket.hold()
    peer.websocket.deliver(Messages.of([b'one', b'two']))
    peer.websocket.lost()
    peer.websocket.release_held([])
    assert hub.statistics.messages_not_delivered == {1006: 2}


def test_without_echo_own_messages_are_left_out_of_a_batch(hub: Home) -> None:
    peer = hub.peer(publishes=('broadcast:x',))
    hub.join_names(peer.websocket, ['broadcast:x'], lambda: None)
    peer.websocket.remember_own(b'mine', ('broadcast:x',))
    payloads = [b'a', b'mine', b'b']
    peer.websocket.deliver(Messages.of(payloads))
    assert peer.messages() == ['a', 'b']


def test_with_echo_nothing_is_remembered(hub: Home) -> None:
    peer = hub.peer(echo=True)
    peer.websocket.remember_own(b'mine', ('broadcast:x',))
    assert peer.websocket.own is None
    assert peer.websocket.direct


def test_its_representation_names_descriptor_and_phase(hub: Home) -> None:
    peer = hub.peer()
    assert repr(peer.websocket) == f'<WebSocket fd={peer.ours.fileno()} OPEN>'


def test_nothing_is_logged_about_a_well_behaved_websocket(
    hub: Home, caplog: pytest.LogCaptureFixture
) -> None:
    peer = hub.peer()
    peer.send('hello')
    peer.send_close()
    peer.frames_until_end()
    assert [r for r in caplog.records if r.levelno > logging.INFO] == []


def test_a_websocket_that_is_to_be_closed_when_open_sends_what_was_queued_first() -> None:
    with Home() as hub:
        peer = hub.peer(attached=False)
        peer.websocket.send_message(b'welcome')
        peer.websocket.close_when_open(4000, 'at once')
        peer.websocket.close_when_open(4001, 'too late')
        assert not peer.receiver.closed
        peer.attach()
        hub.turn()
        frames = peer.frames()
        assert [frame.payload for frame in frames] == [b'welcome', close_payload(4000, 'at once')]
        # An open one is closed now.
        other = hub.peer()
        other.websocket.close_when_open(4002, '')
        assert [frame.payload for frame in other.frames()] == [close_payload(4002)]
