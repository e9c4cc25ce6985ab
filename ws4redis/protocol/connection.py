"""One websocket's side of the protocol: bytes in, messages and bytes out (RFC 6455).

A ``ServerConnection`` has no socket, no clock and no thread. Its owner hands it what was read,
sends what ``data_to_send`` returns, and closes the socket when the state is ``CLOSED``.

Two paths lead through ``receive_data``. Nearly all that browsers send are small messages, one frame
each, one frame per read: these take the *direct path*, a few comparisons and nothing kept. All else
(several frames in a read, frames in several reads, fragments, control frames, compressed messages,
errors) goes through ``_receive_frames``, which does the same in general.
"""

from __future__ import annotations

import logging
from enum import IntEnum
from typing import Final

from ws4redis.exceptions import ProtocolError
from ws4redis.protocol.deflate import inflate_message
from ws4redis.protocol.extensions import NegotiatedDeflate
from ws4redis.protocol.frames import (
    CloseCode,
    Opcode,
    close_payload,
    encode_frame,
    is_sendable_close_code,
)
from ws4redis.protocol.limits import Limits
from ws4redis.protocol.masking import apply_mask
from ws4redis.protocol.message import IncomingMessage
from ws4redis.protocol.utf8 import is_valid_utf8

__all__ = ['Event', 'Limits', 'ServerConnection', 'State']

logger = logging.getLogger('ws4redis.protocol')

#: An opcode and a payload.
Event = tuple[Opcode, bytes]


class State(IntEnum):
    """Say where a connection is in its life (RFC 6455, section 7.1).

    ``CLOSING``: a close frame was sent, the peer's has not arrived. ``CLOSED``: the closing
    handshake is complete, or the connection failed; send what is queued, then close the socket.
    """

    OPEN = 1
    CLOSING = 2
    CLOSED = 3


_OPEN: Final = State.OPEN
_CLOSED: Final = State.CLOSED
_CONTINUATION: Final = Opcode.CONTINUATION
_TEXT: Final = Opcode.TEXT
_BINARY: Final = Opcode.BINARY

_FINAL: Final = 0x80
_RSV1: Final = 0x40
_MASKED: Final = 0x80
_FINAL_TEXT: Final = _FINAL | _TEXT
_FINAL_BINARY: Final = _FINAL | _BINARY
_FIRST_CONTROL_OPCODE: Final = 0x8

#: Two bytes and the mask.
_SMALL_HEADER_BYTES: Final = 6

#: From here on a view is cheaper than a copy.
_LARGE_PIECE_BYTES: Final = 1024

#: Less than any payload's length: closes the direct path.
_NO_DIRECT_PATH: Final = -1

#: The first bytes that a frame may begin with: any fragment of a message, or a whole control frame.
_LEGAL_FIRST_BYTES: Final = frozenset({0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A})

#: With permessage-deflate also the first fragment of a compressed message (RFC 7692, section 6.1).
_LEGAL_FIRST_BYTES_WITH_DEFLATE: Final = _LEGAL_FIRST_BYTES | {0x41, 0x42, 0xC1, 0xC2}


