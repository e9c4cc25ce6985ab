"""Websockets whose end is found out while a message is delivered to many."""

from __future__ import annotations

import pytest

from tests.hub.rig import Home
from ws4redis.broker.keys import keys_of
from ws4redis.hub.channel import Channel
from ws4redis.hub.options import HubOptions
from ws4redis.hub.publication import Publication
from ws4redis.hub.websocket import Phase, WebSocket
from ws4redis.protocol.frames import Opcode


class FailsAtTheEnd:
    def receive_message(self, websocket: WebSocket, opcode: Opcode, payload: bytes) -> None:
        pass

    def websocket_drained(self, websocket: WebSocket) -> None:
        pass

    def websocket_closing(self, websocket: WebSocket, code: int, reason: str) -> None:
        raise RuntimeError('the beginning of the end')

    def websocket_closed(self, websocket: WebSocket, code: int, reason: str) -> None:
        raise RuntimeError('the end of one')


def test_a_receiver_that_fails_at_the_end_keeps_no_message_from_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Home() as hub:
        hub.turn(2)
        channel = Channel(keys_of(b'broadcast:foo'))
        broken = hub.peer(receiver=FailsAtTheEnd())
        others = [hub.peer() for _ in range(10)]
        hub.turn(2)
        for peer in (broken, *others):
            channel.add(peer.websocket)
        broken.socket.close()
        hub.fanout.arrive(channel, Publication(b'message'))
        hub.fanout.turn_end()
        assert [peer.messages() for peer in others] == [['message']] * 10
        assert 'RuntimeError: the end of one' in caplog.text
        assert hub.open_count == 10


def test_a_receiver_that_fails_at_an_overflow_keeps_no_message_from_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Home(options=HubOptions(max_queue_bytes=10_000)) as hub:
        channel = Channel(keys_of(b'broadcast:foo'))
        slow = hub.peer(receiver=FailsAtTheEnd(), small_buffers=True)
        others = [hub.peer() for _ in range(10)]
        for peer in (slow, *others):
            channel.add(peer.websocket)
        while slow.websocket.phase is Phase.OPEN:
            hub.fanout.arrive(channel, Publication(b'x' * 2000))
            hub.fanout.turn_end()
            assert [len(peer.messages()) for peer in others] == [1] * 10
        assert 'RuntimeError: the beginning of the end' in caplog.text
        assert slow.websocket.is_timed
