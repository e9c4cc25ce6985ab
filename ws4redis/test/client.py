"""A websocket client for tests: blocking, with a time-out on everything."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from email.parser import BytesHeaderParser
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from ws4redis.exceptions import ConnectionClosed, HandshakeError, ProtocolError
from ws4redis.protocol.frames import CloseCode, Opcode, close_payload
from ws4redis.protocol.handshake import accept_key
from ws4redis.protocol.masking import apply_mask

if TYPE_CHECKING:
    from types import TracebackType

TIMEOUT_SECONDS = 5.0

_RECEIVE_BYTES = 65536
_FINAL = 0x80
_MASKED = 0x80


class WebSocketClient:
    """A websocket to the URL ``url`` (``ws://host:port/path``); open when it is made.

    ``headers`` are added to those of the handshake, or replace them; with ``None`` a header is left
    out. ``cookies`` are names and values, ``subprotocols`` are offered in their order, ``timeout``
    is in seconds, for the handshake and for whatever is not given one of its own.

    Raise ``HandshakeError`` when the server answers with anything else than 101; it has ``status``,
    ``body`` and ``headers``, with names in lower case.

    ``response_headers`` are those of the answer, ``subprotocol`` is the one that was agreed upon.
    ``close_code`` and ``close_reason`` are those of the server's close frame, ``None`` and ``''``
    until it closes, 1006 if it closes without one.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str | None] | None = None,
        cookies: Mapping[str, str] | None = None,
        subprotocols: Iterable[str] = (),
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self.url = url
        self.timeout = timeout
        self.response_headers: dict[str, str] = {}
        self.close_code: int | None = None
        self.close_reason = ''
        self._unread = bytearray()
        self._messages: deque[str | bytes] = deque()
        self._fragments: list[bytes] = []
        self._opcode = Opcode.TEXT
        self._sent_close = False
        parts = urlsplit(url)
        assert parts.scheme == 'ws', 'only ws:// is served by a test server'
        assert parts.hostname is not None
        self._socket = socket.create_connection((parts.hostname, parts.port or 80), timeout)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._shake_hands(headers or {}, cookies or {}, ', '.join(subprotocols))
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            self.close()
        else:
            # The test has failed; what the server does now would only hide why.
            self.drop()

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server has chosen."""
        return self.response_headers.get('sec-websocket-protocol')

    @property
    def is_closed(self) -> bool:
        """Whether the server has closed, as far as was received."""
        return self.close_code is not None

    # Sending

    def send(self, message: str | bytes) -> None:
        """Send a message: ``str`` as text, ``bytes`` as binary.

        Raise ``ConnectionClosed`` when the server has closed.
        """
        if isinstance(message, str):
            self._send_frame(Opcode.TEXT, message.encode())
        else:
            self._send_frame(Opcode.BINARY, bytes(message))

    def send_json(self, value: Any) -> None:
        """Send a value as JSON, in a text message."""
        self.send(json.dumps(value))

    def _send_frame(self, opcode: Opcode, payload: bytes) -> None:
        if self.close_code is not None:
            raise ConnectionClosed(self.close_code, self.close_reason)
        mask = os.urandom(4)
        size = len(payload)
        if size < 126:
            head = struct.pack('!BB', _FINAL | opcode, _MASKED | size)
        elif size < 65536:
            head = struct.pack('!BBH', _FINAL | opcode, _MASKED | 126, size)
        else:
            head = struct.pack('!BBQ', _FINAL | opcode, _MASKED | 127, size)
        try:
            self._socket.sendall(head + mask + apply_mask(payload, mask))
        except (BrokenPipeError, ConnectionResetError):
            self._closed(CloseCode.ABNORMAL_CLOSURE, '')
            raise ConnectionClosed(CloseCode.ABNORMAL_CLOSURE) from None

    # Receiving

    def receive(self, *, timeout: float | None = None) -> str | bytes:
        """Return the next message, text as ``str`` and binary as ``bytes``.

        Raise ``ConnectionClosed`` when the server has closed instead, ``TimeoutError`` when nothing
        has come after ``timeout`` seconds.
        """
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while not self._messages:
            if self.close_code is not None:
                raise ConnectionClosed(self.close_code, self.close_reason)
            self._receive(deadline)
        return self._messages.popleft()

    def receive_json(self, *, timeout: float | None = None) -> Any:
        """Return the value of the next message, which is JSON; raise as :meth:`receive` does."""
        return json.loads(self.receive(timeout=timeout))

    def receive_many(self, count: int, *, timeout: float | None = None) -> list[str | bytes]:
        """Return the next ``count`` messages; raise as :meth:`receive` does, for each of them."""
        return [self.receive(timeout=timeout) for _ in range(count)]

    def receive_nothing(self, seconds: float = 0.1) -> None:
        """Raise ``AssertionError`` if a message comes, or has come, within ``seconds``."""
        try:
            message = self.receive(timeout=seconds)
        except TimeoutError:
            return
        raise AssertionError(f'There is a message: {message!r}')

    def __iter__(self) -> Iterator[str | bytes]:
        """Yield messages until the server closes."""
        while True:
            try:
                message = self.receive()
            except ConnectionClosed:
                return
            yield message

    def wait_closed(self, *, timeout: float | None = None) -> int:
        """Wait until the server closes, drop what it sends before, and return the close code."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while self.close_code is None:
            self._receive(deadline)
        return self.close_code

    # Closing

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = '') -> None:
        """Close in good order: send a close frame, wait for the server's, then hang up."""
        try:
            if self.close_code is None:
                if not self._sent_close:
                    self._sent_close = True
                    self._send_frame(Opcode.CLOSE, close_payload(code, reason))
                self.wait_closed()
        except ConnectionClosed:
            pass
        finally:
            self.drop()

    def drop(self) -> None:
        """Hang up without a close frame, as a client that loses its network does."""
        self._socket.close()

    # The handshake

    def _shake_hands(
        self, headers: Mapping[str, str | None], cookies: Mapping[str, str], subprotocols: str
    ) -> None:
        parts = urlsplit(self.url)
        key = base64.b64encode(os.urandom(16)).decode()
        fields: dict[str, str | None] = {
            'host': parts.netloc,
            'upgrade': 'websocket',
            'connection': 'Upgrade',
            'sec-websocket-key': key,
            'sec-websocket-version': '13',
            'sec-websocket-protocol': subprotocols or None,
            'cookie': '; '.join(f'{name}={value}' for name, value in cookies.items()) or None,
        }
        fields |= {name.lower(): value for name, value in headers.items()}
        target = (parts.path or '/') + (f'?{parts.query}' if parts.query else '')
        lines = [f'GET {target} HTTP/1.1']
        lines += [f'{name}: {value}' for name, value in fields.items() if value is not None]
        self._socket.sendall('\r\n'.join([*lines, '', '']).encode('latin-1'))
        status = self._receive_head()
        if status != 101:
            raise HandshakeError(status, self._receive_body(), self.response_headers)
        expected = accept_key(fields['sec-websocket-key'] or '')
        assert self.response_headers.get('sec-websocket-accept') == expected, 'no proper answer'
        # What the server sent at once may have come along with the answer.
        self._take_frames()

    def _receive_head(self) -> int:
        while b'\r\n\r\n' not in self._unread:
            data = self._socket.recv(_RECEIVE_BYTES)
            if not data:
                raise ConnectionClosed(CloseCode.ABNORMAL_CLOSURE, 'no answer to the handshake')
            self._unread += data
        head, _, self._unread = self._unread.partition(b'\r\n\r\n')
        status_line, _, fields = head.partition(b'\r\n')
        message = BytesHeaderParser().parsebytes(bytes(fields))
        self.response_headers = {name.lower(): value for name, value in message.items()}
        return int(status_line.split()[1])

    def _receive_body(self) -> str:
        length = self.response_headers.get('content-length')
        while length is None or len(self._unread) < int(length):
            data = self._socket.recv(_RECEIVE_BYTES)
            if not data:
                break
            self._unread += data
        return self._unread.decode(errors='replace')

    # Frames

    def _receive(self, deadline: float) -> None:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError('The server has sent nothing in time.')
        self._socket.settimeout(remaining)
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except ConnectionResetError:
            data = b''
        finally:
            self._socket.settimeout(self.timeout)
        if not data:
            self._closed(CloseCode.ABNORMAL_CLOSURE, '')
        self._unread += data
        self._take_frames()

    def _take_frames(self) -> None:
        while self.close_code is None and self._take_frame():
            pass

    def _take_frame(self) -> bool:
        """Take one frame off what was read, and tell whether it was there."""
        unread = self._unread
        if len(unread) < 2:
            return False
        size, start = unread[1], 2
        if size in {126, 127}:
            start = 4 if size == 126 else 10
            size = int.from_bytes(unread[2:start], 'big')
        if len(unread) < start or len(unread) < start + size:
            return False
        first, payload = unread[0], bytes(unread[start : start + size])
        del unread[: start + size]
        self._take(Opcode(first & 0x0F), payload, is_final=bool(first & _FINAL))
        return True

    def _take(self, opcode: Opcode, payload: bytes, *, is_final: bool) -> None:
        if opcode is Opcode.PING:
            self._send_frame(Opcode.PONG, payload)
        elif opcode is Opcode.CLOSE:
            self._answer_close(payload)
        elif opcode is not Opcode.PONG:
            if opcode is not Opcode.CONTINUATION:
                self._opcode = opcode
            self._fragments.append(payload)
            if is_final:
                message = b''.join(self._fragments)
                self._fragments.clear()
                self._messages.append(message.decode() if self._opcode is Opcode.TEXT else message)

    def _answer_close(self, payload: bytes) -> None:
        code = int.from_bytes(payload[:2], 'big') if payload else CloseCode.NO_STATUS_RECEIVED
        if not self._sent_close:
            self._sent_close = True
            self._send_frame(Opcode.CLOSE, payload)
        if len(payload) == 1:
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, 'the server closed with half a code')
        self._closed(code, payload[2:].decode())

    def _closed(self, code: int, reason: str) -> None:
        if self.close_code is None:
            self.close_code = int(code)
            self.close_reason = reason
