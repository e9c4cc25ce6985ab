"""What the hub's tests run it with: a loop that the test turns, peers, and a scripted Redis."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import hiredis

from tests.server_process import ROOT
from tests.timeouts import SOON_SECONDS
from tests.websocket_client import (
    BINARY,
    CLOSE,
    TEXT,
    Frame,
    FrameBuffer,
    close_payload,
    encode_frame,
)
from ws4redis.broker.link import pack_command
from ws4redis.broker.outgoing import Outgoing
from ws4redis.hub.bus_link import BusLink
from ws4redis.hub.channel import Channel
from ws4redis.hub.cluster_links import ClusterConnector
from ws4redis.hub.hub import Hub
from ws4redis.hub.joining import Joining
from ws4redis.hub.links import OneRedis
from ws4redis.hub.master_watch import Sentinels
from ws4redis.hub.options import HubOptions
from ws4redis.hub.publications import Packed, PackPublication, Publications
from ws4redis.hub.websocket import WebSocket
from ws4redis.loop.blocking_call import Pool
from ws4redis.loop.drivers import Bell, Done, Event
from ws4redis.loop.loop import Loop
from ws4redis.loop.native import NativeBell, NativeEvent
from ws4redis.loop.workers import Workers
from ws4redis.protocol.connection import ServerConnection
from ws4redis.protocol.frames import Opcode
from ws4redis.protocol.wire import PLAIN, WireFormat

T = TypeVar('T')


class StepDriver:
    """Leave it to the test to turn the loop; blocking work is done where it is submitted."""

    def __init__(self) -> None:
        self.workers = Workers(2)
        self.loop: Loop | None = None

    def start(self, loop: Loop) -> None:
        self.loop = loop

    def wake(self) -> None:
        if self.loop is not None:
            self.loop.wakeup.wake()

    def wait_stopped(self, timeout_seconds: float) -> bool:
        return self.loop is None or not self.loop.running

    def finish(self, timeout_seconds: float) -> bool:
        return self.wait_stopped(timeout_seconds)

    def in_loop(self) -> bool:
        return True

    def is_at_rest(self) -> bool:
        return False

    def give_way(self) -> None:
        if self.loop is not None:
            self.loop.turn(0)

    def event(self) -> Event:
        return NativeEvent()

    def bell(self) -> Bell:
        return NativeBell()

    def run_blocking(
        self,
        function: Callable[..., T],
        *args: Any,
        timeout_seconds: float | None = None,
        too_late: Callable[[T], object] | None = None,
        pool: Pool = Pool.POLICY,
    ) -> T:
        return function(*args)

    def pool(self, pool: Pool) -> Workers:
        return self.workers

    def submit(self, done: Done, function: Callable[..., Any], *args: Any) -> None:
        assert self.loop is not None
        try:
            result = function(*args)
        except Exception as exc:
            self.loop.call_soon(done, None, exc)
        else:
            self.loop.call_soon(done, result, None)

    def submit_apart(self, done: Done, function: Callable[..., Any], *args: Any) -> None:
        self.submit(done, function, *args)


class Clock:
    """A clock that goes only when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class ScriptedRedis:
    """Play Redis: the test reads the commands and writes the replies."""

    def __init__(self) -> None:
        self.refuses = False
        self.peers: list[socket.socket] = []
        self._readers: list[Any] = []

    def connect(self) -> socket.socket:
        """Connect, as the loop does."""
        if self.refuses:
            raise ConnectionRefusedError('nobody listens')
        ours, peer = socket.socketpair()
        peer.setblocking(False)
        self.peers.append(peer)
        # Commands are arrays of strings, in the same format as replies.
        self._readers.append(hiredis.Reader())
        return ours

    def commands(self, number: int = -1) -> list[list[bytes]]:
        """Return the commands that have arrived on one of the connections."""
        peer, reader = self.peers[number], self._readers[number]
        while True:
            try:
                data = peer.recv(65536)
            except BlockingIOError:
                break
            if not data:
                break
            reader.feed(data)
        commands = []
        while (command := reader.gets()) is not False:
            commands.append(command)
        return commands

    def reply(self, data: bytes, number: int = -1) -> None:
        """Send replies in Redis's protocol."""
        self.peers[number].sendall(data)

    def hang_up(self, number: int = -1) -> None:
        """Close a connection."""
        self.peers[number].close()

    def close(self) -> None:
        for peer in self.peers:
            peer.close()


