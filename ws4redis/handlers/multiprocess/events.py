"""What passes through the streams.

An entry of a stream holds any number of events, as pairs of its kind and its content, in order: so
one command carries all that came up in a turn. The content is a line of words, then the payload.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Kind(bytes, Enum):
    """The kinds of events, and of answers."""

    # From a server to a worker: words are the server, the websocket and the event's number.
    OPEN = b'open'  # payload: sealed JSON: the handler, the request, the named groups
    TEXT = b'text'
    BINARY = b'binary'
    END = b'end'  # payload: the close code and the reason
    REPORT = b'report'  # tell the state of all websockets of this server

    # From a worker to a server: words are the worker, the websocket and the answer's number.
    ACCEPT = b'accept'  # payload: sealed JSON: the user to count, the identity
    REFUSE = b'refuse'  # payload: HTTP status and sentence
    SEND_TEXT = b'send-text'
    SEND_BINARY = b'send-binary'
    CLOSE = b'close'  # payload: code and reason
    SEEN = b'seen'  # the number is that of the last event that was seen to its end
    STATE = b'state'  # payload: websockets, each with the number of its last answer


class Event(NamedTuple):
    """One event or answer: ``peer`` is who sent it."""

    kind: bytes
    peer: str
    websocket: int
    number: int
    payload: bytes = b''

    def content(self) -> bytes:
        """Return what stands in the stream beside the kind."""
        return b'%s %d %d\n%s' % (self.peer.encode(), self.websocket, self.number, self.payload)


def parse(kind: bytes, content: bytes) -> Event:
    """Read an event from a stream; raise ``ValueError`` if it is none."""
    words, _, payload = content.partition(b'\n')
    peer, websocket, number = words.split(b' ')
    return Event(kind, peer.decode(), int(websocket), int(number), payload)


def pack_code(code: int, text: str) -> bytes:
    """Return a code (of a close frame, of HTTP) with its text as a payload."""
    return b'%d %s' % (code, text.encode())


def unpack_code(payload: bytes) -> tuple[int, str]:
    """Read what :func:`pack_code` wrote."""
    code, _, text = payload.partition(b' ')
    return int(code), text.decode()