class ServerConnection:
    """Run the protocol for one websocket, from the end of the opening handshake on.

    ``limits`` and ``deflate`` (what ``negotiate`` returned) are shared by many connections.

    ``state`` says how far it is. ``close_code`` and ``close_reason`` are what the connection closed
    with (RFC 6455, sections 7.1.5 and 7.1.6): the peer's close frame, 1005 for one without a code,
    1006 where there was none; ``None`` until then. ``close_sent_code`` is the code of our own close
    frame, ``None`` until there is one. ``has_more`` tells that something was left over because of
    ``Limits.max_frames_at_once``: call ``receive_data(b'')`` for it before there is more to read.
    ``outgoing`` is what ``data_to_send`` would return, ``inflated_bytes`` what
    ``take_inflated_bytes`` would.
    """

    __slots__ = (
        '_deflate',
        '_direct_bytes',
        '_limits',
        '_message',
        '_rest',
        'close_code',
        'close_reason',
        'close_sent_code',
        'has_more',
        'inflated_bytes',
        'outgoing',
        'state',
    )

    def __init__(self, limits: Limits, *, deflate: NegotiatedDeflate | None = None) -> None:
        self.state = _OPEN
        self.close_code: int | None = None
        self.close_reason = ''
        self.close_sent_code: int | None = None
        self._limits = limits
        self._deflate = deflate
        # The largest payload that may take the direct path; below 0 unless we are open and between
        # two messages.
        self._direct_bytes = limits.direct_bytes
        # The beginning of a frame whose header (or, for control frames, payload) is incomplete.
        self._rest = b''
        self._message: IncomingMessage | None = None
        self.outgoing = b''
        self.inflated_bytes = 0
        self.has_more = False

    def receive_data(self, data: bytes) -> list[Event]:
        """Take what was read from the socket and return the messages that it completes.

        Events are ``TEXT`` (its payload is valid UTF-8), ``BINARY``, ``PING``, ``PONG``, and at the
        very end one ``CLOSE``, with the payload of the peer's close frame, or of our own if the
        connection fails. Whatever the peer sends, nothing is raised. Pings, close frames and
        violations are answered: send what ``data_to_send`` returns afterwards.
        """
        length = len(data) - _SMALL_HEADER_BYTES
        if 0 <= length <= self._direct_bytes and data[1] == length | _MASKED:
            first = data[0]
            if first == _FINAL_TEXT:
                payload = apply_mask(data[6:], data[2:6])
                if payload.isascii() or is_valid_utf8(payload):
                    return [(_TEXT, payload)]
            elif first == _FINAL_BINARY:
                return [(_BINARY, apply_mask(data[6:], data[2:6]))]
        events: list[Event] = []
        if self.state is not _CLOSED:
            try:
                self._receive_frames(self._rest + data if self._rest else data, events)
            except ProtocolError as error:
                self._fail(error, events)
            self._update_direct_path()
        return events

    def receive_eof(self) -> None:
        """Take the end of what the peer sends. Without a close frame it is an abnormal closure."""
        if self.state is not _CLOSED:
            logger.debug('connection ended without a close frame')
        self._close()
        self._update_direct_path()

    def send_close(self, code: int, reason: str = '') -> None:
        """Queue a close frame, unless one was sent before.

        The state becomes ``CLOSING``; messages that are still received are dropped. If the peer's
        close frame does not arrive in time, close the socket without it. Raises ``ValueError`` for
        a code that may not be sent.
        """
        if self.state is _OPEN:
            self._queue_close(close_payload(code, reason))
            self.close_sent_code = code
            self.state = State.CLOSING
            self._update_direct_path()

    def data_to_send(self) -> bytes:
        """Return the control frames that are to be sent, mostly ``b''``, and forget them."""
        data = self.outgoing
        if data:
            self.outgoing = b''
        return data

    def take_inflated_bytes(self) -> int:
        """Return by how many bytes messages grew when they were inflated, and forget it."""
        inflated_bytes = self.inflated_bytes
        if inflated_bytes:
            self.inflated_bytes = 0
        return inflated_bytes

    def _update_direct_path(self) -> None:
        is_idle = self.state is _OPEN and self._message is None and not self._rest
        self._direct_bytes = self._limits.direct_bytes if is_idle else _NO_DIRECT_PATH

    def _receive_frames(self, data: bytes, events: list[Event]) -> None:
        """Take frames apart (RFC 6455, section 5.2); keep what is incomplete."""
        self._rest = b''
        self.has_more = False
        limits = self._limits
        frames_left = limits.max_frames_at_once
        legal = _LEGAL_FIRST_BYTES if self._deflate is None else _LEGAL_FIRST_BYTES_WITH_DEFLATE
        position = 0
        end = len(data)
        while position < end:
            if not frames_left or self.inflated_bytes > limits.max_inflated_bytes_at_once:
                self.has_more = True
                break
            message = self._message
            if message is not None and message.remaining:
                stop = position + message.remaining
                message.receive(_piece(data, position, stop))
                position = min(stop, end)
                self._finish_frame(message, events)
                continue

            # A header is judged by as much of it as there is: errors are told early.
            first = data[position]
            if first not in legal:
                raise ProtocolError(CloseCode.PROTOCOL_ERROR, _describe_illegal(first))
            opcode = first & 0x0F
            is_control = opcode >= _FIRST_CONTROL_OPCODE
            if not is_control and (opcode == _CONTINUATION) is (message is None):
                raise ProtocolError(CloseCode.PROTOCOL_ERROR, _describe_misplaced(opcode))
            if end - position < 2:
                break
            length = data[position + 1] ^ _MASKED
            if length > 127:
                raise ProtocolError(CloseCode.PROTOCOL_ERROR, 'frame is not masked')
            mask_start = position + 2
            if length > 125:
                if is_control:
                    raise ProtocolError(CloseCode.PROTOCOL_ERROR, 'control frame is too long')
                mask_start = position + (4 if length == 126 else 10)
                if end < mask_start:
                    break
                length = _extended_length(data[position + 2 : mask_start])
            if message is not None and not is_control:
                message.check_frame(length)
            elif length > limits.max_message_size and not is_control:
                self._check_announced(length, is_compressed=bool(first & _RSV1))
            start = mask_start + 4
            stop = start + length
            if start > end or (is_control and stop > end):
                break
            mask = data[mask_start:start]
            frames_left -= 1

            if is_control:
                self._receive_control(opcode, apply_mask(data[start:stop], mask), events)
                if self.state is _CLOSED:
                    return
                position = stop
            elif first & _FINAL and message is None and stop <= end:
                payload = apply_mask(_piece(data, start, stop), mask)
                self._receive_whole(first, payload, events)
                position = stop
            else:
                if message is None:
                    message = self._begin_message(first)
                message.begin_frame(length, mask, is_last=bool(first & _FINAL))
                self._finish_frame(message, events)
                position = start
        self._rest = data[position:]

    def _check_announced(self, length: int, *, is_compressed: bool) -> None:
        if length > self._limits.max_received_bytes(compressed=is_compressed):
            raise ProtocolError(CloseCode.MESSAGE_TOO_BIG, 'message is too big')

    def _begin_message(self, first: int) -> IncomingMessage:
        opcode = _TEXT if first & 0x0F == _TEXT else _BINARY
        message = IncomingMessage(opcode, self._limits, compressed=bool(first & _RSV1))
        self._message = message
        return message

    def _finish_frame(self, message: IncomingMessage, events: list[Event]) -> None:
        """End the message if all of its last frame is there."""
        if message.is_last_frame and not message.remaining:
            payload = message.finish()
            self.inflated_bytes += message.inflated_bytes
            self._message = None
            if self.state is _OPEN:
                events.append((message.opcode, payload))

    def _receive_whole(self, first: int, payload: bytes, events: list[Event]) -> None:
        """Take a message that is one frame and all there."""
        if first & _RSV1:
            received_bytes = len(payload)
            payload = inflate_message(payload, self._limits.max_message_size)
            self.inflated_bytes += max(0, len(payload) - received_bytes)
        opcode = _TEXT if first & 0x0F == _TEXT else _BINARY
        if opcode is _TEXT and not (payload.isascii() or is_valid_utf8(payload)):
            raise ProtocolError(CloseCode.INVALID_PAYLOAD_DATA, 'text is not valid UTF-8')
        if self.state is _OPEN:
            events.append((opcode, payload))

    def _receive_control(self, opcode: int, payload: bytes, events: list[Event]) -> None:
        if opcode == Opcode.PING:
            self._queue_pong(payload)
            events.append((Opcode.PING, payload))
        elif opcode == Opcode.PONG:
            events.append((Opcode.PONG, payload))
        else:
            self._receive_close(payload)
            events.append((Opcode.CLOSE, payload))

    def _queue_pong(self, payload: bytes) -> None:
        pong = encode_frame(Opcode.PONG, payload)
        if len(self.outgoing) > self._limits.max_queued_pong_bytes:
            if self.state is not _OPEN:
                return  # Our close frame waits in there: what follows it counts less.
            self.outgoing = b''
        self.outgoing += pong

    def _receive_close(self, payload: bytes) -> None:
        """End the closing handshake (RFC 6455, sections 5.5.1 and 7.1.5)."""
        code, reason = _parse_close(payload)
        if self.state is _OPEN:
            # An empty close frame is answered by 1000, so that the peer learns how it ended.
            answer = CloseCode.NORMAL_CLOSURE if code == CloseCode.NO_STATUS_RECEIVED else code
            self._queue_close(close_payload(answer))
            self.close_sent_code = int(answer)
        self._close(code, reason)

    def _fail(self, error: ProtocolError, events: list[Event]) -> None:
        """Fail the connection (RFC 6455, section 7.1.7)."""
        logger.debug('failing the connection with %d: %s', error.close_code, error.reason)
        payload = close_payload(error.close_code, error.reason)
        if self.state is _OPEN:
            self._queue_close(payload)
            self.close_sent_code = error.close_code
        self._close()
        events.append((Opcode.CLOSE, payload))

    def _queue_close(self, payload: bytes) -> None:
        self.outgoing += encode_frame(Opcode.CLOSE, payload)

    def _close(self, code: int = CloseCode.ABNORMAL_CLOSURE, reason: str = '') -> None:
        """Let go of all that is incomplete; nothing more is received."""
        if self.state is not _CLOSED:
            self.state = _CLOSED
            self.close_code = int(code)
            self.close_reason = reason
            self._rest = b''
            self._message = None
            self.has_more = False