def bulk(payload: bytes | None) -> bytes:
    """Return a reply that is a string, or null."""
    return b'_\r\n' if payload is None else b'$%d\r\n%b\r\n' % (len(payload), payload)


def push(*words: bytes | int) -> bytes:
    """Return a push of RESP3."""
    items = [b':%d\r\n' % word if isinstance(word, int) else bulk(word) for word in words]
    return b'>%d\r\n%b' % (len(words), b''.join(items))


def subscribed(channel: bytes, count: int = 1) -> bytes:
    return push(b'subscribe', channel, count)


def answer_to(command: list[bytes], kept: bytes | None = None) -> bytes:
    """Return what Redis answers to ``SUBSCRIBE``, or to a question for the kept message."""
    word, *names = command
    return b''.join(map(subscribed, names)) if word == b'SUBSCRIBE' else bulk(kept)


def unsubscribed(channel: bytes, count: int = 0) -> bytes:
    return push(b'unsubscribe', channel, count)


def published(channel: bytes, payload: bytes) -> bytes:
    return push(b'message', channel, payload)


def pack_publish_only(outgoing: Outgoing, tag: str, again: bool) -> Packed:
    """Pack a publication without anything kept: one command and one reply per channel."""
    packed = [pack_command(b'PUBLISH', name, outgoing.payload) for name in outgoing.channels]
    return b''.join(packed), len(packed), None


class Home(Hub):
    """Websockets whose loop the test turns. Use it in ``with``."""

    publications: Publications

    def __init__(
        self,
        *,
        connect: Callable[[], socket.socket] | None = None,
        cluster: ClusterConnector | None = None,
        sentinels: Sentinels | None = None,
        pack: PackPublication = pack_publish_only,
        options: HubOptions | None = None,
        clock: Clock | None = None,
        give_back: Callable[[Any], object] | None = None,
    ) -> None:
        self.redis = ScriptedRedis()
        if clock is not None and options is None:
            # A clock that a test moves by minutes would have pings sent, to some or to all.
            options = HubOptions(ping_interval_seconds=None)
        super().__init__(
            StepDriver(),
            connect=connect or self.redis.connect,
            cluster=cluster,
            sentinels=sentinels,
            pack=pack,
            options=options,
            give_back=give_back,
        )
        if clock is not None:
            self.loop.timers.clock = clock
            self.fanout._clock = clock
        self._peers: list[Peer] = []

    def __enter__(self) -> Home:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        # Connections on their way are taken in, so that they are closed.
        self.turn(3)
        self.loop.close()
        self.loop.driver.workers.stop()
        for peer in self._peers:
            peer.socket.close()
            peer.ours.close()
        self.redis.close()

    def join_names(
        self,
        websocket: WebSocket,
        names: Iterable[str],
        done: Callable[[], object],
        refused: Callable[[], object] | None = None,
    ) -> None:
        """Let a websocket join channels as a handshake does."""
        self.join_all(websocket, names, Joining(websocket, done=done, refused=refused))

    def turn(self, times: int = 1) -> None:
        """Do what there is to do, without waiting."""
        for _ in range(times):
            self.loop.turn(0)

    def turn_until(self, condition: Callable[[], object], *, message: str = '') -> None:
        """Turn until ``condition()`` is true. Raises AssertionError."""
        deadline = time.monotonic() + SOON_SECONDS
        while not condition():
            assert time.monotonic() < deadline, message or 'condition did not become true'
            timeout = self.loop.timeout()
            self.loop.turn(min(0.01 if timeout is None else timeout, 0.01))

    def turn_for(self, seconds: float) -> None:
        """Turn for a while."""
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0:
            self.loop.turn(min(remaining, 0.01))

    def peer(self, **options: Any) -> Peer:
        """Open a websocket and return its peer."""
        peer = Peer(self, **options)
        self._peers.append(peer)
        return peer


def bus_link_of(hub: Hub) -> BusLink:
    """Return the connection with the subscriptions of a hub that has one Redis."""
    assert isinstance(hub.links, OneRedis)
    return hub.links.bus_link


class RecordingReceiver:
    """Note what a websocket tells."""

    def __init__(self) -> None:
        self.messages: list[tuple[Opcode, bytes]] = []
        self.drained = 0
        self.closed: list[tuple[int, str]] = []

    def receive_message(self, websocket: WebSocket, opcode: Opcode, payload: bytes) -> None:
        self.messages.append((opcode, payload))

    def websocket_drained(self, websocket: WebSocket) -> None:
        self.drained += 1

    def websocket_closed(self, websocket: WebSocket, code: int, reason: str) -> None:
        self.closed.append((code, reason))


