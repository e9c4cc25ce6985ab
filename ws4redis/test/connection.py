"""The connection under a websocket client: it sends what it is told, and reads frame by frame."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from ws4redis.exceptions import ConnectionClosed
from ws4redis.test.frames import Frame, FrameBuffer, encode_frame
from ws4redis.test.handshakes import (
    HttpResponse,
    expected_accept,
    handshake_request,
    new_key,
    parse_response_head,
)

RECEIVE_BYTES = 65536
ABNORMAL_CLOSURE = 1006


def connect_socket(
    url: str, *, timeout: float, ssl_context: ssl.SSLContext | None = None
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


class ClientConnection:
    """A blocking connection to a websocket server, with a time-out on everything.

    ``url`` is ``ws://host:port/path?query``, or ``wss://``. With ``unix_socket_path`` it connects
    there instead. ``timeout`` is in seconds. Nothing is sent yet: call :meth:`shake_hands`.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        unix_socket_path: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.url = url
        self.timeout = timeout
        self.response: HttpResponse | None = None
        self.frames = FrameBuffer()
        if unix_socket_path is None:
            self.socket = connect_socket(url, timeout=timeout, ssl_context=ssl_context)
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            self.socket.connect(unix_socket_path)

    def drop(self) -> None:
        """Hang up without a close frame, as a client that loses its network does."""
        self.socket.close()

    def reset(self) -> None:
        """End the TCP connection with a reset, as a crashed client does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.socket.close()

    # The handshake

    def shake_hands(
        self, headers: Mapping[str, str | None] | None = None, *, method: str = 'GET'
    ) -> HttpResponse:
        """Ask for the websocket, and return the answer, whatever it is.

        ``headers`` replace those of a proper handshake; ``None`` removes one.
        """
        key = new_key()
        self.send_bytes(handshake_request(self.url, headers=headers, method=method, key=key))
        self.response = self.receive_response()
        has_own_key = any(name.lower() == 'sec-websocket-key' for name in headers or {})
        if self.response.status == 101 and not has_own_key:
            accept = self.response.headers.get('sec-websocket-accept')
            assert accept == expected_accept(key), 'no proper answer to the handshake'
        return self.response

    def receive_response(self) -> HttpResponse:
        """Read one HTTP answer with its body; what follows a 101 is kept as frames."""
        unread = b''
        while b'\r\n\r\n' not in unread:
            data = self.socket.recv(RECEIVE_BYTES)
            if not data:
                raise ConnectionClosed(ABNORMAL_CLOSURE, 'no answer to the handshake')
            unread += data
        head, _, rest = unread.partition(b'\r\n\r\n')
        response = parse_response_head(head)
        if response.status == 101:
            self.frames.feed(rest)
            return response
        return HttpResponse(response.status, response.headers, self._receive_body(response, rest))

    def _receive_body(self, response: HttpResponse, body: bytes) -> bytes:
        length = response.headers.get('content-length')
        while length is None or len(body) < int(length):
            data = self.socket.recv(RECEIVE_BYTES)
            if not data:
                break
            body += data
        return body

    # Frames

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
        """Send one frame; the arguments are those of ``encode_frame``."""
        self.send_bytes(
            encode_frame(opcode, payload, fin=fin, rsv=rsv, mask=mask, length_bits=length_bits)
        )

    def receive_frame(self, *, timeout: float | None = None) -> Frame:
        """Return the next frame.

        Raise ``ConnectionClosed`` when the connection ends instead, ``TimeoutError`` when no frame
        is complete after ``timeout`` seconds.
        """
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while (frame := self.frames.next_frame()) is None:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError('no frame arrived')
            self.socket.settimeout(remaining)
            try:
                data = self.socket.recv(RECEIVE_BYTES)
            except ConnectionResetError:
                data = b''
            finally:
                self.socket.settimeout(self.timeout)
            if not data:
                raise ConnectionClosed(ABNORMAL_CLOSURE)
            self.frames.feed(data)
        return frame
