"""An echo server that is nothing but the protocol: blocking sockets, a thread for each.

It tells whether a case that fails on the hub fails because of the protocol or because of the hub.
Run it as ``python -m conformance.bare_echo PORT``.
"""

from __future__ import annotations

import http.client
import io
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from conformance.limits import MAX_MESSAGE_BYTES, MINIMUM_COMPRESSED_BYTES
from ws4redis.exceptions import HandshakeError
from ws4redis.protocol.connection import Event, Limits, ServerConnection, State
from ws4redis.protocol.extensions import Compression, NegotiatedDeflate, negotiate
from ws4redis.protocol.frames import Opcode
from ws4redis.protocol.handshake import check_upgrade, response_headers
from ws4redis.protocol.wire import PLAIN, WireFormat

LIMITS = Limits(max_message_size=MAX_MESSAGE_BYTES)
COMPRESSION = Compression(enabled=True, minimum_size=MINIMUM_COMPRESSED_BYTES)

READ_BYTES = 65536
DRAIN_SECONDS = 1.0


def serve(listener: socket.socket) -> None:
    """Accept websockets until ``listener`` is closed."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve_one, args=(connection,), daemon=True).start()


@contextmanager
def running_server(host: str = '127.0.0.1', port: int = 0) -> Iterator[str]:
    """Serve in threads of this process; yields the URL."""
    with socket.create_server((host, port), backlog=128) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        try:
            yield f'ws://{host}:{listener.getsockname()[1]}'
        finally:
            # Closing alone does not wake a thread that is blocked in accept().
            listener.shutdown(socket.SHUT_RDWR)


def _serve_one(connection: socket.socket) -> None:
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            accepted, deflate = _shake_hands(connection)
            if accepted:
                _echo(connection, deflate)
        except OSError:
            return


def _shake_hands(connection: socket.socket) -> tuple[bool, NegotiatedDeflate | None]:
    """Answer the request; tell whether it became a websocket, and with which compression."""
    stream = io.BufferedReader(socket.SocketIO(connection, 'r'))
    method = stream.readline().split(b' ')[0].decode('latin-1')
    headers = {name.lower(): value for name, value in http.client.parse_headers(stream).items()}
    try:
        check_upgrade(method, headers)
        extensions, deflate = negotiate(headers.get('sec-websocket-extensions', ''), COMPRESSION)
    except HandshakeError as error:
        _send_response(connection, error.status, list(error.headers.items()), error.body)
        return False, None
    answer = response_headers(headers['sec-websocket-key'], extensions=extensions)
    _send_response(connection, 101, answer, '')
    return True, deflate


def _send_response(
    connection: socket.socket, status: int, headers: list[tuple[str, str]], body: str
) -> None:
    if status != 101:
        headers = [*headers, ('Content-Length', str(len(body.encode()))), ('Connection', 'close')]
    lines = [f'HTTP/1.1 {status} {http.client.responses[status]}']
    lines += [f'{name}: {value}' for name, value in headers]
    connection.sendall(('\r\n'.join(lines) + '\r\n\r\n' + body).encode())


def _echo(connection: socket.socket, deflate: NegotiatedDeflate | None) -> None:
    wire = deflate.wire if deflate is not None else PLAIN
    protocol = ServerConnection(LIMITS, deflate=deflate)
    while not _is_closed(protocol):
        data = connection.recv(READ_BYTES)
        if not data:
            protocol.receive_eof()
            return
        events = protocol.receive_data(data)
        control, answers = protocol.data_to_send(), _answers(events, wire)
        # A pong answers a ping that came before the end of the message; nothing follows a close.
        connection.sendall(answers + control if _is_closed(protocol) else control + answers)
    _finish(connection)


def _is_closed(protocol: ServerConnection) -> bool:
    return protocol.state is State.CLOSED


def _answers(events: list[Event], wire: WireFormat) -> bytes:
    return b''.join(
        wire.encode_message(payload, opcode)
        for opcode, payload in events
        if opcode in (Opcode.TEXT, Opcode.BINARY)
    )


def _finish(connection: socket.socket) -> None:
    """Close without a reset, which could overtake the close frame: read what is unread."""
    connection.shutdown(socket.SHUT_WR)
    connection.settimeout(DRAIN_SECONDS)
    try:
        while connection.recv(READ_BYTES):
            pass
    except TimeoutError:
        return


if __name__ == '__main__':
    with socket.create_server(('127.0.0.1', int(sys.argv[1])), backlog=128) as main_listener:
        serve(main_listener)
