"""One websocket: its socket, its protocol state and its bounded output.

All methods run in the loop. Code elsewhere hands them over:
``loop.call_soon(websocket.close, 1000)``.
"""

from __future__ import annotations

import logging
import math
import socket
import struct
from typing import TYPE_CHECKING, Any, ClassVar

from ws4redis.hub.messages import HeldBack, Messages
from ws4redis.hub.own_messages import OwnMessages, fingerprint
from ws4redis.hub.peer import Paused, Peer, Phase
from ws4redis.hub.publication import payload_of
from ws4redis.hub.receiver import Receiver
from ws4redis.loop.poller import READABLE, WRITABLE
from ws4redis.protocol.client.codes import DisconnectCode
from ws4redis.protocol.connection import ServerConnection, State
from ws4redis.protocol.frames import CloseCode, Opcode, encode_frame

if TYPE_CHECKING:
    from ws4redis.hub.channel import Channel, Gap, Joined, Outcome
    from ws4redis.hub.hub import Hub
    from ws4redis.hub.intake import Allowance
    from ws4redis.protocol.wire import WireFormat

__all__ = ['Paused', 'Phase', 'Receiver', 'WebSocket']

logger = logging.getLogger('ws4redis')

READ_BYTES = 65536
# A peer that ignores our end of the connection is given up after this while.
LINGER_SECONDS = 2.0
_RESET_ON_CLOSE = struct.pack('ii', 1, 0)

# To look up a member of an enumeration takes ten times as long as to look up a name.
_OPEN, _ENDING, _CLOSED = Phase.OPEN, Phase.ENDING, Phase.CLOSED
_PROTOCOL_OPEN, _TEXT, _BINARY = State.OPEN, Opcode.TEXT, Opcode.BINARY


