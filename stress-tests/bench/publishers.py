"""What publishes: each contender's own way into Redis, written from the load client's loop.

A publisher must not be what bounds a measurement. So whole batches are encoded at once and written
in one go; answers are read and thrown away, except for errors. Only Channels needs a process of its
own for it, since its layers are more than one Redis command (`servers/channels_publisher.py`).
"""

import os
import select
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from ws4redis.broker.history import publish_command
from ws4redis.broker.keys import keys_of
from ws4redis.broker.scripts import PUBLISH
from ws4redis.settings.facilities import FacilityOptions

from .processes import ServerProcess
from .redis_server import RedisServer
from .swarm import TIMESTAMP_DIGITS, Swarm

MESSAGE_BYTES = 100
_SEQUENCE_DIGITS = 8
HISTORY = FacilityOptions(history_size=100)

Batch = Iterable[tuple[str, bytes]]


def timed_message(sequence: int, *, size: int = MESSAGE_BYTES) -> bytes:
    """Return an ASCII message of `size` bytes that begins with the current time.

    The clock is `CLOCK_MONOTONIC`, which all processes of a machine share.
    """
    stamp = b'%0*d' % (TIMESTAMP_DIGITS, time.monotonic_ns())
    return (stamp + b' %0*d ' % (_SEQUENCE_DIGITS, sequence)).ljust(size, b'x')


class PublishFailed(Exception):
    """Redis refused a command."""


class Publisher(Protocol):
    """Publish messages on a contender's channels."""

    def publish(self, batch: Batch) -> None:
        """Queue messages, given as pairs of facility and message; the swarm's loop sends them."""

    def close(self) -> None:
        """Close the connection."""


class Outlet:
    """Write to a descriptor from the swarm's loop, as fast as it takes it.

    Args:
        swarm: its loop is used.
        descriptor: a non-blocking socket or pipe.
        receive: called when there is something to read; for a pipe it is `None`.
    """

    def __init__(
        self, swarm: Swarm, descriptor: int, *, receive: Callable[[], None] | None = None
    ) -> None:
        self._swarm = swarm
        self._descriptor = descriptor
        self._receive = receive
        self._reads = select.EPOLLIN if receive is not None else 0
        self._outgoing: deque[memoryview] = deque()
        swarm.attach(descriptor, self._reads, self._ready)

    def write(self, data: bytes) -> None:
        """Write, or queue what does not fit."""
        self._outgoing.append(memoryview(data))
        if len(self._outgoing) > 1:
            return
        self._flush()
        if self._outgoing:
            self._swarm.change(self._descriptor, self._reads | select.EPOLLOUT)

    def close(self) -> None:
        """Leave the swarm's loop."""
        self._swarm.detach(self._descriptor)

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
            if not self._outgoing:
                self._swarm.change(self._descriptor, self._reads)
        if events & ~select.EPOLLOUT:
            if self._receive is None:
                raise PublishFailed('what publishes is gone')
            self._receive()

    def _flush(self) -> None:
        while self._outgoing:
            chunk = self._outgoing[0]
            try:
                sent = os.write(self._descriptor, chunk)
            except BlockingIOError:
                return
            if sent < len(chunk):
                self._outgoing[0] = chunk[sent:]
                return
            self._outgoing.popleft()


class RedisPublisher:
    """Publish with plain `PUBLISH` commands, pipelined.

    Args:
        swarm: its loop is used.
        address: host and port of Redis.
    """

    def __init__(self, swarm: Swarm, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(0)
        self._outlet = Outlet(swarm, self._socket.fileno(), receive=self._receive)

    def publish(self, batch: Batch) -> None:
        """Queue messages, given as pairs of facility and message; the swarm's loop sends them."""
        self._outlet.write(b''.join(self._encode(*publication) for publication in batch))

    def close(self) -> None:
        """Close the connection."""
        self._outlet.close()
        self._socket.close()

    def _encode(self, facility: str, message: bytes) -> bytes:
        channel = b'broadcast:' + facility.encode()
        head = b'*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n'
        return head % (len(channel), channel, len(message)) + message + b'\r\n'

    def _receive(self) -> None:
        answers = self._socket.recv(1024 * 1024)
        if not answers:
            raise PublishFailed('the connection was closed')
        self._check(answers)

    def _check(self, answers: bytes) -> None:
        # Each answer is `:<number of receivers>`.
        if b'-' in answers:
            raise PublishFailed(answers[answers.index(b'-') :][:200].decode())


class HistoryPublisher(RedisPublisher):
    """Publish as ws4redis does on a facility with a history: by its script."""

    def __init__(self, swarm: Swarm, redis_server: RedisServer) -> None:
        super().__init__(swarm, redis_server.address)
        redis_server.client.script_load(PUBLISH.text)

    def _encode(self, facility: str, message: bytes) -> bytes:
        keys = keys_of(b'broadcast:' + facility.encode())
        command = publish_command(keys, message, HISTORY, keep_seconds=0)
        words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
        lines = (b'$%d\r\n%b\r\n' % (len(word), word) for word in words)
        return b'*%d\r\n' % len(words) + b''.join(lines)


class NchanPublisher(RedisPublisher):
    """Publish with pipelined HTTP requests to Nchan, whose address is given instead of Redis'."""

    def _encode(self, facility: str, message: bytes) -> bytes:
        head = b'POST /pub/%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n'
        return head % (facility.encode(), len(message)) + message

    def _check(self, answers: bytes) -> None:
        for status in (b'HTTP/1.1 4', b'HTTP/1.1 5'):
            if status in answers:
                raise PublishFailed(answers[answers.index(status) :][:200].decode())


class ChannelsPublisher:
    """Publish through a channel layer, in a process of its own that reads from a pipe.

    Args:
        swarm: its loop is used.
        python: the Python of the environment with Channels in it.
        environment: variables that choose layer and Redis.
        directory: where its log goes.
    """

    def __init__(
        self, swarm: Swarm, python: Path, *, environment: Mapping[str, str], directory: Path
    ) -> None:
        self._process = ServerProcess(
            [python, '-m', 'bench.servers.channels_publisher'],
            port=None,
            log=directory / 'channels-publisher.log',
            environment=environment,
            stdin=subprocess.PIPE,
        )
        stdin = self._process.popen.stdin
        assert stdin is not None
        self._stdin = stdin
        os.set_blocking(stdin.fileno(), False)
        self._outlet = Outlet(swarm, stdin.fileno())

    def publish(self, batch: Batch) -> None:
        """Queue messages, given as pairs of facility and message; the swarm's loop sends them."""
        self._outlet.write(
            b''.join(b'%b %b\n' % (facility.encode(), message) for facility, message in batch)
        )

    def close(self) -> None:
        """End the process."""
        self._outlet.close()
        try:
            self._stdin.close()
        except BrokenPipeError:
            pass
        self._process.stop()
