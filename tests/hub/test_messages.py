"""Messages for many websockets, known by their payloads alone or with more."""

import pytest

from ws4redis.broker.history import Kind
from ws4redis.hub.clients.wire import client_wire, encoded_as_text
from ws4redis.hub.event_stream import OwnStreamWire, shared_wire
from ws4redis.hub.messages import HeldBack, Messages
from ws4redis.hub.publication import Publication, Published
from ws4redis.protocol.wire import PLAIN, WireFormat, deflate_wire

CHANNEL = b'chat:broadcast'
PAYLOAD = b'{"text": "hello hello hello hello hello"}'

wires = pytest.mark.parametrize(
    'wire',
    [PLAIN, deflate_wire(15, 6, 16), client_wire(PLAIN, ''), shared_wire(), OwnStreamWire({})],
    ids=lambda wire: type(wire).__name__,
)


@wires
def test_a_payload_alone_goes_out_as_a_publication_of_which_nothing_else_is_known(
    wire: WireFormat,
) -> None:
    alone = Messages([PAYLOAD], CHANNEL)
    assert alone.framed(wire).data == Messages([Publication(PAYLOAD)], CHANNEL).framed(wire).data


@wires
def test_payloads_and_publications_go_out_together_in_their_order(wire: WireFormat) -> None:
    published: list[Published] = [
        PAYLOAD,
        Publication(PAYLOAD, Kind.JSON),
        b'\xff',
        Publication(b''),
    ]
    together = Messages(published, CHANNEL).framed(wire)
    one_by_one = [Messages([each], CHANNEL).framed(wire).data for each in published]
    assert together.data == b''.join(one_by_one)
    assert together.messages == 4


def test_own_messages_are_recognised_whatever_else_is_known_of_them() -> None:
    both = Messages([PAYLOAD, Publication(PAYLOAD), b'another'], CHANNEL)
    assert both.marks[0] == both.marks[1] != both.marks[2]


def test_what_is_held_back_counts_payloads_alone_too() -> None:
    held = HeldBack()
    held.add(Messages([b'12345', Publication(b'678', Kind.JSON)], CHANNEL))
    assert (held.count, held.bytes) == (2, 8)


def test_what_many_missed_is_encoded_once() -> None:
    made: list[bytes] = []

    def encode(publication: Publication) -> str:
        made.append(publication.payload)
        return publication.payload.decode()

    messages = Messages([b'one', Publication(b'two')])
    assert messages.encoded(encode) == messages.encoded(encode) == ('one', 'two')
    assert made == [b'one', b'two']
    assert messages.encoded(encoded_as_text) == ('{"data":"one"}', '{"data":"two"}')
