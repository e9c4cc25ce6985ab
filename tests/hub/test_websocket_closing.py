"""How a websocket ends, whoever ends it, over a socketpair."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hub.rig import Clock, Home, Peer, RecordingReceiver, closed, fill
from tests.timeouts import SOON_SECONDS
from tests.websocket_client import BINARY, CLOSE, TEXT, Frame, close_payload, encode_frame
from ws4redis.hub.options import HubOptions
from ws4redis.hub.websocket import Phase
from ws4redis.protocol.frames import CloseCode, Opcode
from ws4redis.protocol.limits import Limits


@pytest.fixture
def hub() -> Iterator[Home]:
    with Home() as hub:
        yield hub


def fill_more(peer: Peer) -> int:
    """Send more than the kernel will take while the peer does not read; return how many."""
    for _ in range(8):
        peer.websocket.send_message(b'x' * 100_000)
    assert peer.websocket.queued_bytes > 100_000
    return 8


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
