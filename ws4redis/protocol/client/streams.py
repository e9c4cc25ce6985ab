"""How the client protocol is spoken where websockets are blocked.

The server's half is a response that does not end: server-sent events, or lines of JSON. What a
client says after its first command comes in requests of its own, each of which names a stream by
its session: that is called emulation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from ws4redis.exceptions import HandshakeError, MalformedCommand
from ws4redis.protocol.client.commands import CommandLimits, decode_commands
from ws4redis.protocol.client.replies import encode_frame, encode_push
from ws4redis.protocol.event_stream import MEDIA_TYPE, EventStreamConnection, EventStreamWire
from ws4redis.protocol.frames import Opcode
from ws4redis.protocol.wire import WireFormat

#: What a request of a client may hold.
MAX_BODY_BYTES: Final = 64 * 1024


class LinesWire(WireFormat):
    """Encode messages as lines."""

    __slots__ = ()

    def encode_message(self, payload: bytes, opcode: Opcode | None = None) -> bytes:
        return payload + b'\n'

    def unit_ends(self, data: bytes | memoryview) -> Iterator[int]:
        whole = bytes(data)
        end = whole.find(b'\n')
        while end >= 0:
            yield end + 1
            end = whole.find(b'\n', end + 1)


class StreamKind(NamedTuple):
    """A way to carry the server's half: ``method`` is that of the request that asks for it."""

    method: str
    media_type: str
    wire: WireFormat


SSE: Final = StreamKind('GET', MEDIA_TYPE, EventStreamWire())
HTTP_STREAM: Final = StreamKind('POST', 'application/json', LinesWire())


class ClientStreamConnection(EventStreamConnection):
    """The protocol's state of a stream, which says goodbye by a push: it has no close frame."""

    __slots__ = ('_wire',)

    def __init__(self, wire: WireFormat) -> None:
        super().__init__()
        self._wire = wire

    def encode_farewell(self, code: int, reason: str) -> bytes:
        push = encode_push('disconnect', {'code': code, 'reason': reason})
        return self._wire.encode_message(encode_frame([push]), Opcode.TEXT)


def check_opening(data: bytes, limits: CommandLimits) -> None:
    """Check that what opens a stream is the command ``connect``, and no more.

    Any page may make a browser ask for a URL: nothing may be done by that alone. Raise
    ``HandshakeError`` 400.
    """
    try:
        methods = [command.method for command in decode_commands(data, limits)]
    except MalformedCommand as error:
        raise HandshakeError(400, f'These are no commands: {error.reason}.') from None
    if methods != ['connect']:
        raise HandshakeError(400, 'A stream begins with one command, connect.')


class EmulatedFrame(NamedTuple):
    """What a client says on a stream: as a frame of a websocket would say it."""

    session: str
    node: str
    data: bytes


def decode_emulated(body: bytes) -> EmulatedFrame:
    """Decode the body of a request of emulation; raise ``HandshakeError`` 400."""
    try:
        content: Any = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise HandshakeError(400, 'The body of the request is no JSON object.')
    session, node, data = (content.get(name) for name in ('session', 'node', 'data'))
    if not (isinstance(session, str) and isinstance(node, str) and isinstance(data, str)):
        raise HandshakeError(400, 'The request needs the texts session, node and data.')
    try:
        return EmulatedFrame(session, node, data.encode())
    except UnicodeEncodeError:
        raise HandshakeError(400, 'The data of the request are no text.') from None
