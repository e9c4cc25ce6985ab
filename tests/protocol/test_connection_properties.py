"""What holds for any messages, any fragments, any reads, and any bytes at all."""

from __future__ import annotations

import sys
import zlib
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.protocol.client_frames import client_frame, header
from ws4redis.protocol.connection import Event, Limits, ServerConnection, State
from ws4redis.protocol.extensions import Compression, negotiate
from ws4redis.protocol.frames import Opcode

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = Opcode

_, DEFLATE = negotiate('permessage-deflate', Compression(enabled=True))

pytestmark = pytest.mark.usefixtures('each_masking')

# The fixture only replaces a function: it need not be renewed for each example.
any_masking = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@dataclass
class Sent:
    """Messages and control frames as a client may send them, and what is to become of them."""

    data: bytes
    events: list[Event]


@st.composite
def conversations(draw: st.DrawFn) -> Sent:
    data = b''
    events: list[Event] = []
    for _ in range(draw(st.integers(0, 4))):
        opcode = draw(st.sampled_from([TEXT, BINARY]))
        payload = draw(st.text(max_size=200).map(str.encode) if opcode is TEXT else st.binary())
        payload *= draw(st.sampled_from([1, 1, 1, 30]))
        compressed = draw(st.booleans())
        body = _deflate(payload) if compressed else payload
        cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=4)))
        pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        for index, piece in enumerate(pieces):
            is_last = index == len(pieces) - 1
            data += client_frame(
                opcode if index == 0 else CONTINUATION,
                piece,
                final=is_last,
                rsv=4 if compressed and index == 0 else 0,
                mask=draw(st.binary(min_size=4, max_size=4)),
            )
            if is_last:
                events.append((opcode, payload))
            if draw(st.booleans()):
                control = draw(st.sampled_from([PING, PONG]))
                content = draw(st.binary(max_size=125))
                data += client_frame(control, content)
                events.append((control, content))
    return Sent(data, events)


def _deflate(payload: bytes) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def reads(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted(min(cut, len(data)) for cut in cuts)
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@any_masking
@given(sent=conversations(), cuts=st.lists(st.integers(0, 3000), max_size=10))
def test_any_fragments_in_any_reads_yield_the_same_events(sent: Sent, cuts: list[int]) -> None:
    connection = ServerConnection(Limits(), deflate=DEFLATE)
    events = [event for read in reads(sent.data, cuts) for event in connection.receive_data(read)]
    assert events == sent.events
    assert connection.state is State.OPEN
    pongs = b''.join(b'\x8a%c' % len(p) + p for opcode, p in sent.events if opcode is PING)
    assert connection.data_to_send() == pongs


@any_masking
@given(sent=conversations())
def test_byte_by_byte_the_events_are_the_same(sent: Sent) -> None:
    connection = ServerConnection(Limits(), deflate=DEFLATE)
    events = [event for byte in sent.data for event in connection.receive_data(bytes([byte]))]
    assert events == sent.events


SMALL_LIMITS = Limits(max_message_size=500, max_fragments=10, max_queued_pong_bytes=300)

frames = st.builds(
    client_frame,
    st.integers(0, 15),
    st.binary(max_size=300),
    final=st.booleans(),
    rsv=st.sampled_from([0, 0, 0, 4, 4, 1, 7]),
    mask=st.sampled_from([b'\0\0\0\0', b'abcd', b'abcd', None]),
    length_bytes=st.sampled_from([None, None, None, 2, 8]),
)
headers = st.builds(header, st.integers(0, 255), st.integers(0, 1 << 63), length_bytes=st.just(8))
garbage = st.lists(st.one_of(frames, headers, st.binary(max_size=400)), max_size=8)


@any_masking
@given(pieces=garbage, cuts=st.lists(st.integers(0, 2000), max_size=6), deflate=st.booleans())
def test_any_bytes_at_all_never_raise_and_never_hold_more_than_the_limits(
    pieces: list[bytes], cuts: list[int], deflate: bool
) -> None:
    connection = ServerConnection(SMALL_LIMITS, deflate=DEFLATE if deflate else None)
    events: list[Event] = []
    for read in reads(b''.join(pieces), cuts):
        events += connection.receive_data(read)
        assert held_bytes(connection) < 4000
    for opcode, payload in events:
        assert len(payload) <= 500
        if opcode is TEXT:
            payload.decode()
    is_closed = connection.state is State.CLOSED
    assert [opcode for opcode, _ in events].count(CLOSE) == is_closed
    if is_closed:
        assert events[-1][0] is CLOSE
        assert connection.close_sent_code is not None
        assert connection.receive_data(b'\x81\x80\0\0\0\0') == []
    connection.receive_eof()
    assert connection.close_code is not None


def held_bytes(thing: object) -> int:
    """Return the memory of a connection and of what is its own, zlib's state left out."""
    if isinstance(thing, bytes | bytearray):
        return sys.getsizeof(thing)
    if not type(thing).__module__.startswith('ws4redis.protocol') or thing is DEFLATE:
        return 0
    if isinstance(thing, Limits):
        return 0
    names = [name for name in getattr(thing, '__slots__', ()) if name != '__weakref__']
    return sys.getsizeof(thing) + sum(held_bytes(getattr(thing, name)) for name in names)
