"""A proxy between clients and a server, whose connections the test can cut."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Self

from tests.timeouts import SOON_SECONDS


class Cuttable:
    """Forward TCP connections to ``port``; :meth:`cut` resets those that are open."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: set[socket.socket] = set()
        self._lets_in = threading.Event()
        self._lets_in.set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._lets_in.set()
        # Closing alone does not end an accept() in another thread.
        _shut(self._listener)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(SOON_SECONDS)
        for sock in self._sockets:
            sock.close()

    def cut(self) -> None:
        """End all connections that are open now."""
        for sock in list(self._sockets):
            _shut(sock)

    def hold(self) -> None:
        """Let new connections wait until :meth:`let_in`."""
        self._lets_in.clear()

    def let_in(self) -> None:
        self._lets_in.set()

    def _start(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._lets_in.wait()
            try:
                server = socket.create_connection(('127.0.0.1', self._server_port))
            except OSError:
                client.close()
                continue
            # Those that have ended stay, shut, until the proxy does.
            self._sockets |= {client, server}
            self._start(self.forward_requests, client, server)
            self._start(self._forward, server, client)

    def forward_requests(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what a client sends, until its end."""
        self._forward(client, server)

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        _shut(target)
        _shut(source)


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
