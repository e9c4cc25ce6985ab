"""A websocket client for tests: blocking, with a time-out on everything."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from ws4redis.exceptions import ConnectionClosed, HandshakeError, ProtocolError
from ws4redis.protocol.frames import CloseCode
from ws4redis.test.connection import ClientConnection
from ws4redis.test.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, close_payload

if TYPE_CHECKING:
    from types import TracebackType

TIMEOUT_SECONDS = 5.0


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
        assert urlsplit(url).scheme == 'ws', 'only ws:// is served by a test server'
        self.url = url
        self.timeout = timeout
        self.close_code: int | None = None
        self.close_reason = ''
        self._messages: deque[str | bytes] = deque()
        self._fragments: list[bytes] = []
        self._opcode = TEXT
        self._sent_close = False
        self._connection = ClientConnection(url, timeout=timeout)
        pairs = [f'{name}={value}' for name, value in (cookies or {}).items()]
        fields = {
            'Sec-WebSocket-Protocol': ', '.join(subprotocols) or None,
            'Cookie': '; '.join(pairs) or None,
        }
        try:
            response = self._connection.shake_hands({**fields, **(headers or {})})
            if response.status != 101:
                body = response.body.decode(errors='replace')
                raise HandshakeError(response.status, body, response.headers)
        except BaseException:
            self.drop()
            raise
        self.response_headers = dict(response.headers)
        # What the server sent at once may have come along with the answer.
        self._take_frames()

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
            self._send_frame(TEXT, message.encode())
        else:
            self._send_frame(BINARY, bytes(message))

    def send_json(self, value: Any) -> None:
        """Send a value as JSON, in a text message."""
        self.send(json.dumps(value))

    def _send_frame(self, opcode: int, payload: bytes) -> None:
        if self.close_code is not None:
            raise ConnectionClosed(self.close_code, self.close_reason)
        try:
            self._connection.send_frame(opcode, payload)
        except (BrokenPipeError, ConnectionResetError):
            self._closed(CloseCode.ABNORMAL_CLOSURE, '')
            raise ConnectionClosed(CloseCode.ABNORMAL_CLOSURE) from None

    # Receiving

    def receive(self, *, timeout: float | None = None) -> str | bytes:
        """Return the next message, text as ``str`` and binary as ``bytes``.

        Raise ``ConnectionClosed`` when the server has closed instead, ``TimeoutError`` when nothing
        has come after ``timeout`` seconds.
        """
        deadline = self._deadline(timeout)
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
        deadline = self._deadline(timeout)
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
                    self._send_frame(CLOSE, close_payload(code, reason))
                self.wait_closed()
        except ConnectionClosed:
            pass
        finally:
            self.drop()

    def drop(self) -> None:
        """Hang up without a close frame, as a client that loses its network does."""
        self._connection.drop()

    # Frames

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (self.timeout if timeout is None else timeout)

    def _receive(self, deadline: float) -> None:
        try:
            frame = self._connection.receive_frame(timeout=deadline - time.monotonic())
        except ConnectionClosed as exc:
            self._closed(exc.code, exc.reason)
        else:
            self._take(frame)
            self._take_frames()

    def _take_frames(self) -> None:
        frames = self._connection.frames
        while self.close_code is None and (frame := frames.next_frame()) is not None:
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        if frame.opcode == PING:
            self._send_frame(PONG, frame.payload)
        elif frame.opcode == CLOSE:
            self._answer_close(frame)
        elif frame.opcode != PONG:
            if frame.opcode != CONTINUATION:
                self._opcode = frame.opcode
            self._fragments.append(frame.payload)
            if frame.fin:
                message = b''.join(self._fragments)
                self._fragments.clear()
                self._messages.append(message.decode() if self._opcode == TEXT else message)

    def _answer_close(self, frame: Frame) -> None:
        if not self._sent_close:
            self._sent_close = True
            self._send_frame(CLOSE, frame.payload)
        if len(frame.payload) == 1:
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, 'the server closed with half a code')
        self._closed(frame.close_code, frame.close_reason)

    def _closed(self, code: int, reason: str) -> None:
        if self.close_code is None:
            self.close_code = int(code)
            self.close_reason = reason
