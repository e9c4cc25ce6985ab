"""Thousands of websockets in one process and one loop: the load client.

It must not be what bounds a measurement, hence:

- one `select.epoll` and one buffer, shared by all websockets; one `recv_into` per readiness event;
- frames are counted, not decoded. Broadcasts are frames of equal size, and a server often sends
  many at once: then two strided slices of the buffer (all first bytes, all second bytes) show in C
  that it holds nothing but such frames. Only what does not look like that is walked over, frame by
  frame, by its lengths;
- handshakes are pipelined: a window of them is in flight.

To show afterwards that what was counted were the messages that were published, one websocket, the
*witness*, keeps every byte it received.
"""

import array
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from . import frames

BUFFER_BYTES = 256 * 1024
EVENTS_PER_TURN = 512
HANDSHAKES_IN_FLIGHT = 100
TIMESTAMP_DIGITS = 20
RESET_ON_CLOSE = struct.pack('ii', 1, 0)
# One source address has some 28,000 ports, and the last free ones are slow to find.
WEBSOCKETS_PER_ADDRESS = 4_000
# Of Linux; `socket` has it from Python 3.12 on.
IP_BIND_ADDRESS_NO_PORT = 24


class HandshakeRefused(Exception):
    """The server answered the opening handshake with something else than 101."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How the handshakes went.

    Attributes:
        opened: number of websockets that are open.
        wanted: number of websockets that should be.
        seconds: from the first connect to the last answer.
        client_seconds: CPU time that this process spent meanwhile.
    """

    opened: int
    wanted: int
    seconds: float
    client_seconds: float


@dataclass(slots=True)
class Websocket:
    """One websocket of the swarm."""

    sock: socket.socket
    request: bytes
    answer: bytes = b''
    closed: bool = False
    outgoing: bytes = b''
    extensions: bytes = b''


@dataclass(slots=True)
class Tally:
    """What has arrived since the last `Swarm.reset()`."""

    messages: int = 0
    last_ns: int = 0
    latencies_ns: 'array.array[int]' = field(default_factory=lambda: array.array('q'))


