"""A small websocket client that does what a well-behaved one refuses to do.

It sends any bytes, frames with any bits set, bad handshakes, and shows the server's answers frame
by frame. It shares no code with ws4redis, so that an error there cannot hide itself. Where an
ordinary client is enough, tests use the library `websockets`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import selectors
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.timeouts import SOON_SECONDS

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
_GUID = b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
_RECEIVE_BYTES = 65536


class HandshakeRefused(Exception):
    """Tell that the server answered with something else than 101; carries the answer."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(f'{response.status}: {response.body!r}')
        self.response = response


class ConnectionEnded(Exception):
    """Tell that the server closed: with a close frame (``code``, ``reason``), or without (1006)."""

    def __init__(self, code: int = 1006, reason: str = '') -> None:
        super().__init__(f'{code} {reason}')
        self.code = code
        self.reason = reason


@dataclass(frozen=True)
class HttpResponse:
    """An HTTP answer; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b''


@dataclass(frozen=True)
class Frame:
    """One frame as it came, unmasked."""

    opcode: int
    payload: bytes = b''
    fin: bool = True
    rsv: int = 0
    masked: bool = False

    @property
    def close_code(self) -> int:
        """The code of a close frame, 1005 where it has none (RFC 6455, section 7.1.5)."""
        assert self.opcode == CLOSE
        return int.from_bytes(self.payload[:2], 'big') if self.payload else 1005

    @property
    def close_reason(self) -> str:
        """The reason of a close frame."""
        assert self.opcode == CLOSE
        return self.payload[2:].decode()


def encode_frame(
    opcode: int,
    payload: bytes = b'',
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b'',
    length_bits: int | None = None,
) -> bytes:
    """Return a client's frame.

    ``mask`` is the key of 4 bytes, ``b''`` for a random one, ``None`` for an unmasked frame.
    ``rsv`` are the three reserved bits (4 is RSV1). ``length_bits`` is 7, 16 or 64 to force a
    length that is not minimal.
    """
    if mask == b'':
        mask = os.urandom(4)
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    mask_bit = 0x80 if mask else 0
    size = len(payload)
    bits = length_bits or (7 if size < 126 else 16 if size < 65536 else 64)
    if bits == 7:
        head = struct.pack('!BB', first, mask_bit | size)
    elif bits == 16:
        head = struct.pack('!BBH', first, mask_bit | 126, size)
    else:
        head = struct.pack('!BBQ', first, mask_bit | 127, size)
    if not mask:
        return head + payload
    return head + mask + apply_mask(payload, mask)


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    """Return ``payload`` masked, or unmasked, with a key of 4 bytes."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, 'big') ^ int.from_bytes(key, 'big')).to_bytes(size, 'big')


def close_payload(code: int, reason: str = '') -> bytes:
    """Return the payload of a close frame."""
    return struct.pack('!H', code) + reason.encode()


