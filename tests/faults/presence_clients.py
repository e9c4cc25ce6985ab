"""Clients of channels with presence, which keep account of who is there as they are told."""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import sys
import time
from collections.abc import Iterable, Sequence

from tests.free_ports import free_port
from tests.server_process import ServerProcess
from ws4redis.test.frames import FrameBuffer


class PresenceProcess(ServerProcess):
    """A websocket process, see ``presence_process.py``."""

    name = 'presence process'

    def __init__(self, *, env: dict[str, str]) -> None:
        super().__init__(env=env)
        self.port = free_port()

    def command(self) -> Sequence[str]:
        return [sys.executable, '-m', 'tests.faults.presence_process', str(self.port)]

    def wait_until_ready(self, since: int) -> None:
        self.wait_for_log('ready', since=since)


class Client:
    """A tab: it stays connected to some process as long as it wants to."""

    def __init__(self, user: str, channel: str) -> None:
        self.user = user
        self.channel = channel
        self.wants_to_be_there = True
        self.comes_at = 0.0
        self.sock: socket.socket | None = None
        # Who is there as it was told; None until it was.
        self.members: set[str] | None = None
        self.wrong: list[str] = []
        self.told = 0
        self._frames = FrameBuffer()

    def connect(self, port: int) -> None:
        self.sock = socket.create_connection(('127.0.0.1', port), timeout=5)
        self.sock.sendall(f'{self.user} {self.channel}\n'.encode())
        self.sock.settimeout(0)
        self._frames = FrameBuffer()

    def drop(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None
        self.members = None

    def receive(self) -> bool:
        """Take what has arrived; tell whether the connection lives."""
        assert self.sock is not None
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._frames.feed(data)
        while (frame := self._frames.next_frame()) is not None:
            if frame.opcode == 1:
                self._take(*frame.payload.decode().split(' '))
        return bool(data)

    def _take(self, kind: str, *users: str) -> None:
        self.told += 1
        if kind == '=':
            self.members = {user for user in users if user}
            return
        (user,) = users
        if self.members is None or (user in self.members) == (kind == 'J'):
            self.wrong.append(f'{kind} {user} after {self.members}')
        elif kind == 'J':
            self.members.add(user)
        else:
            self.members.discard(user)


class Crowd:
    """Many clients, whose life goes on while :meth:`live` runs."""

    def __init__(
        self, clients: Iterable[Client], ports: Sequence[int], chance: random.Random
    ) -> None:
        self.clients = list(clients)
        self._ports = ports
        self._chance = chance
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for client in self.clients:
            client.drop()
        self._selector.close()

    def live(
        self, seconds: float, *, comings_and_goings: float = 0, back_within: float = 1.0
    ) -> None:
        """Let time pass; so many clients per second come or go of their own will."""
        end = time.monotonic() + seconds
        next_move = time.monotonic()
        while (now := time.monotonic()) < end:
            if comings_and_goings and now >= next_move:
                next_move = now + 1 / comings_and_goings
                self._move(self._chance.choice(self.clients))
            for client in self.clients:
                if client.wants_to_be_there and client.sock is None and now >= client.comes_at:
                    self._connect(client, back_within)
            for key, _ in self._selector.select(0.02):
                client = key.data
                if not client.receive():
                    self._drop(client)
                    client.comes_at = now + self._chance.uniform(0, back_within)

    def _move(self, client: Client) -> None:
        client.wants_to_be_there = not client.wants_to_be_there
        if not client.wants_to_be_there and client.sock is not None:
            self._drop(client)

    def _connect(self, client: Client, back_within: float) -> None:
        try:
            client.connect(self._chance.choice(self._ports))
        except OSError:
            client.drop()
            client.comes_at = time.monotonic() + self._chance.uniform(0.1, back_within)
            return
        assert client.sock is not None
        self._selector.register(client.sock, selectors.EVENT_READ, client)

    def _drop(self, client: Client) -> None:
        if client.sock is not None:
            with contextlib.suppress(KeyError):
                self._selector.unregister(client.sock)
        client.drop()

    def truth(self) -> dict[str, set[str]]:
        """Return who is connected, by channel."""
        there: dict[str, set[str]] = {client.channel: set() for client in self.clients}
        for client in self.clients:
            if client.sock is not None:
                there[client.channel].add(client.user)
        return there
