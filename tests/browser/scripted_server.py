"""A websocket server that does what a test tells it, and nothing by itself.

It plays the peer of ``ws4redis.js`` in all the ways in which a real server behaves only now and
then: refusing, vanishing, staying silent. By default it knows plain websockets only.
"""

from __future__ import annotations

import queue
import socket
import threading
from types import TracebackType
from typing import Self

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from tests.free_ports import free_port
from tests.timeouts import SOON_SECONDS


class ScriptedConnection:
    """One websocket, held by the server until the test or the browser ends it."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self.request_path = connection.request.path if connection.request else ''
        self.received: queue.Queue[str | bytes] = queue.Queue()
        self.ended = threading.Event()
        self.close_code: int | None = None

    def send(self, message: str | bytes) -> None:
        self._connection.send(message)

    def receive(self) -> str | bytes:
        """Return the next message from the browser; raises queue.Empty when none comes."""
        return self.received.get(timeout=SOON_SECONDS)

    def close(self, code: int = 1000, reason: str = '') -> None:
        """Close with a proper closing handshake."""
        self._connection.close(code, reason)

    def drop(self) -> None:
        """End the TCP connection without a close frame, as a killed server does."""
        self._connection.socket.shutdown(socket.SHUT_RDWR)

    def wait_for_end(self) -> int | None:
        """Wait until the websocket is gone and return the close code that the server saw."""
        assert self.ended.wait(SOON_SECONDS), 'the websocket is still open'
        return self.close_code

    def collect(self) -> None:
        """Read until the end; runs in the connection's own thread."""
        try:
            for message in self._connection:
                self.received.put(message)
        except ConnectionClosed:
            pass
        finally:
            self.close_code = self._connection.close_code
            self.ended.set()


class ScriptedServer:
    """A websocket server on one port, which can be stopped and started again."""

    def __init__(self, *, subprotocol: str | None = None) -> None:
        self.port = free_port()
        self.subprotocol = subprotocol
        self.uri = f'ws://127.0.0.1:{self.port}/ws/chat?subscribe-broadcast'
        self._connections: queue.Queue[ScriptedConnection] = queue.Queue()
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Accept websockets."""
        assert self._server is None
        self._server = serve(
            self._handle,
            '127.0.0.1',
            self.port,
            process_request=self._refuse_offer,
            subprotocols=None if self.subprotocol is None else [Subprotocol(self.subprotocol)],
            compression=None,
            ping_interval=None,
            close_timeout=SOON_SECONDS,
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Refuse websockets from now on; those that are open are closed with 1001."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server = None

    def next_connection(self) -> ScriptedConnection:
        """Wait for the next websocket to open; raises queue.Empty when none does."""
        return self._connections.get(timeout=SOON_SECONDS)

    def has_new_connection(self) -> bool:
        """Tell whether a websocket opened that ``next_connection`` has not returned yet."""
        return not self._connections.empty()

    def _refuse_offer(self, connection: ServerConnection, request: Request) -> Response | None:
        # Browsers give up a websocket whose server selects none of the subprotocols offered.
        if self.subprotocol is None and 'Sec-WebSocket-Protocol' in request.headers:
            return connection.respond(400, 'no subprotocol is known here')
        return None

    def _handle(self, connection: ServerConnection) -> None:
        scripted = ScriptedConnection(connection)
        self._connections.put(scripted)
        scripted.collect()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
