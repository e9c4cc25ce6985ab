"""Websockets that listen, and note when each message arrives."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Sequence

from tests.websocket_client import CLOSE, PING, PONG, FrameBuffer, RawWebSocket, encode_frame

RECEIVE_BYTES = 262_144


class Listener:
    """One websocket, with what it has received."""

    def __init__(self, url: str) -> None:
        # The crowd's own loop reads; until then nothing but the answer has been read.
        websocket = RawWebSocket(url, timeout=30)
        self.socket = websocket.socket
        self.frames: FrameBuffer = websocket.frames
        self.messages: list[bytes] = []
        self.closed: int | None = None


class Listeners:
    """Many websockets that are read by one thread.

    ``messages`` of each are payloads in their order; ``delays`` are seconds between the moment that
    a message names (``b'<number> <time.monotonic()>'``) and its arrival.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.delays: list[float] = []
        self._poller = select.epoll()
        self._by_fd: dict[int, Listener] = {}
        self.all: list[Listener] = []
        self._stop = False
        for url in urls:
            listener = Listener(url)
            listener.socket.settimeout(0)
            self.all.append(listener)
            self._by_fd[listener.socket.fileno()] = listener
            self._poller.register(listener.socket.fileno(), select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def number_open(self) -> int:
        """How many websockets are open."""
        return sum(listener.closed is None for listener in self.all)

    def send(self, number: int, payload: bytes) -> None:
        """Send a message on one of the websockets."""
        data = encode_frame(1, payload)
        sock = self.all[number].socket
        while data:
            try:
                data = data[sock.send(data) :]
            except BlockingIOError:
                select.select([], [sock], [], 1)

    def take_delays(self) -> list[float]:
        """Return the delays noted since the last call."""
        delays, self.delays = self.delays, []
        return delays

    def close(self) -> None:
        """Drop all connections."""
        self._stop = True
        self._thread.join(5)
        for listener in self.all:
            listener.socket.close()
        self._poller.close()

    def _run(self) -> None:
        while not self._stop:
            for fd, _ in self._poller.poll(0.1):
                self._receive(self._by_fd[fd])

    def _receive(self, listener: Listener) -> None:
        try:
            data = listener.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b''
        now = time.monotonic()
        if not data:
            listener.closed = listener.closed or 1006
            self._poller.unregister(listener.socket.fileno())
            return
        listener.frames.feed(data)
        while (frame := listener.frames.next_frame()) is not None:
            if frame.opcode == CLOSE:
                listener.closed = frame.close_code
            elif frame.opcode == PING:
                listener.socket.send(encode_frame(PONG, frame.payload))
            elif frame.opcode != PONG:
                listener.messages.append(frame.payload)
                moment = frame.payload.split(b' ')[1:2]
                if moment:
                    self.delays.append(now - float(moment[0]))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