class Peer:
    """The browser's end of a websocket.

    ``tcp`` connects by TCP rather than by a socketpair; ``small_buffers`` makes the kernel hold
    little; ``attached=False`` leaves the websocket without its socket, as during its handshake.
    """

    def __init__(
        self,
        hub: Home,
        *,
        receiver: Any = None,
        wire: WireFormat = PLAIN,
        echo: bool = False,
        heartbeats: bool = False,
        publishes: tuple[str, ...] = (),
        place: Any = None,
        companion: Any = None,
        websocket_class: type[WebSocket] = WebSocket,
        tcp: bool = False,
        small_buffers: bool = False,
        attached: bool = True,
    ) -> None:
        self.hub = hub
        self.receiver = RecordingReceiver() if receiver is None else receiver
        self.websocket = websocket_class(
            hub,
            ServerConnection(hub.options.limits),
            wire,
            self.receiver,
            echo=echo,
            heartbeats=heartbeats,
            publishes=publishes,
            companion=companion,
            place=place,
        )
        self.ours, self.socket = tcp_pair() if tcp else socket.socketpair()
        if small_buffers:
            self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.ours.settimeout(0)
        self.socket.settimeout(0)
        self._frames = FrameBuffer()
        if attached:
            self.attach()

    def attach(self) -> None:
        self.websocket.attach(self.ours)

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are, and let the loop take them."""
        while data:
            try:
                data = data[self.socket.send(data) :]
            except BlockingIOError:
                pass
            self.hub.turn()

    def send_frame(self, opcode: int, payload: bytes = b'', **options: Any) -> None:
        self.send_bytes(encode_frame(opcode, payload, **options))

    def send(self, message: str | bytes) -> None:
        """Send a message: text for str, binary for bytes."""
        if isinstance(message, str):
            self.send_frame(TEXT, message.encode())
        else:
            self.send_frame(BINARY, message)

    def send_close(self, code: int = 1000, reason: str = '') -> None:
        self.send_frame(CLOSE, close_payload(code, reason))

    def receive_now(self) -> bool:
        """Take in what has arrived; tell whether anything may come yet."""
        while True:
            try:
                data = self.socket.recv(65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._frames.feed(data)

    def frames(self) -> list[Frame]:
        """Return the whole frames that have arrived."""
        self.receive_now()
        frames = []
        while (frame := self._frames.next_frame()) is not None:
            frames.append(frame)
        return frames

    def messages(self) -> list[str | bytes]:
        """Return the messages that have arrived; no other frame may have."""
        messages: list[str | bytes] = []
        for frame in self.frames():
            assert frame.opcode in (TEXT, BINARY), frame
            messages.append(frame.payload.decode() if frame.opcode == TEXT else frame.payload)
        return messages

    def frames_until_end(self) -> list[Frame]:
        """Turn the loop until our end is closed, and return all frames up to there.

        Bytes of a frame that is not whole are an error.
        """
        frames = []
        self.hub.turn_until(lambda: not self.receive_now(), message='the server did not close')
        frames = self.frames()
        assert not self._frames._data, 'a frame is cut off'
        return frames


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected TCP sockets."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    return server, client


def run_program(program: str, *, timeout: float = 3 * SOON_SECONDS) -> str:
    """Run a Python program in a process of its own, warnings being errors; return its output.

    For what needs a process: gevent's monkey patching above all.
    """
    done = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(program)],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'DJANGO_SETTINGS_MODULE': 'tests.settings'},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def fill(peer: Peer, *, size: int = 1000) -> int:
    """Send messages until the socket takes no more; return how many."""
    count = 0
    while not peer.websocket.queued_bytes:
        peer.websocket.send_message(b'%07d' % count + b'x' * (size - 7))
        count += 1
    return count


def closed(peer: Peer) -> tuple[int, str]:
    """Return code and reason with which the websocket told that it closed, exactly once."""
    receiver: RecordingReceiver = peer.receiver
    [end] = receiver.closed
    return end


def small_bound(max_queue_bytes: int = 10_000) -> Home:
    return Home(options=HubOptions(max_queue_bytes=max_queue_bytes))


def join(channel: Channel, *peers: Peer) -> None:
    for peer in peers:
        channel.add(peer.websocket)
        peer.websocket.channels = (*peer.websocket.channels, channel)


def deliver_all(hub: Home) -> int:
    """Deliver what there is to deliver; return in how many turns."""
    turns = 1
    while hub.fanout.turn_end():
        turns += 1
    return turns
