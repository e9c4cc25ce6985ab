"""Blocking clients: each waits for a broadcast in a thread, or a greenlet, of its own.

That is how the clients of the stress tests work, other than the load client with its one loop. The
functions use nothing but the modules they are given, so that the same code runs with gevent.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from bench import frames

ENVIRONMENT_VARIABLE = 'WS4REDIS_STRESS_URL'
TIMEOUT_SECONDS = 30.0
# Of the example's settings. Websockets that opened early are sent it while others still connect.
HEARTBEAT = b'--heartbeat--'
NO_URL = f"""\
needs a running server: give its URL by --websocket-url or by {ENVIRONMENT_VARIABLE}, for instance
    uwsgi --http-socket :8000 --gevent 100 --module wsgi     (in examples/)
    pytest stress-tests --websocket-url ws://localhost:8000/ws/stress"""


@dataclass(frozen=True, slots=True)
class Facility:
    """Where a running server has a facility of its own for a test.

    Attributes:
        host: name or address.
        port: TCP port.
        path: path of the websockets' URL, without options.
    """

    host: str
    port: int
    path: str

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Parse a URL like `ws://localhost:8000/ws/stress`.

        A random suffix keeps apart tests that run at the same time, and messages kept earlier.

        Raises:
            ValueError: it is not such a URL.
        """
        parts = urlsplit(url)
        if parts.scheme != 'ws' or not parts.hostname or not parts.path.strip('/'):
            raise ValueError(f'not like ws://localhost:8000/ws/stress: {url}')
        path = f'{parts.path.rstrip("/")}-{uuid.uuid4().hex[:12]}'
        return cls(parts.hostname, parts.port or 80, path)


class Connection:
    """A blocking websocket.

    Args:
        socket_module: `socket`, or `gevent.socket`.
        facility: where to connect.
        option: `subscribe-broadcast` or `publish-broadcast`.

    Raises:
        ConnectionError: the server refused the handshake.
    """

    def __init__(self, socket_module: Any, facility: Facility, option: str) -> None:
        address = (facility.host, facility.port)
        self._socket = socket_module.create_connection(address, timeout=TIMEOUT_SECONDS)
        host = f'{facility.host}:{facility.port}'
        self._socket.sendall(frames.upgrade_request(f'{facility.path}?{option}', host=host))
        answer = b''
        while b'\r\n\r\n' not in answer:
            answer += self._receive_some()
        head, _, self._received = answer.partition(b'\r\n\r\n')
        if not head.startswith(b'HTTP/1.1 101 ') or frames.ACCEPT not in head:
            self._socket.close()
            raise ConnectionError(answer[:200].decode('latin-1'))

    def send(self, message: bytes) -> None:
        """Send a text message."""
        self._socket.sendall(frames.masked_frame(frames.TEXT, message))

    def receive(self) -> bytes:
        """Return the next text or binary message; pings are answered meanwhile, heartbeats ignored.

        Raises:
            ConnectionError: the server closed the connection.
            TimeoutError: none came within `TIMEOUT_SECONDS`.
        """
        while True:
            for first, payload in frames.iterate_frames(self._received):
                # All of these frames are unmasked: two bytes, and the length as it is needed.
                size = len(payload)
                head = 2 if size < 126 else 4 if size < 65536 else 10
                self._received = self._received[head + size :]
                if first & 0x0F == frames.PING:
                    self._socket.sendall(frames.masked_frame(frames.PONG, payload))
                elif first & 0x0F == frames.CLOSE:
                    raise ConnectionError(f'closed: {payload!r}')
                elif first & 0x0F in {frames.TEXT, frames.BINARY} and payload != HEARTBEAT:
                    return payload
            self._received += self._receive_some()

    def close(self) -> None:
        """Close with the closing handshake, so that nothing that was sent is lost."""
        try:
            self._socket.sendall(frames.masked_frame(frames.CLOSE, b''))
            while True:
                self.receive()
        except OSError:
            pass
        finally:
            self._socket.close()

    def _receive_some(self) -> bytes:
        data: bytes = self._socket.recv(65536)
        if not data:
            raise ConnectionError('the server closed the connection')
        return data


def attend(
    socket_module: Any, facility: Facility, report: Callable[[bytes | Exception | None], object]
) -> None:
    """Subscribe and wait for one message; to be run many times concurrently.

    Args:
        socket_module: `socket`, or `gevent.socket`.
        facility: what is subscribed to.
        report: called with `None` when subscribed, then with the message; or with what went wrong.
    """
    try:
        connection = Connection(socket_module, facility, 'subscribe-broadcast')
        report(None)
        report(connection.receive())
        connection.close()
    except OSError as exc:
        report(exc)


def publish(socket_module: Any, facility: Facility, message: bytes) -> None:
    """Send a message from a websocket that publishes."""
    connection = Connection(socket_module, facility, 'publish-broadcast')
    connection.send(message)
    connection.close()


def check_broadcast(
    socket_module: Any,
    facility: Facility,
    next_report: Callable[[], bytes | Exception | None],
    *,
    count: int,
) -> None:
    """Wait until all clients have subscribed, publish, and make sure that all receive it.

    Args:
        socket_module: `socket`, or `gevent.socket`.
        facility: what the clients subscribe to.
        next_report: waits for what a client reports.
        count: number of clients.

    Raises:
        AssertionError: a client reported something else than what it should.
    """
    message = f'to everybody at {facility.path}'.encode()
    subscribed = [next_report() for _ in range(count)]
    assert subscribed == [None] * count, _wrong(subscribed, None)
    publish(socket_module, facility, message)
    received = [next_report() for _ in range(count)]
    assert received == [message] * count, _wrong(received, message)


def _wrong(reports: list[bytes | Exception | None], wanted: bytes | None) -> str:
    wrong = [report for report in reports if report != wanted]
    return f'{len(wrong)} of {len(reports)} went wrong, the first: {wrong[0]!r}'