def _piece(data: bytes, start: int, stop: int) -> bytes | memoryview:
    """Return a part of what was read; a large one is not copied only to be unmasked."""
    if stop - start < _LARGE_PIECE_BYTES:
        return data[start:stop]
    return memoryview(data)[start:stop]


def _extended_length(encoded: bytes) -> int:
    """Decode a length of 2 or 8 bytes; it must need them (RFC 6455, section 5.2)."""
    length = int.from_bytes(encoded, 'big')
    if length >> 63:
        raise ProtocolError(CloseCode.PROTOCOL_ERROR, 'length has its highest bit set')
    if length < (126 if len(encoded) == 2 else 65536):
        raise ProtocolError(CloseCode.PROTOCOL_ERROR, 'length is not encoded in its shortest form')
    return length


def _parse_close(payload: bytes) -> tuple[int, str]:
    """Return the code and the reason of a close frame (RFC 6455, section 5.5.1)."""
    if not payload:
        return CloseCode.NO_STATUS_RECEIVED, ''
    # A single byte is no code either: its value is below 256.
    code = int.from_bytes(payload[:2], 'big')
    if not is_sendable_close_code(code):
        raise ProtocolError(CloseCode.PROTOCOL_ERROR, 'close code is invalid')
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        reason = 'close reason is not valid UTF-8'
        raise ProtocolError(CloseCode.INVALID_PAYLOAD_DATA, reason) from None


def _describe_misplaced(opcode: int) -> str:
    if opcode == _CONTINUATION:
        return 'continuation frame without a message'
    return 'message begins inside another one'


def _describe_illegal(first: int) -> str:
    """Say what is wrong with the first byte of a frame."""
    opcode = first & 0x0F
    if opcode not in Opcode.__members__.values():
        return f'opcode {opcode:#x} is reserved'
    if first & 0x70:
        return 'reserved bits are set'
    return 'control frame is fragmented'
