"""A TCP proxy between a server and Redis, so that a test can cut the network and switch over."""

from __future__ import annotations

import selectors
import socket
import threading


class Switch:
    """Pass connections on to the Redis that is named at the moment; runs in a thread."""

    def __init__(self, port: int) -> None:
        self.target = port
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._other: dict[socket.socket, socket.socket] = {}
        self._lock = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def switch(self, port: int) -> None:
        """Cut all connections; the next ones lead to another Redis."""
        with self._lock:
            self.target = port
            self._cut()

    def close(self) -> None:
        self._stopped = True
        self._thread.join(5)
        with self._lock:
            self._cut()
        self._listener.close()

    def _cut(self) -> None:
        for sock in list(self._other):
            self._end(sock)

    def _run(self) -> None:
        while not self._stopped:
            for key, _ in self._selector.select(0.1):
                with self._lock:
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    if sock is self._listener:
                        self._accept()
                    elif sock in self._other:
                        self._pass_on(sock)

    def _accept(self) -> None:
        ours, _ = self._listener.accept()
        try:
            theirs = socket.create_connection(('127.0.0.1', self.target), timeout=5)
        except OSError:
            ours.close()
            return
        for sock, other in ((ours, theirs), (theirs, ours)):
            sock.settimeout(5)
            self._other[sock] = other
            self._selector.register(sock, selectors.EVENT_READ)

    def _pass_on(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(65536)
            if data:
                self._other[sock].sendall(data)
                return
        except OSError:
            pass
        self._end(sock)

    def _end(self, sock: socket.socket) -> None:
        for one in (sock, self._other.get(sock)):
            if one is not None and self._other.pop(one, None) is not None:
                self._selector.unregister(one)
                one.close()
