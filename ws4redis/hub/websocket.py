"""One websocket: its socket, its protocol state and its bounded output.

All methods run in the loop. Code elsewhere hands them over:
``hub.call_soon(websocket.close, 1000)``.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections import deque
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

from ws4redis.hub.own_messages import OwnMessages
from ws4redis.loop.poller import READABLE, WRITABLE
from ws4redis.protocol.connection import ServerConnection, State
from ws4redis.protocol.frames import CloseCode, Opcode, encode_frame

if TYPE_CHECKING:
    from ws4redis.hub.channel import Channels
    from ws4redis.hub.websockets import WebSockets
    from ws4redis.protocol.wire import WireFormat

logger = logging.getLogger('ws4redis')

READ_BYTES = 65536
# A peer that ignores our end of the connection is given up after this while.
LINGER_SECONDS = 2.0
# A peer's broken pipe is an error to handle here, never a signal for the process.
SEND_FLAGS = getattr(socket, 'MSG_NOSIGNAL', 0)
_RESET_ON_CLOSE = struct.pack('ii', 1, 0)


class Phase(IntEnum):
    """The life of a websocket's socket."""

    OPENING = 0  # no socket yet: the handshake is being answered, output is queued
    OPEN = 1
    CLOSING = 2  # our close frame is queued or sent, the peer's is awaited
    ENDING = 3  # nothing is read as messages any more; output is flushed, then the socket lingers
    CLOSED = 4


class Paused(IntEnum):
    """Why a websocket is not read: bits of :attr:`WebSocket.paused`."""

    REDIS = 1  # Redis does not take what it sends
    RECEIVER = 2  # whoever receives its messages lags
    PEER_ENDED = 4  # the peer sends nothing more, but may still take what is queued for it


class Receiver(Protocol):
    """Takes what websockets send; one object may serve many. Called in the loop: must not block."""

    def receive_message(self, websocket: WebSocket, opcode: Opcode, payload: bytes) -> None: ...

    def websocket_drained(self, websocket: WebSocket) -> None:
        """Go on sending, if that waited: all output that was queued has gone out."""

    def websocket_closed(self, websocket: WebSocket, code: int, reason: str) -> None:
        """Take the end; called once, whatever ended the websocket."""