class FrameBuffer:
    """Bytes in, frames out."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        """Add what has been received."""
        self._data += data

    def next_frame(self) -> Frame | None:
        """Return the next frame, or None while it is not complete."""
        data = self._data
        if len(data) < 2:
            return None
        size, start = data[1] & 0x7F, 2
        if size == 126:
            if len(data) < 4:
                return None
            size, start = int.from_bytes(data[2:4], 'big'), 4
        elif size == 127:
            if len(data) < 10:
                return None
            size, start = int.from_bytes(data[2:10], 'big'), 10
        mask = b''
        if data[1] & 0x80:
            mask, start = bytes(data[start : start + 4]), start + 4
        if len(data) < start + size:
            return None
        payload = bytes(data[start : start + size])
        frame = Frame(
            opcode=data[0] & 0x0F,
            payload=apply_mask(payload, mask) if mask else payload,
            fin=bool(data[0] & 0x80),
            rsv=data[0] >> 4 & 7,
            masked=bool(mask),
        )
        del data[: start + size]
        return frame


def connect_socket(
    url: str, *, timeout: float = SOON_SECONDS, ssl_context: ssl.SSLContext | None = None
) -> socket.socket:
    """Open the TCP (or TLS) connection that ``url`` (ws:// or wss://) names."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    port = parts.port or (443 if parts.scheme == 'wss' else 80)
    connection = socket.create_connection((parts.hostname, port), timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if parts.scheme == 'wss':
        context = ssl_context or ssl.create_default_context()
        return context.wrap_socket(connection, server_hostname=parts.hostname)
    return connection


def handshake_request(
    url: str,
    *,
    headers: Mapping[str, str | None] | None = None,
    method: str = 'GET',
    key: str | None = None,
) -> bytes:
    """Return the HTTP request that opens a websocket.

    ``headers`` are added, or replace those of a proper handshake; ``None`` removes one.
    """
    parts = urlsplit(url)
    fields: dict[str, str | None] = {
        'Host': parts.netloc,
        'Upgrade': 'websocket',
        'Connection': 'Upgrade',
        'Sec-WebSocket-Key': key or new_key(),
        'Sec-WebSocket-Version': '13',
    }
    names = {name.lower(): name for name in fields}
    for name, value in (headers or {}).items():
        fields[names.get(name.lower(), name)] = value
    target = (parts.path or '/') + (f'?{parts.query}' if parts.query else '')
    lines = [f'{method} {target} HTTP/1.1']
    lines += [f'{name}: {value}' for name, value in fields.items() if value is not None]
    return '\r\n'.join([*lines, '', '']).encode('latin-1')


def new_key() -> str:
    """Return a random Sec-WebSocket-Key."""
    return base64.b64encode(os.urandom(16)).decode()


def expected_accept(key: str) -> str:
    """Return the Sec-WebSocket-Accept that answers ``key`` (RFC 6455, section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


def parse_response_head(head: bytes) -> HttpResponse:
    """Return status and headers of an HTTP answer; ``head`` ends before the blank line."""
    first, *lines = head.decode('latin-1').split('\r\n')
    headers = {}
    for line in lines:
        name, _, value = line.partition(':')
        headers[name.strip().lower()] = value.strip()
    return HttpResponse(int(first.split()[1]), headers)


class RawWebSocket:
    """One websocket on a blocking socket.

    ``url`` is ``ws://host:port/path?query``. With ``unix_socket_path`` the connection goes there
    instead. ``headers`` as for `handshake_request`. Raises HandshakeRefused. ``connect=False``
    opens the connection alone: send what you like, then call `handshake` or read the answer with
    `receive_response`.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str | None] | None = None,
        unix_socket_path: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        timeout: float = SOON_SECONDS,
        connect: bool = True,
    ) -> None:
        self.url = url
        self.timeout = timeout
        self.response: HttpResponse | None = None
        self._headers = headers
        self._unread = bytearray()
        self._frames = FrameBuffer()
        if unix_socket_path is None:
            self.socket = connect_socket(url, timeout=timeout, ssl_context=ssl_context)
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            self.socket.connect(unix_socket_path)
        if connect:
            try:
                self.handshake()
            except BaseException:
                self.socket.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    # Handshake

    def handshake(self, *, method: str = 'GET') -> HttpResponse:
        """Open the websocket. Raises HandshakeRefused."""
        key = new_key()
        self.send_bytes(handshake_request(self.url, headers=self._headers, method=method, key=key))
        self.response = self.receive_response()
        if self.response.status != 101:
            raise HandshakeRefused(self.response)
        if 'Sec-WebSocket-Key' not in (self._headers or {}):
            assert self.response.headers['sec-websocket-accept'] == expected_accept(key)
        return self.response

    def receive_response(self) -> HttpResponse:
        """Read one HTTP answer with its body; what follows a 101 is kept as frames."""
        while b'\r\n\r\n' not in self._unread:
            self._fill_unread()
        head, _, rest = bytes(self._unread).partition(b'\r\n\r\n')
        response = parse_response_head(head)
        self._unread.clear()
        if response.status == 101:
            self._frames.feed(rest)
            return response
        return HttpResponse(response.status, response.headers, self._receive_body(response, rest))

    def _fill_unread(self) -> None:
        data = self.socket.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionEnded
        self._unread += data

    def _receive_body(self, response: HttpResponse, body: bytes) -> bytes:
        length = response.headers.get('content-length')
        while length is None or len(body) < int(length):
            data = self.socket.recv(_RECEIVE_BYTES)
            if not data:
                break
            body += data
        return body

    # Sending

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def send_frame(
        self,
        opcode: int,
        payload: bytes = b'',
        *,
        fin: bool = True,
        rsv: int = 0,
        mask: bytes | None = b'',
        length_bits: int | None = None,
    ) -> None:
        """Send one frame; the arguments are those of `encode_frame`."""
        self.send_bytes(
            encode_frame(opcode, payload, fin=fin, rsv=rsv, mask=mask, length_bits=length_bits)
        )

    def send(self, message: str | bytes) -> None:
        """Send a message in one frame: text for str, binary for bytes."""
        if isinstance(message, str):
            self.send_frame(TEXT, message.encode())
        else:
            self.send_frame(BINARY, message)

    def send_fragments(self, opcode: int, fragments: Iterable[bytes]) -> None:
        """Send one message in several frames."""
        *first, last = fragments
        for fragment in first:
            self.send_frame(opcode, fragment, fin=False)
            opcode = CONTINUATION
        self.send_frame(opcode, last)

    def send_ping(self, payload: bytes = b'') -> None:
        """Send a ping."""
        self.send_frame(PING, payload)

    def send_close(self, code: int | None = 1000, reason: str = '') -> None:
        """Send a close frame, without code when that is None."""
        self.send_frame(CLOSE, b'' if code is None else close_payload(code, reason))

    # Receiving

    def receive_frame(self, *, timeout: float | None = None) -> Frame:
        """Return the next frame. Raises ConnectionEnded at end of file or reset, TimeoutError."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while (frame := self._frames.next_frame()) is None:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError('no frame arrived')
            self.socket.settimeout(remaining)
            try:
                data = self.socket.recv(_RECEIVE_BYTES)
            except ConnectionResetError:
                data = b''
            finally:
                self.socket.settimeout(self.timeout)
            if not data:
                raise ConnectionEnded
            self._frames.feed(data)
        return frame

    def receive(self, *, timeout: float | None = None) -> str | bytes:
        """Return the next message, as str or bytes; pings are answered on the way.

        Raises ConnectionEnded when the server closes.
        """
        kind, payload = 0, b''
        while True:
            frame = self.receive_frame(timeout=timeout)
            if frame.opcode == PING:
                self.send_frame(PONG, frame.payload)
            elif frame.opcode == CLOSE:
                raise ConnectionEnded(frame.close_code, frame.close_reason)
            elif frame.opcode != PONG:
                kind = frame.opcode or kind
                payload += frame.payload
                if frame.fin:
                    return payload.decode() if kind == TEXT else payload

    def receive_many(self, count: int, *, timeout: float | None = None) -> list[str | bytes]:
        """Return the next ``count`` messages."""
        return [self.receive(timeout=timeout) for _ in range(count)]

    def receive_close(self, *, timeout: float | None = None) -> tuple[int, str]:
        """Skip messages until the server closes, and return its code and reason."""
        while True:
            try:
                self.receive(timeout=timeout)
            except ConnectionEnded as exc:
                return exc.code, exc.reason

    def expect_silence(self, seconds: float) -> None:
        """Fail if any message arrives within ``seconds``."""
        try:
            message = self.receive(timeout=seconds)
        except TimeoutError:
            return
        raise AssertionError(f'received {message!r}')

    def expect_end(self, *, timeout: float | None = None) -> None:
        """Fail unless the server closes the TCP connection, without any further frame."""
        try:
            frame = self.receive_frame(timeout=timeout)
        except ConnectionEnded:
            return
        raise AssertionError(f'received {frame}')

    # Ending

    def close(self, code: int = 1000, reason: str = '') -> tuple[int, str]:
        """Close in good order, and return the server's code and reason."""
        self.send_close(code, reason)
        answer = self.receive_close()
        self.socket.close()
        return answer

    def reset(self) -> None:
        """End the TCP connection with a reset, as a crashed client does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.socket.close()


@dataclass
class _Member:
    websocket: RawWebSocket
    messages: list[str | bytes] = field(default_factory=list)
    ended: tuple[int, str] | None = None


class WebSocketCrowd:
    """Hold many websockets at once, and collect what each receives, in one thread.

    ``urls`` gives one websocket each; at most ``at_once`` of them wait for their handshake's answer
    at the same time. Pings are answered.
    """

    def __init__(
        self,
        urls: Iterable[str],
        *,
        headers: Mapping[str, str | None] | None = None,
        timeout: float = SOON_SECONDS,
        at_once: int | None = None,
    ) -> None:
        self._members: list[_Member] = []
        self._selector = selectors.DefaultSelector()
        self._timeout = timeout
        try:
            # Without a bound all requests go out before the first answer is awaited.
            waiting: list[RawWebSocket] = []
            for url in urls:
                websocket = RawWebSocket(url, headers=headers, timeout=timeout, connect=False)
                self._members.append(_Member(websocket))
                key = new_key()
                websocket.send_bytes(handshake_request(url, headers=headers, key=key))
                waiting.append(websocket)
                if len(waiting) == at_once:
                    self._finish_handshakes(waiting)
            self._finish_handshakes(waiting)
            for member in self._members:
                self._selector.register(member.websocket.socket, selectors.EVENT_READ, member)
                # Frames that came along with the 101.
                self._take_frames(member)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _finish_handshakes(self, waiting: list[RawWebSocket]) -> None:
        for websocket in waiting:
            websocket.response = websocket.receive_response()
            if websocket.response.status != 101:
                raise HandshakeRefused(websocket.response)
        waiting.clear()

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index: int) -> RawWebSocket:
        """Return one websocket, to send on."""
        return self._members[index].websocket

    @property
    def messages(self) -> list[list[str | bytes]]:
        """What each websocket has received so far."""
        return [member.messages for member in self._members]

    @property
    def ended(self) -> list[tuple[int, str] | None]:
        """For each websocket the close code and reason, None while it is open."""
        return [member.ended for member in self._members]

    @property
    def number_open(self) -> int:
        """How many websockets are open."""
        return sum(member.ended is None for member in self._members)

    def receive(self, count: int, *, timeout: float | None = None) -> list[list[str | bytes]]:
        """Wait until each open websocket has received ``count`` messages in all; return them.

        Raises AssertionError after ``timeout`` seconds.
        """

        def is_complete(member: _Member) -> bool:
            return member.ended is not None or len(member.messages) >= count

        self._run(is_complete, timeout, f'{count} messages')
        return self.messages

    def receive_close(self, *, timeout: float | None = None) -> list[tuple[int, str] | None]:
        """Wait until the server has closed each websocket; return codes and reasons."""
        self._run(lambda member: member.ended is not None, timeout, 'the close')
        return self.ended

    def receive_for(self, seconds: float) -> list[list[str | bytes]]:
        """Collect what arrives within ``seconds``."""
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0:
            self._poll(remaining)
        return self.messages

    def clear(self) -> None:
        """Forget what was received."""
        for member in self._members:
            member.messages.clear()

    def close(self) -> None:
        """Drop all connections."""
        for member in self._members:
            member.websocket.socket.close()
        self._selector.close()

    def _run(
        self, is_complete: Callable[[_Member], bool], timeout: float | None, what: str
    ) -> None:
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        waiting = {id(member) for member in self._members if not is_complete(member)}
        while waiting:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise AssertionError(
                    f'{len(waiting)} of {len(self._members)} websockets did not receive {what}'
                )
            for member in self._poll(remaining):
                if is_complete(member):
                    waiting.discard(id(member))

    def _poll(self, timeout: float) -> list[_Member]:
        ready = []
        for key, _ in self._selector.select(timeout):
            member: _Member = key.data
            self._receive_from(member)
            ready.append(member)
        return ready

    def _receive_from(self, member: _Member) -> None:
        try:
            data = member.websocket.socket.recv(_RECEIVE_BYTES)
        except ConnectionResetError:
            data = b''
        if data:
            member.websocket._frames.feed(data)
            self._take_frames(member)
        else:
            if member.ended is None:
                member.ended = (1006, '')
            self._selector.unregister(member.websocket.socket)

    def _take_frames(self, member: _Member) -> None:
        websocket = member.websocket
        while (frame := websocket._frames.next_frame()) is not None:
            if frame.opcode == PING:
                websocket.send_frame(PONG, frame.payload)
            elif frame.opcode == CLOSE:
                member.ended = (frame.close_code, frame.close_reason)
            elif frame.opcode == TEXT:
                member.messages.append(frame.payload.decode())
            elif frame.opcode == BINARY:
                member.messages.append(frame.payload)
