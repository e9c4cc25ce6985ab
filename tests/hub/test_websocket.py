"""One websocket over a socketpair: its messages, its pauses, what is held back."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.hub.rig import Home, fill, small_bound
from tests.websocket_client import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT
from ws4redis.hub.messages import Messages
from ws4redis.hub.websocket import Paused, Phase
from ws4redis.protocol.frames import CloseCode, Opcode


@pytest.fixture
def hub() -> Iterator[Home]:
    with Home() as hub:
        yield hub


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
