"""What one websocket, and all together, may queue for peers that do not take it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.hub.rig import Home, Peer, closed, fill, small_bound
from tests.websocket_client import CLOSE, TEXT, Frame
from ws4redis.hub.messages import Messages
from ws4redis.hub.options import HubOptions
from ws4redis.hub.websocket import Phase
from ws4redis.protocol.frames import CloseCode


@pytest.fixture
def hub() -> Iterator[Home]:
    with Home() as hub:
        yield hub


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
