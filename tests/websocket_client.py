"""A websocket client that does what a well-behaved one refuses to do.

It sends any bytes, frames with any bits set, bad handshakes, and shows the server's answers frame
by frame. Where an ordinary client is enough, tests use ``ws4redis.test.WebSocketClient``, which
stands on the same connection, or the library `websockets`.
"""

from __future__ import annotations

import selectors
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.timeouts import SOON_SECONDS
from ws4redis.exceptions import ConnectionClosed
from ws4redis.test.connection import RECEIVE_BYTES, ClientConnection
from ws4redis.test.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    FrameBuffer,
    close_payload,
    encode_frame,
)
from ws4redis.test.handshakes import HttpResponse, expected_accept, handshake_request, new_key

__all__ = [
    'BINARY',
    'CLOSE',
    'CONTINUATION',
    'PING',
    'PONG',
    'TEXT',
    'ConnectionEnded',
    'Frame',
    'FrameBuffer',
    'HandshakeRefused',
    'HttpResponse',
    'RawWebSocket',
    'WebSocketCrowd',
    'close_payload',
    'encode_frame',
    'expected_accept',
    'handshake_request',
    'new_key',
]

# How tests call it: the server closed, with a close frame, or without (1006).
ConnectionEnded = ConnectionClosed


class HandshakeRefused(Exception):
    """Tell that the server answered with something else than 101; carries the answer."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(f'{response.status}: {response.body!r}')
        self.response = response


class RawWebSocket(ClientConnection):
    """One websocket, frame by frame.

    ``headers`` as for `handshake_request`, the rest as for `ClientConnection`. Raises
    HandshakeRefused. ``connect=False`` opens the connection alone: send what you like, then call
    `handshake` or read the answer with `receive_response`.
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
        super().__init__(
            url, timeout=timeout, unix_socket_path=unix_socket_path, ssl_context=ssl_context
        )
        self._headers = headers
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

    def handshake(self, *, method: str = 'GET') -> HttpResponse:
        """Open the websocket. Raises HandshakeRefused."""
        response = self.shake_hands(self._headers, method=method)
        if response.status != 101:
            raise HandshakeRefused(response)
        return response

    # Sending

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


@dataclass
class _Member:
    websocket: RawWebSocket
    messages: list[str | bytes] = field(default_factory=list)
    ended: tuple[int, str] | None = None


class WebSocketCrowd:
    """Hold many websockets at once, and collect what each receives, in one thread.

    ``urls`` gives one websocket each; at most ``at_once`` of them wait for their handshake's answer
    at the same time. Pings are answered, and close frames, so that no server waits for
    WS4REDIS_CLOSE_TIMEOUT; these not with ``answers_close=False``.
    """

    def __init__(
        self,
        urls: Iterable[str],
        *,
        headers: Mapping[str, str | None] | None = None,
        timeout: float = SOON_SECONDS,
        at_once: int | None = None,
        answers_close: bool = True,
    ) -> None:
        self._answers_close = answers_close
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
            data = member.websocket.socket.recv(RECEIVE_BYTES)
        except ConnectionResetError:
            data = b''
        if data:
            member.websocket.frames.feed(data)
            self._take_frames(member)
        else:
            if member.ended is None:
                member.ended = (1006, '')
            self._selector.unregister(member.websocket.socket)

    def _take_frames(self, member: _Member) -> None:
        websocket = member.websocket
        while (frame := websocket.frames.next_frame()) is not None:
            if frame.opcode == PING:
                websocket.send_frame(PONG, frame.payload)
            elif frame.opcode == CLOSE:
                member.ended = (frame.close_code, frame.close_reason)
                if self._answers_close:
                    with suppress(OSError):
                        websocket.send_frame(CLOSE, frame.payload[:2])
            elif frame.opcode == TEXT:
                member.messages.append(frame.payload.decode())
            elif frame.opcode == BINARY:
                member.messages.append(frame.payload)
