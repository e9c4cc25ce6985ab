"""Kept messages are framed once for all newcomers."""

from __future__ import annotations

import pytest

from tests.hub.rig import Home
from ws4redis.hub import kept
from ws4redis.hub.kept import KeptFrames
from ws4redis.protocol.frames import Opcode
from ws4redis.protocol.wire import PLAIN, WireFormat, deflate_wire


class CountingWire(WireFormat):
    """Count what is framed."""

    def __init__(self) -> None:
        self.framed: list[bytes] = []

    def encode_message(self, payload: bytes, opcode: Opcode | None = None) -> bytes:
        self.framed.append(payload)
        return super().encode_message(payload, opcode)


def test_a_kept_message_is_framed_once_for_all_newcomers() -> None:
    wire = CountingWire()
    with Home() as hub:
        for _ in range(20):
            peer = hub.peer(wire=wire)
            # Redis gives each its own copy.
            peer.websocket.send_kept(bytes(bytearray(b'x' * 5000)))
            assert peer.messages() == ['x' * 5000]
    assert len(wire.framed) == 1


def test_a_kept_message_is_framed_for_each_wire_format() -> None:
    frames = KeptFrames()
    deflating = deflate_wire(15, 6, 256)
    payload = b'x' * 5000
    for _ in range(2):
        assert frames.framed(PLAIN, payload).data == PLAIN.encode_message(payload)
        assert frames.framed(deflating, payload).data == deflating.encode_message(payload)


def test_the_frames_that_were_used_last_are_kept_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kept, 'MAX_CACHED_BYTES', 50_000)
    wire = CountingWire()
    frames = KeptFrames()
    payloads = [b'%d' % number + b'x' * 4999 for number in range(10)]
    for payload in payloads:
        frames.framed(wire, payload)
        frames.framed(wire, payloads[0])
    assert wire.framed == payloads
    frames.framed(wire, payloads[0])
    frames.framed(wire, payloads[-1])
    assert wire.framed == payloads
    frames.framed(wire, payloads[1])
    assert wire.framed == [*payloads, payloads[1]]
    assert frames._bytes <= 50_000
    # One that is larger than the bound is sent, and not remembered.
    assert frames.framed(wire, b'x' * 100_000).messages == 1
    assert frames._bytes == 0