class Swarm:
    """Hold websockets to one server.

    Args:
        address: host and port of the server.
        source: of which network in 127.0.0.0/8 the websockets come; 0: the system chooses.
    """

    def __init__(self, address: tuple[str, int], *, source: int = 0) -> None:
        self.address = address
        self.tally = Tally()
        self.websockets: list[Websocket] = []
        self.lost = 0
        self.transcript = bytearray()
        self._reads_latency = False
        self._epoll = select.epoll()
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._by_descriptor: dict[int, Websocket] = {}
        self._receivers: dict[int, Callable[[bytearray], int]] = {}
        self._received: dict[int, int] = {}
        self._partial: dict[int, bytes] = {}
        self._attached: dict[int, Callable[[int], None]] = {}
        self._on_message: Callable[[int], None] | None = None
        self._opening: set[int] = set()
        self._open_count = 0
        self._witness = -1
        self._stride = 0
        self._first_byte = 0
        self._second_byte = 0
        self._source = source

    # -- the loop ---------------------------------------------------------------------------------

    def turn(self, timeout: float) -> None:
        """Wait for at most `timeout` seconds, then receive what has arrived."""
        receivers, buffer = self._receivers, self._buffer
        for descriptor, events in self._epoll.poll(timeout, EVENTS_PER_TURN):
            receive = receivers.get(descriptor)
            if receive is None:
                self._handle_other(descriptor, events)
                continue
            if events & select.EPOLLOUT:
                self._flush(descriptor)
            if not events & ~select.EPOLLOUT:
                continue
            try:
                size = receive(buffer)
            except BlockingIOError:
                continue
            except OSError:
                size = 0
            if size:
                self._count_frames(descriptor, size)
            else:
                self._lose(descriptor)

    def run(
        self,
        done: Callable[[], bool],
        *,
        limit_seconds: float,
        next_due: Callable[[], float] | None = None,
    ) -> bool:
        """Run the loop until `done()`; return whether it was within `limit_seconds`.

        Args:
            done: asked once per turn.
            limit_seconds: the loop ends when they have passed.
            next_due: called once per turn to do what is due (publish, say); returns the seconds
                until it wants to be called again.
        """
        end = time.monotonic() + limit_seconds
        while not done():
            now = time.monotonic()
            if now >= end:
                return False
            wait = next_due() if next_due is not None else 0.1
            self.turn(max(0.0, min(wait, end - now, 0.1)))
        return True

    def run_until_quiet(self, *, quiet_seconds: float, limit_seconds: float) -> None:
        """Run the loop until no message has arrived for `quiet_seconds`."""
        end = time.monotonic() + limit_seconds
        last, since = self.tally.messages, time.monotonic()
        while (now := time.monotonic()) < end and now - since < quiet_seconds:
            self.turn(quiet_seconds / 4)
            if self.tally.messages != last:
                last, since = self.tally.messages, time.monotonic()

    def attach(self, descriptor: int, events: int, callback: Callable[[int], None]) -> None:
        """Watch a further descriptor; `callback(events)` runs in the loop."""
        self._attached[descriptor] = callback
        self._epoll.register(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        """Change what an attached descriptor is watched for."""
        self._epoll.modify(descriptor, events)

    def detach(self, descriptor: int) -> None:
        """No longer watch an attached descriptor."""
        if self._attached.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Close all websockets, without the closing handshake, and the loop."""
        for websocket in self.websockets:
            if not websocket.closed:
                # A reset leaves no port in TIME_WAIT for the next measurement.
                websocket.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                websocket.sock.close()
        self._epoll.close()

    def _handle_other(self, descriptor: int, events: int) -> None:
        callback = self._attached.get(descriptor)
        if callback is not None:
            callback(events)
        elif descriptor in self._by_descriptor:
            self._receive_answer(descriptor, events)

    # -- handshakes -------------------------------------------------------------------------------

    def open(
        self,
        requests: Sequence[bytes],
        *,
        limit_seconds: float,
        in_flight: int = HANDSHAKES_IN_FLIGHT,
    ) -> Opening:
        """Open one websocket per request, `in_flight` handshakes at a time.

        Args:
            requests: the bytes of the opening handshakes.
            limit_seconds: those that are not open by then are not waited for.
            in_flight: how many handshakes are under way at once.

        Raises:
            HandshakeRefused: the server refused one of them.
        """
        started, started_cpu = time.monotonic(), time.process_time()
        end = started + limit_seconds
        already_open = self._open_count
        next_request = 0
        while next_request < len(requests) or self._opening:
            while next_request < len(requests) and len(self._opening) < in_flight:
                self._connect(requests[next_request])
                next_request += 1
            remaining = end - time.monotonic()
            if remaining <= 0:
                break
            self.turn(min(remaining, 0.1))
        return Opening(
            opened=self._open_count - already_open,
            wanted=len(requests),
            seconds=time.monotonic() - started,
            client_seconds=time.process_time() - started_cpu,
        )

    def _connect(self, request: bytes) -> None:
        sock = self._connected_socket()
        descriptor = sock.fileno()
        websocket = Websocket(sock, request)
        self.websockets.append(websocket)
        self._by_descriptor[descriptor] = websocket
        self._received[descriptor] = 0
        self._partial.pop(descriptor, None)  # of a lost websocket with the same descriptor
        self._opening.add(descriptor)
        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLOUT)

    def _connected_socket(self) -> socket.socket:
        sock = socket.socket()
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._source:
            host = len(self.websockets) // WEBSOCKETS_PER_ADDRESS + 1
            # The port is chosen on connecting, when the kernel knows that it need not be unique.
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((f'127.0.{self._source}.{host}', 0))
        error = sock.connect_ex(self.address)
        if error not in {0, errno.EINPROGRESS}:
            sock.close()
            raise OSError(error, os.strerror(error))
        return sock

    def _receive_answer(self, descriptor: int, events: int) -> None:
        websocket = self._by_descriptor[descriptor]
        try:
            if websocket.request and events & select.EPOLLOUT:
                # A request fits into an empty socket buffer.
                websocket.sock.send(websocket.request)
                websocket.request = b''
                self._epoll.modify(descriptor, select.EPOLLIN)
                return
            data = websocket.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as exc:
            raise HandshakeRefused(f'the connection broke: {exc}') from exc
        websocket.answer += data
        head, separator, rest = websocket.answer.partition(b'\r\n\r\n')
        if separator and head.startswith(b'HTTP/1.1 101 ') and frames.ACCEPT in head:
            self._upgrade(descriptor, websocket, head, rest)
        elif separator or not data:
            raise HandshakeRefused(websocket.answer[:500].decode('latin-1') or 'no answer')

    def _upgrade(self, descriptor: int, websocket: Websocket, head: bytes, rest: bytes) -> None:
        websocket.answer = b''
        for line in head.split(b'\r\n'):
            name, _, value = line.partition(b':')
            if name.lower() == b'sec-websocket-extensions':
                websocket.extensions = value.strip()
        self._receivers[descriptor] = websocket.sock.recv_into
        self._open_count += 1
        self._opening.discard(descriptor)
        if rest:
            self._buffer[: len(rest)] = rest
            self._count_frames(descriptor, len(rest))

    # -- counting ---------------------------------------------------------------------------------

    def reset(self, *, reads_latency: bool = False) -> None:
        """Count from zero; `reads_latency`: also read the time stamps of the messages."""
        self.tally = Tally()
        self._received = dict.fromkeys(self._received, 0)
        self._reads_latency = reads_latency
        self._stride = 0
        self.transcript.clear()

    def choose_witness(self, index: int = 0) -> None:
        """Keep in `transcript` what this websocket receives from now on."""
        self._witness = self.websockets[index].sock.fileno()
        self.transcript.clear()

    def call_on_message(self, callback: Callable[[int], None] | None) -> None:
        """Call back with the descriptor of the websocket for each message, or for none."""
        self._on_message = callback

    def waiting(self) -> int:
        """Return how many websockets have received no message since the last reset."""
        return sum(
            1
            for descriptor, count in self._received.items()
            if not count and not self._by_descriptor[descriptor].closed
        )

    def _count_frames(self, descriptor: int, size: int) -> None:
        if descriptor == self._witness:
            self.transcript += self._view[:size]
        data: bytearray | bytes = self._buffer
        if descriptor in self._partial:
            data = self._partial.pop(descriptor) + self._view[:size]
            size = len(data)
        position = self._count_equal_frames(descriptor, data, size)
        while size - position >= 2:
            length, start = data[position + 1] & 0x7F, position + 2
            if length >= 126:
                width = 2 if length == 126 else 8
                if start + width > size:
                    break
                length, start = int.from_bytes(data[start : start + width]), start + width
            stop = start + length
            if stop > size:
                break
            self._receive_frame(descriptor, data, position, start, stop)
            position = stop
        if position < size:
            self._partial[descriptor] = bytes(data[position:size])

    def _count_equal_frames(self, descriptor: int, data: bytearray | bytes, size: int) -> int:
        """Count leading frames of equal size at once; return how many bytes they take."""
        stride = self._stride
        count = size // stride if stride and not self._reads_latency else 0
        if count < 2:
            return 0
        stop = count * stride
        if (
            data[0:stop:stride].count(self._first_byte) != count
            or data[1:stop:stride].count(self._second_byte) != count
        ):
            return 0
        self._add(descriptor, count)
        return stop

    def _add(self, descriptor: int, count: int) -> None:
        tally = self.tally
        now = time.monotonic_ns()
        tally.last_ns = now
        tally.messages += count
        self._received[descriptor] += count
        if self._on_message is not None:
            for _ in range(count):
                self._on_message(descriptor)

    def _receive_frame(
        self, descriptor: int, data: bytearray | bytes, position: int, start: int, stop: int
    ) -> None:
        first = data[position]
        opcode = first & 0x0F
        if opcode == frames.PING:
            self._send_frame(descriptor, frames.PONG, bytes(data[start:stop]))
        elif opcode == frames.CLOSE:
            self._lose(descriptor)
        elif opcode <= frames.BINARY and first & frames.FINAL:
            self._add(descriptor, 1)
            if self._reads_latency:
                sent = int(data[start : start + TIMESTAMP_DIGITS])
                self.tally.latencies_ns.append(self.tally.last_ns - sent)
            elif not self._stride and start - position == 2:
                self._stride = stop - position
                self._first_byte, self._second_byte = first, data[position + 1]

    # -- sending ----------------------------------------------------------------------------------

    def send(self, index: int, payload: bytes) -> None:
        """Send a text message from one websocket, by its index, unless the server has closed it."""
        websocket = self.websockets[index]
        if not websocket.closed:
            self._send_frame(websocket.sock.fileno(), frames.TEXT, payload)

    def send_from(self, descriptor: int, payload: bytes) -> None:
        """Send a text message from one websocket, by its descriptor."""
        self._send_frame(descriptor, frames.TEXT, payload)

    def _send_frame(self, descriptor: int, opcode: int, payload: bytes) -> None:
        websocket = self._by_descriptor[descriptor]
        if websocket.closed:
            return
        frame = frames.masked_frame(opcode, payload)
        if websocket.outgoing:
            websocket.outgoing += frame
            return
        try:
            sent = websocket.sock.send(frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lose(descriptor)
            return
        if sent < len(frame):
            websocket.outgoing = frame[sent:]
            self._epoll.modify(descriptor, select.EPOLLIN | select.EPOLLOUT)

    def _flush(self, descriptor: int) -> None:
        websocket = self._by_descriptor[descriptor]
        try:
            sent = websocket.sock.send(websocket.outgoing)
        except BlockingIOError:
            return
        except OSError:
            self._lose(descriptor)
            return
        websocket.outgoing = websocket.outgoing[sent:]
        if not websocket.outgoing:
            self._epoll.modify(descriptor, select.EPOLLIN)

    def _lose(self, descriptor: int) -> None:
        websocket = self._by_descriptor[descriptor]
        if websocket.closed:
            return
        websocket.closed = True
        self.lost += 1
        self._opening.discard(descriptor)
        self._receivers.pop(descriptor, None)
        self._partial.pop(descriptor, None)
        self._epoll.unregister(descriptor)
        websocket.sock.close()