class WebSocket(Peer):
    """One connection to a browser."""

    # Of the answer to its handshake.
    status: ClassVar[int] = 101

    __slots__ = (
        'allowance',
        'companion',
        'heeds_gaps',
        'idle_since',
        'own',
        'pinged_in_round',
        'place',
        'protocol',
        'publishes',
        'receiver',
    )

    def __init__(
        self,
        hub: Hub,
        protocol: ServerConnection,
        wire: WireFormat,
        receiver: Receiver,
        *,
        echo: bool = False,
        heartbeats: bool = False,
        publishes: tuple[str, ...] = (),
        companion: Any = None,
        place: Any = None,
    ) -> None:
        super().__init__(hub, wire)
        self.protocol = protocol
        self.receiver = receiver
        if echo:
            self._make_particular().echo = True
        self.publishes = publishes
        self.companion = companion
        self.place = place
        # Whether it has named a position, and so is to know when it misses something.
        self.heeds_gaps = False
        self.own: OwnMessages | None = None
        self.pinged_in_round = 0
        # When it was sent something last, channels apart; never idle where no heartbeats are sent.
        self.idle_since = hub.moment() if heartbeats else math.inf
        # What the peer may send before the clock is asked, once it has sent something.
        self.allowance: Allowance | None = None

    def __repr__(self) -> str:
        return f'<WebSocket fd={self.fd} {self.phase.name}>'

    # Opening

    def attach(self, sock: socket.SocketType) -> None:
        """Take over the socket once the handshake's answer has been written to it."""
        if self.phase is not Phase.OPENING or self.hub.loop.is_closed:
            # Closed before it was open: by a shutdown, say.
            sock.close()
            self._finish(CloseCode.GOING_AWAY, None)
            return
        self.sock = sock
        self.phase = Phase.OPEN
        self.hub.opened(self)
        self.hub.loop.register(self.fd, self, self._events)
        if self._queue:
            self._flush()
        self._update_direct()
        # It may have been paused before it was open.
        self._watch()
        # When the server began to stop, its handshake may have been under way.
        farewell = self._farewell or self.hub.farewell
        if farewell is not None:
            self.close(*farewell)

    # What the peer sends

    def ready(self, events: int) -> None:
        if events & WRITABLE:
            self._flush()
        if events & ~WRITABLE and self.phase is not _CLOSED:
            if not self.paused and self.phase is _ENDING:
                self._drain()
            elif not self.paused:
                self._receive()
            elif events & ~(READABLE | WRITABLE) and self.paused != Paused.LEFTOVERS:
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
            self._peer_ended()
            return
        self.hub.statistics.bytes_received += len(data)
        self.take(data)

    def take(self, data: bytes) -> None:
        """Take what was read, or with ``b''`` more of what was left over."""
        hub = self.hub
        protocol = self.protocol
        events = protocol.receive_data(data)
        if protocol.outgoing and protocol.state is _PROTOCOL_OPEN:
            # A pong goes out before what answers the messages of the same read. Only a close frame
            # has to wait for them, since nothing may follow it.
            self._send_reply()
        messages = pings = 0
        for opcode, payload in events:
            if opcode is _TEXT or opcode is _BINARY:
                if self.phase is _OPEN:
                    messages += 1
                    if payload == hub.options.heartbeat:
                        self._answer_heartbeat(payload)
                    else:
                        self.receiver.receive_message(self, opcode, payload)
            elif opcode is not Opcode.CLOSE:
                pings += 1
                if opcode is Opcode.PONG:
                    self.pinged_in_round = 0
        size = len(data)
        if protocol.inflated_bytes:
            size += protocol.take_inflated_bytes()
        hub.statistics.messages_received += messages
        if protocol.outgoing:
            self._send_reply()
        if protocol.state is not _PROTOCOL_OPEN:
            self._follow_protocol()
        allowance = self.allowance
        if allowance is None:
            allowance = self.allowance = hub.intake.allowance()
        allowance.messages -= messages
        allowance.bytes -= size
        allowance.pings -= pings
        if (
            protocol.has_more
            or allowance.messages <= 0
            or allowance.bytes <= 0
            or allowance.pings <= 0
        ):
            hub.intake.hold_up(self, allowance)

    def _send_reply(self) -> None:
        reply = self.protocol.data_to_send()
        # After our close frame nothing is owed to the peer any more, however many pings it sends.
        if reply and self.phase is Phase.OPEN:
            self.send(reply)

    def _answer_heartbeat(self, heartbeat: bytes) -> None:
        # Where none is sent regularly, only who sends one expects one.
        if self.idle_since == math.inf:
            self.send_message(heartbeat)

    def pause_reading(self, why: Paused) -> None:
        if self.phase <= Phase.OPEN or why is Paused.PEER_ENDED:
            super().pause_reading(why)

    def resume_reading(self, why: int) -> None:
        super().resume_reading(why)
        if self.paused == Paused.LEFTOVERS:
            self.hub.intake.resume(self)

    # What the peer is sent

    def send_message(self, payload: bytes, opcode: Opcode | None = None) -> None:
        """Send one message; without ``opcode`` as text where it is valid UTF-8, else as binary."""
        if self.idle_since != math.inf:
            self.idle_since = self.hub.moment()
        self.send(self.wire.encode_message(payload, opcode), messages=1)

    def send_kept(self, payload: bytes) -> None:
        """Send the kept message of a channel, unless the subscriber does that itself."""
        if self.companion is None or not self.companion.sends_persisted_messages:
            chunk = self.hub.kept_frames.framed(self.wire, payload)
            self.send(chunk.data, messages=1, shared=chunk)

    def take_joined(self, name: str, joined: Joined) -> None:
        """Send what it gets as it joins a channel: the kept message, or what it has missed."""
        if joined.kept is not None and not (self.heeds_gaps and joined.position is not None):
            self.send_kept(joined.kept)
        if joined.messages is not None:
            self.deliver(joined.messages)

    def tell_late_gap(self, cause: Outcome) -> None:
        """Tell of a gap that came up when the handshake was answered already."""
        self.close_when_open(DisconnectCode.INSUFFICIENT_STATE, f'gap: {cause}')

    def gap(self, channel: Channel, gap: Gap) -> None:
        if self.heeds_gaps:
            # There is no other way to tell a plain websocket. It comes back, and names the
            # position up to which it has seen everything.
            self.close(DisconnectCode.INSUFFICIENT_STATE, f'gap: {gap.cause}')
        elif gap.kept is not None:
            self.send_kept(gap.kept)

    def deliver(self, messages: Messages) -> None:
        if self.held is not None:
            self._hold_back(self.held, messages)
            return
        own = self.own
        if own is None:
            chunk = messages.framed(self.wire)
        else:
            is_own = [own.recognises(mark) for mark in messages.marks]
            self._forget_overdue(own)
            self._update_direct()
            rest = messages.framed_without(self.wire, is_own)
            if rest is None:
                own.has_skipped = True
                return
            chunk = rest
        self.send(chunk.data, messages=chunk.messages, shared=chunk)

    def _hold_back(self, held: HeldBack, messages: Messages) -> None:
        held.add(messages)
        if held.bytes > self.hub.options.max_queue_bytes and held.count > 1:
            self._cannot_keep_up(held.clear())

    def send_ping(self, payload: bytes = b'') -> None:
        """Send a ping; the pong clears :attr:`pinged_in_round`."""
        self.send(encode_frame(Opcode.PING, payload))

    def hold(self) -> None:
        """Keep deliveries back until :meth:`release_held`."""
        self._make_particular().held = HeldBack()
        self.direct = False

    def release_held(self, sent: list[bytes]) -> None:
        """Send what was kept back, except what the subscriber sent meanwhile."""
        held = self.held
        if held is not None:
            self._make_particular().held = None
        for messages in held.messages if held is not None else ():
            rest = []
            for publication in messages.publications:
                payload = payload_of(publication)
                if payload in sent:
                    sent.remove(payload)
                else:
                    rest.append(publication)
            if rest:
                self.deliver(Messages(rest, messages.channel))
        self._update_direct()

    def remember_own(self, payload: bytes, channels: tuple[str, ...]) -> None:
        particulars = self._particulars
        if self.phase is _CLOSED or (particulars is not None and particulars.echo):
            return
        own = self.own
        if own is None:
            own = self.own = OwnMessages()
        self.direct = False
        if own.is_diverted:
            self.hub.fanout.last_own.forget(self, own)
        copies = 0
        if self.channels:
            holds = self.hub.bus.holds
            copies = sum([holds(self, name) for name in channels])
        own.last = fingerprint(payload)
        if copies:
            own.sent(own.last, copies=copies, now=self.hub.loop.timers.clock())

    def forget_own_under_way(self) -> None:
        if self.own is not None:
            self.own.forget_under_way()
            self._update_direct()

    def _forget_overdue(self, own: OwnMessages) -> None:
        # A message may never come back: a subscriber's `publish_message` changed it, or Redis
        # refused it. Redis is waited for, then it had the same time to answer.
        overdue_seconds = 2 * self.hub.options.redis_timeout_seconds
        if own.are_under_way and self.hub.loop.timers.clock() - own.sent_at > overdue_seconds:
            own.forget_under_way()

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

    @property
    def _is_saying_goodbye(self) -> bool:
        return self.protocol.state is not State.OPEN

    def _leave_channels(self) -> None:
        self.hub.leave_channels(self, at_once=True)

    def _tell_ended(self, code: int, reason: str) -> None:
        ended = getattr(self.receiver, 'websocket_ended', None)
        if ended is not None:
            ended(self, code, reason)

    def _follow_protocol(self) -> None:
        """Bring the phase in line with the protocol's state."""
        if self.phase is Phase.OPEN:
            self.phase = Phase.CLOSING
            self.direct = False
            self.hub.leave_channels(self)
            # Paused or not, the peer's close frame is to be read, after what came before it.
            self.resume_reading(Paused.REDIS | Paused.RECEIVER | Paused.RATE | Paused.CHANNEL)
            self._restart_timer(self.hub.options.close_timeout_seconds)
            self._tell_closing()
        if self.protocol.state is State.CLOSED and self.phase is Phase.CLOSING:
            self.phase = Phase.ENDING
            if not self._queue:
                self._shut_down()
        self._watch()

    def _tell_closing(self) -> None:
        # Few receivers have to know before the socket is closed, which may take a while.
        closing = getattr(self.receiver, 'websocket_closing', None)
        if closing is not None:
            try:
                closing(self, self._close_code(), self.protocol.close_reason)
            except Exception:
                # This may be in the middle of a delivery, which others wait for.
                logger.exception('telling that %r closes failed', self)

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
        if not data:
            self._peer_ended()

    def _peer_ended(self) -> None:
        """Take the end of what the peer sends: it may still take what is queued for it."""
        if not self._queue:
            self.lost()
            return
        self._follow_protocol()
        # Read on, it would be ready for ever.
        self.pause_reading(Paused.PEER_ENDED)

    def lost(self, *, undelivered: int = 0) -> None:
        """Give up the socket: the peer has gone, or has nothing more to say.

        ``undelivered`` is the number of messages that were about to be sent.
        """
        code = self._close_code()
        if undelivered:
            self.hub.statistics.messages_not_delivered[code] += undelivered
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
        self._cancel_timer()
        self.hub.leave_channels(self)
        if self.held is not None:
            undelivered = self.held.clear()
            if undelivered:
                self.hub.statistics.messages_not_delivered[code] += undelivered
        if self.own is not None:
            self.hub.fanout.last_own.forget(self, self.own)
        if self._queue:
            if was_opened and self._queue.messages:
                self.hub.statistics.messages_not_delivered[code] += self._queue.messages
            self._drop_queue()
        if self.sock is not None:
            self.hub.loop.unregister(self.sock.fileno())
            self.sock.close()
            self.sock = None
        if reason is None:
            reason = self.protocol.close_reason
        self.hub.closed(self, code, reason, was_opened=was_opened)

    def _restart_timer(self, seconds: float) -> None:
        self._cancel_timer()
        self._make_particular().timer = self.hub.loop.call_later(seconds, self._reset)

    @property
    def is_timed(self) -> bool:
        """Tell whether it is ended soon, whatever its peer does."""
        return self._particulars is not None and self._particulars.timer is not None

    def _cancel_timer(self) -> None:
        particulars = self._particulars
        if particulars is not None and particulars.timer is not None:
            self.hub.loop.timers.cancel(particulars.timer)
            particulars.timer = None

    # What is watched, and what is permitted

    def _update_direct(self) -> None:
        self.direct = (
            self.phase is _OPEN
            and not self._queue
            and self.held is None
            and (self.own is None or not self.own.are_under_way)
        )
        if self.direct and self.own is not None:
            self.hub.fanout.last_own.add(self, self.own)
