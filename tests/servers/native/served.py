"""A native door that the tests serve, and what they send to it."""

from __future__ import annotations

import _socket
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tests.timeouts import SOON_SECONDS, scaled
from ws4redis.exceptions import HandshakeError
from ws4redis.handshake.machine import Call, Steps
from ws4redis.loop.drivers import ThreadDriver
from ws4redis.loop.loop import Loop
from ws4redis.protocol.http1 import RequestHead
from ws4redis.servers.bodies import TEXT, Response
from ws4redis.servers.native.door import Door
from ws4redis.servers.native.environ import CONNECTION
from ws4redis.servers.native.trust import TrustedProxies
from ws4redis.standalone.addresses import Address, listen

RESET = struct.pack('ii', 1, 0)
PROXY_LINE = b'PROXY TCP4 192.0.2.7 10.0.0.1 51111 443\r\n'


OPENED = b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nhello'


def request(path: str = '/ws', *lines: str, method: str = 'GET', host: str = 'a') -> bytes:
    head = [f'{method} {path} HTTP/1.1', f'Host: {host}', *lines, '', '']
    return '\r\n'.join(head).encode()


class Served:
    """A door in a loop of its own; what it hands over says `hello` and ends."""

    def __init__(
        self,
        *,
        trusted: tuple[str, ...] = (),
        tls: ssl.SSLContext | None = None,
        takes_proxy_protocol: bool = False,
        timeout_seconds: float = SOON_SECONDS,
    ) -> None:
        self.loop = Loop(ThreadDriver(pool_size=2))
        listener = listen(Address(port=0))
        self.address = listener.getsockname()
        self.may_go_on = threading.Event()
        self.environs: list[dict[str, Any]] = []
        self.given_up = threading.Event()
        self.statuses: list[int] = []
        self.door = Door(
            self.loop,
            _socket.socket(fileno=listener.detach()),
            self.answer,
            response_to=self.response_to,
            refused=self.statuses.append,
            body_limit=lambda head: 10_000 if head.path == '/body' else None,
            trusted=TrustedProxies(trusted),
            tls=tls,
            takes_proxy_protocol=takes_proxy_protocol,
            timeout_seconds=timeout_seconds,
        )
        self.loop.call_soon(self.door.start)
        self.loop.driver.start(self.loop)

    def answer(self, environ: dict[str, Any]) -> Steps[Response | None]:
        self.environs.append(environ)
        path = environ['PATH_INFO']
        if path == '/fails':
            raise RuntimeError('a secret')
        if path == '/slow':
            try:
                yield Call(self.loop, self.may_go_on.wait, SOON_SECONDS, seconds=SOON_SECONDS)
            except GeneratorExit:
                self.given_up.set()
                raise
        if path == '/slow-page':
            yield Call(self.loop, self.may_go_on.wait, SOON_SECONDS, seconds=SOON_SECONDS)
        if path in ('/page', '/slow-page'):
            return Response(200, [TEXT], environ['REQUEST_METHOD'].encode())
        if path == '/body':
            length = int(environ['CONTENT_LENGTH'])
            return Response(200, [TEXT], environ['wsgi.input'].read(length)[::-1])
        if path != '/ws' and path != '/slow':
            raise HandshakeError(404, 'nothing here')
        sock = environ[CONNECTION].hand_over([('Upgrade', 'websocket')])
        sock.send(b'hello')
        sock.close()
        return None

    def response_to(self, exc: BaseException, head: RequestHead) -> Response:
        error = exc if isinstance(exc, HandshakeError) else HandshakeError(500, 'Sorry.')
        return Response(error.status, [TEXT], error.body.encode())

    def client(self) -> socket.socket:
        client = socket.create_connection(self.address, scaled(5))
        client.settimeout(scaled(5))
        return client

    def ask(self, data: bytes) -> bytes:
        """Send bytes; return all that comes until the door ends."""
        with self.client() as client:
            client.sendall(data)
            return read_all(client)

    @property
    def connections(self) -> int:
        return len(self.door.arriving) + len(self.door.busy) + len(self.door.lingering)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep the loop from doing anything meanwhile."""
        is_held, may_go_on = threading.Event(), threading.Event()

        def hold() -> None:
            is_held.set()
            may_go_on.wait(SOON_SECONDS)

        self.loop.call_soon(hold)
        assert is_held.wait(SOON_SECONDS)
        yield
        may_go_on.set()

    def close(self) -> None:
        self.may_go_on.set()
        self.loop.stop()
        assert self.loop.driver.wait_stopped(SOON_SECONDS)
        assert self.connections == 0


def read_all(client: Any) -> bytes:
    answer = b''
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65536):
            answer += data
    return answer


def post(body: bytes, *lines: str, length: int | None = None) -> bytes:
    announced = f'Content-Length: {len(body) if length is None else length}'
    return request('/body', announced, *lines, method='POST') + body


Serve = Callable[..., Served]
