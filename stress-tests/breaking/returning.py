"""Plain websockets that count what they get, and come back with the position they have seen."""

from __future__ import annotations

import random
import selectors
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

from tests.websocket_client import CLOSE, PING, PONG, TEXT, FrameBuffer, encode_frame
from ws4redis.test.handshakes import handshake_request, new_key

COME_BACK_SECONDS = (0.05, 1.0)
ANSWER_SECONDS = 10.0


@dataclass
class Account:
    """What one client got of one channel: numbers, and None where it was told of a gap."""

    items: list[int | None] = field(default_factory=list)
    longest_silence: float = 0.0
    _heard: float | None = None

    def take(self, number: int) -> None:
        self.silence()
        self._heard = time.monotonic()
        self.items.append(number)

    def silence(self) -> float:
        """Return the longest time between two numbers, the present one included."""
        if self._heard is not None:
            self.longest_silence = max(self.longest_silence, time.monotonic() - self._heard)
        return self.longest_silence


@dataclass
class Faults:
    """What was wrong with all that clients got, in sum."""

    received: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    lost_untold: int = 0
    missing_with_a_gap: int = 0
    gaps: Counter[str] = field(default_factory=Counter)
    longest_silence: float = 0.0


class ReturningClient:
    """One websocket on one channel, which publishes the numbers 1, 2, 3 … without kept messages.

    Each message is one offset further than the position which the answer to the handshake told.
    """

    def __init__(self, url: str, address: tuple[str, int]) -> None:
        self.account = Account()
        self.gaps: Counter[str] = Counter()
        self.opened = 0
        self.refused = 0
        self.sock: socket.socket | None = None
        self.due = 0.0
        self._url = url
        self._address = address
        self._position: tuple[str, int, str] | None = None
        self._frames: FrameBuffer | None = None
        self._head = b''

    # Connecting

    @property
    def since(self) -> str:
        if self._position is None:
            return ''
        name, offset, tag = self._position
        return f'{name}.{offset}.{tag}'

    def connect(self) -> socket.socket | None:
        url = f'{self._url}&since={self.since}'
        self._frames, self._head = None, b''
        self.sock = socket.socket()
        # A server whose queue is full must not hold up the others: it is tried again.
        self.sock.setblocking(False)
        self.sock.connect_ex(self._address)
        try:
            self.sock.sendall(handshake_request(url, key=new_key()))
        except OSError:
            self.lost()
            return None
        self.due = time.monotonic() + ANSWER_SECONDS
        return self.sock

    def lost(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None
        self.due = time.monotonic() + random.uniform(*COME_BACK_SECONDS)

    @property
    def is_open(self) -> bool:
        return self.sock is not None and self._frames is not None

    # Receiving

    def receive(self) -> bool:
        """Take what has come; return whether the connection is still there."""
        assert self.sock is not None
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        if self._frames is None:
            self._head += data
            if b'\r\n\r\n' not in self._head:
                return True
            head, _, data = self._head.partition(b'\r\n\r\n')
            if not self._take_answer(head.decode()):
                return False
        assert self._frames is not None
        self._frames.feed(data)
        return self._take_frames()

    def _take_answer(self, head: str) -> bool:
        status, *lines = head.split('\r\n')
        headers = {name.lower(): value for name, _, value in (x.partition(': ') for x in lines)}
        position = headers.get('ws4redis-position')
        if ' 101 ' not in status or (position is None and self._position is None):
            # Without a position it could not tell what it missed. What it named holds, though.
            self.refused += 1
            return False
        gap = headers.get('ws4redis-gap')
        if gap is not None:
            self._tell_gap(gap)
        if position is not None:
            digest, epoch, offset, tag = position.split('.')
            self._position = (f'{digest}.{epoch}', int(offset), tag)
        self.opened += 1
        self._frames = FrameBuffer()
        return True

    def _tell_gap(self, cause: str) -> None:
        self.gaps[cause] += 1
        self.account.items.append(None)

    def _take_frames(self) -> bool:
        assert self._frames is not None
        assert self.sock is not None
        while (frame := self._frames.next_frame()) is not None:
            if frame.opcode == PING:
                self.sock.sendall(encode_frame(PONG, frame.payload))
            elif frame.opcode == CLOSE:
                return False
            elif frame.opcode == TEXT:
                assert self._position is not None
                name, offset, _ = self._position
                # The publisher makes each number the tag, too.
                self._position = name, offset + 1, frame.payload.decode()
                self.account.take(int(frame.payload))
        return True


class ReturningCrowd:
    """Run many of them in the caller's thread."""

    def __init__(self, clients: list[ReturningClient]) -> None:
        self.clients = clients
        self._selector = selectors.DefaultSelector()

    def run(self, seconds: float) -> None:
        """Let them receive and come back for a while."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            for client in self.clients:
                if client.due <= now and not client.is_open:
                    self._connect(client)
            for key, _ in self._selector.select(0.01):
                client = key.data
                if client.sock is not None and not client.receive():
                    self.cut(client)

    def _connect(self, client: ReturningClient) -> None:
        if client.sock is not None:
            # No answer in time.
            self.cut(client)
            return
        sock = client.connect()
        if sock is not None:
            self._selector.register(sock, selectors.EVENT_READ, client)

    def cut(self, client: ReturningClient) -> None:
        """End a connection without a word."""
        if client.sock is not None:
            self._selector.unregister(client.sock)
        client.lost()

    @property
    def number_open(self) -> int:
        return sum(client.is_open for client in self.clients)

    def close(self) -> None:
        for client in self.clients:
            self.cut(client)
        self._selector.close()


def faults_of(clients: list[ReturningClient], channels: list[str], last: dict[str, int]) -> Faults:
    """Judge what the clients of some channels got; ``last`` is the last number of each."""
    faults = Faults()
    for client, channel in zip(clients, channels, strict=True):
        items = client.account.items
        faults.gaps += client.gaps
        faults.longest_silence = max(faults.longest_silence, client.account.longest_silence)
        faults.received += sum(item is not None for item in items)
        highest = 0
        for before, item in pairwise([None, *items]):
            if item is None:
                continue
            if item <= highest:
                faults.duplicated += item == before or item in items[: items.index(item)]
                faults.out_of_order += 1
            elif before is not None and item != before + 1:
                faults.lost_untold += item - before - 1
            elif before is None and highest:
                faults.missing_with_a_gap += item - highest - 1
            highest = max(highest, item)
        if items and items[-1] is not None:
            faults.lost_untold += last[channel] - items[-1]
    return faults
