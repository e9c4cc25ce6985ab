"""Event streams: what is written is what a browser reads."""

from __future__ import annotations

from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.event_stream_client import EventStreamParser, StreamEvent
from ws4redis.protocol.connection import State
from ws4redis.protocol.event_stream import (
    PING,
    EventStreamConnection,
    EventStreamWire,
    encode_id,
    encode_retry,
    response_headers,
    wants_event_stream,
)


@given(st.lists(st.text(), max_size=5), st.integers(1, 50))
def test_text_arrives_in_its_lines_however_it_is_cut(texts: list[str], size: int) -> None:
    wire = EventStreamWire()
    data = b''.join(wire.encode_message(text.encode()) for text in texts)
    parser = EventStreamParser()
    events = []
    for start in range(0, len(data), size):
        events += parser.feed(data[start : start + size])
    # A browser makes one kind of line break of all.
    lines = [text.replace('\r\n', '\n').replace('\r', '\n') for text in texts]
    assert events == [StreamEvent(text) for text in lines]
    ends = list(wire.unit_ends(data))
    assert len(ends) == len(texts)
    assert not ends or ends[-1] == len(data)


@given(st.binary())
def test_bytes_arrive_as_base64_unless_they_are_text(payload: bytes) -> None:
    (event,) = EventStreamParser().feed(EventStreamWire().encode_message(payload))
    if event.name == 'binary':
        assert b64decode(event.data) == payload
    else:
        assert payload.decode() is not None


def test_what_is_no_message_gives_none() -> None:
    parser = EventStreamParser()
    assert parser.feed(PING + encode_id('a.1.b') + encode_retry(2000)) == []
    assert (parser.comments, parser.last_event_id, parser.retry) == (1, 'a.1.b', 2000)


def test_a_close_says_why_and_expects_nothing() -> None:
    connection = EventStreamConnection()
    connection.send_close(1012, 'the server restarts')
    assert connection.state is State.CLOSED
    (event,) = EventStreamParser().feed(connection.data_to_send())
    assert event == StreamEvent('{"code": 1012, "reason": "the server restarts"}', 'close')
    assert connection.data_to_send() == b''
    connection.receive_eof()
    assert connection.close_sent_code == 1012


@pytest.mark.parametrize(
    ('method', 'headers', 'wanted'),
    [
        ('GET', {'accept': 'text/event-stream'}, True),
        ('GET', {'accept': 'text/html, text/event-stream;q=0.9'}, True),
        ('GET', {'accept': '*/*'}, False),
        ('GET', {}, False),
        ('POST', {'accept': 'text/event-stream'}, False),
        ('GET', {'accept': 'text/event-stream', 'upgrade': 'websocket'}, False),
    ],
)
def test_who_wants_a_stream_says_so(method: str, headers: dict[str, str], *, wanted: bool) -> None:
    assert wants_event_stream(method, headers) is wanted


def test_a_page_of_another_site_that_may_read_it_is_named() -> None:
    assert ('Access-Control-Allow-Origin', 'https://a') in response_headers('https://a')
    assert 'Access-Control-Allow-Origin' not in dict(response_headers(None))