class WebSocket:
    """One connection to a browser."""

    __slots__ = (
        '_events',
        '_queue',
        '_timer',
        'channels',
        'companion',
        'direct',
        'echo',
        'fd',
        'held',
        'home',
        'own',
        'paused',
        'phase',
        'pinged_in_round',
        'place',
        'protocol',
        'publishes',
        'queued_bytes',
        'rate',
        'receiver',
        'sock',
        'wire',
    )

    def __init__(
        self,
        home: WebSockets,
        protocol: ServerConnection,
        wire: WireFormat,
        receiver: Receiver,
        *,
        echo: bool = False,
        publishes: tuple[str, ...] = (),
        companion: Any = None,
        place: Any = None,
    ) -> None:
        self.home = home
        self.protocol = protocol
        self.wire = wire
        self.receiver = receiver
        self.echo = echo
        self.publishes = publishes
        self.companion = companion
        self.place = place
        self.channels: Channels = ()
        self.own: OwnMessages | None = None
        # Deliveries wait here while the subscriber sends what it wants to come first.
        self.held: list[bytes] | None = None
        self.sock: socket.SocketType | None = None
        self.fd = -1
        self.phase = Phase.OPENING
        # Whether a delivery may be sent at once: open, nothing queued before it, nothing to filter.
        self.direct = False
        self.paused = 0
        self.pinged_in_round = 0
        self.queued_bytes = 0
        self.rate: tuple[float, float] | None = None
        self._queue: deque[tuple[bytes | memoryview, int]] | None = None
        self._events = READABLE
        self._timer: Any = None

    def __repr__(self) -> str:
        return f'<WebSocket fd={self.fd} {self.phase.name}>'

    # Opening

    def attach(self, sock: socket.SocketType) -> None:
        """Take over the socket once the handshake's answer has been written to it."""
        if self.phase is not Phase.OPENING or self.home.hub.is_closed:
            # Closed before it was open: by a shutdown, say.
            sock.close()
            self._finish(CloseCode.GOING_AWAY, None)
            return
        self.sock = sock
        self.fd = sock.fileno()
        self.phase = Phase.OPEN
        self.home.opened(self)
        self.home.hub.register(self.fd, self, self._events)
        if self._queue:
            self._flush()
        self._update_direct()
        # It may have been paused before it was open.
        self._watch()
        if self.home.farewell is not None:
            # Its handshake was under way when the server began to stop.
            self.close(*self.home.farewell)

    # What the peer sends

    def ready(self, events: int) -> None:
        if events & WRITABLE:
            self._flush()
        if events & ~WRITABLE and self.phase is not Phase.CLOSED:
            if not self.paused and self.phase is Phase.ENDING:
                self._drain()
            elif not self.paused:
                self._receive()
            elif events & ~(READABLE | WRITABLE):
                # Not read now, but the poller reports the error or hang-up again and again.
                self.lost()

    def _receive(self) -> None:
        assert self.sock is not None
        try:
            data = self.sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.lost()
            return
        if not data:
            self.protocol.receive_eof()
            self.lost()
            return
        self.home.statistics.bytes_received += len(data)
        self._handle(self.protocol.receive_data(data))

    def _handle(self, events: list[tuple[Opcode, bytes]]) -> None:
        if self.protocol.state is State.OPEN:
            # A pong goes out before what answers the messages of the same read. Only a close frame
            # has to wait for them, since nothing may follow it.
            self._send_reply()
        for opcode, payload in events:
            if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
                if self.phase is Phase.OPEN and self.home.admits_message(self):
                    self.receiver.receive_message(self, opcode, payload)
            elif opcode is Opcode.PONG:
                self.pinged_in_round = 0
        self._send_reply()
        if self.protocol.state is not State.OPEN:
            self._follow_protocol()

    def _send_reply(self) -> None:
        reply = self.protocol.data_to_send()
        # After our close frame nothing is owed to the peer any more, however many pings it sends.
        if reply and self.phase is Phase.OPEN:
            self.send(reply)

    def pause_reading(self, why: Paused) -> None:
        """Stop reading the socket, so that TCP holds the sender back."""
        if self.phase <= Phase.OPEN or why is Paused.PEER_ENDED:
            self.paused |= why
            self._watch()

    def resume_reading(self, why: Paused) -> None:
        self.paused &= ~why
        self._watch()

    # What the peer is sent

    def send_message(self, payload: bytes, opcode: Opcode | None = None) -> None:
        """Send one message; without ``opcode`` as text where it is valid UTF-8, else as binary."""
        self.send(self.wire.encode_message(payload, opcode), messages=1)

    def send_kept(self, payload: bytes) -> None:
        """Send the kept message of a channel, unless the subscriber does that itself."""
        if self.companion is None or not self.companion.sends_persisted_messages:
            self.send_message(payload)

    def deliver(self, payloads: list[bytes], frames: list[bytes]) -> None:
        """Send messages of a channel, with their frames, except those that it sent itself."""
        if self.held is not None:
            self.held.extend(payloads)
            return
        if self.own is not None:
            recognises = self.own.recognises
            frames = [f for f, p in zip(frames, payloads, strict=True) if not recognises(p)]
        if frames:
            self.send(b''.join(frames), messages=len(frames))

    def send_ping(self, payload: bytes = b'') -> None:
        """Send a ping; the pong clears :attr:`pinged_in_round`."""
        self.send(encode_frame(Opcode.PING, payload))

    def hold(self) -> None:
        """Keep deliveries back until :meth:`release_held`."""
        self.held = []
        self.direct = False

    def release_held(self, sent: list[bytes]) -> None:
        """Send what was kept back, except what the subscriber sent meanwhile."""
        held, self.held = self.held or [], None
        for payload in held:
            if payload in sent:
                sent.remove(payload)
            else:
                self.deliver([payload], [self.wire.encode_message(payload)])
        self._update_direct()

    def remember_own(self, payload: bytes, channels: tuple[str, ...]) -> None:
        """Note a message that this websocket publishes, if it is not to be sent it back."""
        if self.echo:
            return
        if self.own is None:
            self.own = OwnMessages()
            self.direct = False
        copies = sum(self.home.bus.holds(self, name) for name in channels)
        self.own.sent(payload, copies=copies)

    def send(self, data: bytes, *, messages: int = 0) -> None:
        """Send frames, or queue what the socket does not take now.

        ``messages`` is the number of messages among them, for the statistics.
        """
        if self.phase > Phase.CLOSING or (messages and self.phase is Phase.CLOSING):
            # No data may follow a close frame (RFC 6455, section 5.5.1).
            if messages:
                self.home.statistics.messages_not_delivered[self._close_code()] += messages
            return
        sent = 0
        if not self._queue and self.sock is not None:
            try:
                sent = self.sock.send(data, SEND_FLAGS)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                self.lost(undelivered=messages)
                return
            self.home.statistics.bytes_sent += sent
            if sent == len(data):
                self.home.statistics.messages_sent += messages
                return
        self.queue(data, sent, messages)

    def queue(self, data: bytes, sent: int, messages: int) -> None:
        """Queue frames of which the socket took ``sent`` bytes; too many of them end it."""
        if self._queue is None:
            self._queue = deque()
        # A single message may be as large as it likes; else it could never be delivered.
        is_bounded = bool(self._queue) or messages > 1
        rest = memoryview(data)[sent:] if sent else data
        self._queue.append((rest, messages))
        self.queued_bytes += len(rest)
        self.direct = False
        if (
            is_bounded
            and self.queued_bytes > self.home.options.max_queue_bytes
            and self.phase is Phase.OPEN
            # The close frame that follows an overflow is queued whatever it comes behind.
            and self.protocol.state is State.OPEN
        ):
            self._overflow()
        self._watch()

    def _overflow(self) -> None:
        # Only whole frames may be dropped: what was begun is finished, then comes the close frame.
        assert self._queue is not None
        kept = self._queue.popleft() if isinstance(self._queue[0][0], memoryview) else None
        dropped = sum(messages for _, messages in self._queue)
        self.home.statistics.messages_not_delivered[CloseCode.TRY_AGAIN_LATER] += dropped
        self._queue.clear()
        self.queued_bytes = 0
        if kept is not None:
            self._queue.append(kept)
            self.queued_bytes = len(kept[0])
        logger.warning('%r cannot keep up: %d messages were not delivered', self, dropped)
        self.close(CloseCode.TRY_AGAIN_LATER, 'cannot keep up')

    def _flush(self) -> None:
        queue = self._queue
        while queue:
            assert self.sock is not None
            data, messages = queue[0]
            try:
                sent = self.sock.send(data, SEND_FLAGS)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self.lost()
                return
            self.queued_bytes -= sent
            self.home.statistics.bytes_sent += sent
            if sent < len(data):
                queue[0] = (memoryview(data)[sent:], messages)
                break
            self.home.statistics.messages_sent += messages
            queue.popleft()
        if not queue:
            self._queue = None
            self._drained()
        self._watch()

    def _drained(self) -> None:
        if self.phase is Phase.ENDING:
            self._shut_down()
        elif self.phase is Phase.OPEN:
            self._update_direct()
            self.receiver.websocket_drained(self)

    # Closing

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = '') -> None:
        """Start the closing handshake (RFC 6455, section 7.1.2)."""
        if self.phase is Phase.OPENING:
            self._finish(code, reason)
        elif self.phase is Phase.OPEN:
            self.protocol.send_close(code, reason)
            self.send(self.protocol.data_to_send())
            self._follow_protocol()

    def _follow_protocol(self) -> None:
        """Bring the phase in line with the protocol's state."""
        if self.phase is Phase.OPEN:
            self.phase = Phase.CLOSING
            self.direct = False
            self.home.leave_channels(self)
            # Paused or not, the peer's close frame is to be read.
            self.paused = 0
            self._tell_closing()
            timeout = self.home.options.close_timeout_seconds
            self._timer = self.home.hub.call_later(timeout, self._reset)
        if self.protocol.state is State.CLOSED and self.phase is Phase.CLOSING:
            self.phase = Phase.ENDING
            if not self._queue:
                self._shut_down()
        self._watch()

    def _tell_closing(self) -> None:
        # Few receivers have to know before the socket is closed, which may take a while.
        closing = getattr(self.receiver, 'websocket_closing', None)
        if closing is not None:
            closing(self, self._close_code(), self.protocol.close_reason)

    def _shut_down(self) -> None:
        # Closing a socket with unread input sends a reset, which may overtake our close frame. So
        # only our half is closed here; the peer's end is awaited, and its input thrown away.
        assert self.sock is not None
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.lost()
            return
        self._restart_timer(LINGER_SECONDS)
        self._drain()

    def _drain(self) -> None:
        assert self.sock is not None
        try:
            data = self.sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            self._watch()
            return
        except OSError:
            self.lost()
            return
        if not data and self._queue:
            # The peer has closed its half of the connection only. It would be ready for ever.
            self.pause_reading(Paused.PEER_ENDED)
        elif not data:
            self.lost()

    def lost(self, *, undelivered: int = 0) -> None:
        """Give up the socket: the peer has gone, or has nothing more to say.

        ``undelivered`` is the number of messages that were about to be sent.
        """
        code = self._close_code()
        if undelivered:
            self.home.statistics.messages_not_delivered[code] += undelivered
        self._finish(code, None)

    def _close_code(self) -> int:
        # The peer's code (RFC 6455, section 7.1.5), or ours where the peer gave none.
        code = self.protocol.close_code
        if code is None or code == CloseCode.ABNORMAL_CLOSURE:
            code = self.protocol.close_sent_code
        return CloseCode.ABNORMAL_CLOSURE if code is None else code

    def _reset(self) -> None:
        """Close the connection at once, whatever the peer has not read (TCP reset)."""
        if self.sock is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.lost()

    def failed(self) -> None:
        """Close after an exception of our own; the loop has logged it."""
        if self.phase is Phase.OPEN:
            self.close(CloseCode.INTERNAL_ERROR)
        elif self.phase is not Phase.CLOSED:
            self._reset()

    def _finish(self, code: int, reason: str | None) -> None:
        if self.phase is Phase.CLOSED:
            return
        was_opened = self.sock is not None
        self.phase = Phase.CLOSED
        self.direct = False
        if self._timer is not None:
            self.home.hub.timers.cancel(self._timer)
            self._timer = None
        self.home.leave_channels(self)
        if self._queue:
            if was_opened:
                undelivered = sum(messages for _, messages in self._queue)
                if undelivered:
                    self.home.statistics.messages_not_delivered[code] += undelivered
            self._queue = None
            self.queued_bytes = 0
        if self.sock is not None:
            self.home.hub.unregister(self.fd)
            self.sock.close()
            self.sock = None
        if reason is None:
            reason = self.protocol.close_reason
        self.home.closed(self, code, reason, was_opened=was_opened)

    def _restart_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self.home.hub.timers.cancel(self._timer)
        self._timer = self.home.hub.call_later(seconds, self._reset)

    # What is watched, and what is permitted

    def _update_direct(self) -> None:
        self.direct = (
            self.phase is Phase.OPEN and not self._queue and self.own is None and self.held is None
        )

    def _watch(self) -> None:
        if self.sock is None:
            return
        events = 0 if self.paused else READABLE
        if self._queue:
            events |= WRITABLE
        if events != self._events:
            self._events = events
            self.home.hub.poller.modify(self.fd, events)
