"""Event streams, as ``EventSource`` in a browser reads them (HTML standard, section 9.2).

Text goes out as it is, line by line; anything else as an event ``binary`` whose data are base64.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Final

from ws4redis.protocol.connection import State
from ws4redis.protocol.frames import CloseCode, Opcode
from ws4redis.protocol.utf8 import is_valid_utf8
from ws4redis.protocol.wire import WireFormat

MEDIA_TYPE: Final = 'text/event-stream'
#: A comment, which keeps proxies from thinking that the stream is dead.
PING: Final = b':\n\n'

_END: Final = b'\n\n'
_LINE_BREAK: Final = re.compile(rb'\r\n|\r|\n')


def wants_event_stream(method: str, headers: Mapping[str, str]) -> bool:
    """Tell whether a request asks for an event stream; ``headers`` has lower-case names."""
    accepted = (item.partition(';')[0].strip() for item in headers.get('accept', '').split(','))
    return method == 'GET' and MEDIA_TYPE in accepted and 'upgrade' not in headers


def response_headers(origin: str | None, *, media_type: str = MEDIA_TYPE) -> list[tuple[str, str]]:
    """Return the headers of a stream; ``origin`` is that of a page that may read it."""
    return [
        ('Content-Type', f'{media_type}; charset=utf-8'),
        # Apache's mod_deflate would hold events back as long as it has not enough of them.
        ('Cache-Control', 'no-cache, no-transform'),
        # NGINX passes on at once what comes.
        ('X-Accel-Buffering', 'no'),
        ('Connection', 'close'),
        *cors_headers(origin),
    ]


def cors_headers(origin: str | None) -> list[tuple[str, str]]:
    """Return what lets a page of another origin read an answer, its cookies being sent."""
    if origin is None:
        return []
    return [
        ('Access-Control-Allow-Origin', origin),
        ('Access-Control-Allow-Credentials', 'true'),
        ('Vary', 'Origin'),
    ]


def encode_event(data: bytes, *, name: str = '', event_id: str | None = None) -> bytes:
    """Return one event. ``data`` are UTF-8; ``event_id`` comes back in ``Last-Event-ID``."""
    lines = [b'data: ' + line for line in _LINE_BREAK.split(data)]
    if name:
        lines.insert(0, b'event: ' + name.encode())
    if event_id is not None:
        lines.insert(0, b'id: ' + event_id.encode())
    return b'\n'.join(lines) + _END


def encode_id(event_id: str) -> bytes:
    """Return what names a position without a message; scripts see the ids of events only."""
    return encode_event(b'', name='position', event_id=event_id)


def encode_retry(milliseconds: int) -> bytes:
    """Return what says after how long a client that lost its stream comes back."""
    return b'retry: %d' % milliseconds + _END


class EventStreamWire(WireFormat):
    """Encode messages as events."""

    __slots__ = ()

    def encode_message(
        self, payload: bytes, opcode: Opcode | None = None, *, event_id: str | None = None
    ) -> bytes:
        is_text = is_valid_utf8(payload) if opcode is None else opcode is Opcode.TEXT
        if is_text:
            return encode_event(payload, event_id=event_id)
        return encode_event(b64encode(payload), name='binary', event_id=event_id)

    def unit_ends(self, data: bytes | memoryview) -> Iterator[int]:
        whole = bytes(data)
        end = whole.find(_END)
        while end >= 0:
            yield end + len(_END)
            end = whole.find(_END, end + len(_END))


class EventStreamConnection:
    """The protocol's state of an event stream, in the terms of a websocket's."""

    __slots__ = ('close_code', 'close_reason', 'close_sent_code', 'outgoing', 'state')

    has_more = False
    inflated_bytes = 0

    def __init__(self) -> None:
        self.state = State.OPEN
        self.close_code: int | None = None
        self.close_sent_code: int | None = None
        self.close_reason = ''
        self.outgoing = b''

    def receive_data(self, data: bytes) -> list[tuple[Opcode, bytes]]:
        """Pass over what a client sends: there is nothing that it could say."""
        return []

    def receive_eof(self) -> None:
        """Take the end of the client."""
        if self.state is State.OPEN:
            self.state = State.CLOSED
            self.close_code = CloseCode.ABNORMAL_CLOSURE

    def send_close(self, code: int, reason: str = '') -> None:
        """Say goodbye; nothing is expected in return."""
        if self.state is State.OPEN:
            self.state = State.CLOSED
            self.close_sent_code = int(code)
            self.close_reason = reason
            self.outgoing += self.encode_farewell(int(code), reason)

    def encode_farewell(self, code: int, reason: str) -> bytes:
        """Return the last that a client is told."""
        return encode_event(json.dumps({'code': code, 'reason': reason}).encode(), name='close')

    def data_to_send(self) -> bytes:
        """Return what is to be written now."""
        data, self.outgoing = self.outgoing, b''
        return data
