"""A peer: who is sent what is published, be it a websocket or another kind of stream.

Its socket, its bounded output, and what the bus and the fan-out know of it.
"""

from __future__ import annotations

import logging
import socket
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, Final

from ws4redis.hub.output import Chunk, OutputQueue
from ws4redis.hub.particulars import Particulars
from ws4redis.loop.poller import READABLE, WRITABLE
from ws4redis.protocol.frames import CloseCode

if TYPE_CHECKING:
    from ws4redis.hub.channel import Channel, Channels, Gap
    from ws4redis.hub.hub import Hub
    from ws4redis.hub.identity import Identity
    from ws4redis.hub.messages import HeldBack, Messages
    from ws4redis.protocol.wire import WireFormat

logger = logging.getLogger('ws4redis')

# A peer's broken pipe is an error to handle here, never a signal for the process.
SEND_FLAGS = getattr(socket, 'MSG_NOSIGNAL', 0)


# A turn gives a socket so much of what waits for it, since a thousand of them may be ready at once.
# This is a multiple of a TLS record.
FLUSH_BYTES = 64 * 1024


class Phase(IntEnum):
    """The life of a peer's socket."""

    OPENING = 0  # no socket yet: the handshake is being answered, output is queued
    OPEN = 1
    CLOSING = 2  # our close frame is queued or sent, the peer's is awaited
    ENDING = 3  # nothing is read as messages any more; output is flushed, then the socket lingers
    CLOSED = 4


# To look up a member of an enumeration takes ten times as long as to look up a name.
_OPEN: Final = Phase.OPEN


class Paused(IntEnum):
    """Why a peer is not read: bits of :attr:`Peer.paused`."""

    REDIS = 1  # Redis does not take what it sends
    RECEIVER = 2  # whoever receives its messages lags
    PEER_ENDED = 4  # the peer sends nothing more, but may still take what is queued for it
    LEFTOVERS = 8  # what was read is not all taken yet
    RATE = 16  # the peer sends more than it may
    CHANNEL = 32  # a channel on which it publishes has much that is not delivered yet


class Peer:
    """What is sent to one socket: at once where it can be, else when the socket takes it.

    Any call that sends may find out that the peer has gone, and end it.
    """

    # Whether it needs to know more of a publication than its payload.
    wants_events: ClassVar[bool] = False
    transport: ClassVar[str] = 'websocket'

    __slots__ = (
        '_events',
        '_particulars',
        '_queue',
        'channels',
        'direct',
        'hub',
        'identity',
        'paused',
        'phase',
        'since',
        'sock',
        'wire',
    )

    def __init__(self, hub: Hub, wire: WireFormat) -> None:
        self.hub = hub
        # When it opened, in whole seconds of the Unix epoch.
        self.since = 0
        # How it is sent what is published; may change only while it is in no channel.
        self.wire = wire
        # Those that it is in, or about to be.
        self.channels: Channels = ()
        self.sock: socket.SocketType | None = None
        # In whose name it is open, if that was asked; kept by the hub.
        self.identity: Identity | None = None
        self.phase = Phase.OPENING
        # Whether a delivery may be sent at once: open, nothing queued before it, nothing to filter.
        self.direct = False
        self.paused = 0
        self._queue: OutputQueue | None = None
        self._events = READABLE
        self._particulars: Particulars | None = None

    @property
    def fd(self) -> int:
        return -1 if self.sock is None else self.sock.fileno()

    # What few have

    @property
    def _farewell(self) -> tuple[int, str] | None:
        return None if self._particulars is None else self._particulars.farewell

    @property
    def held(self) -> HeldBack | None:
        return None if self._particulars is None else self._particulars.held

    def _make_particular(self) -> Particulars:
        if self._particulars is None:
            self._particulars = Particulars()
        return self._particulars

    # What channels tell it

    def deliver(self, messages: Messages) -> None:
        """Send messages of a channel that could not be sent at once to all alike."""
        raise NotImplementedError

    def gap(self, channel: Channel, gap: Gap) -> None:
        """Take note that messages of a channel were missed, which cannot be had any more."""

    def remember_own(self, payload: bytes, channels: tuple[str, ...]) -> None:
        """Note a message that this peer publishes, if it is not to be sent it back."""

    def forget_own_under_way(self) -> None:
        """Expect no own message back any more: what was under way on a channel is lost."""

    # What ends it, and what follows a queue that has gone out

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = '') -> None:
        raise NotImplementedError

    def lost(self, *, undelivered: int = 0) -> None:
        raise NotImplementedError

    def close_when_open(self, code: int, reason: str) -> None:
        """Close it, but one whose handshake is not answered yet only when that is done.

        No message is sent after that.
        """
        if self.phase is Phase.OPENING:
            particulars = self._make_particular()
            particulars.farewell = particulars.farewell or (code, reason)
        else:
            self.close(code, reason)

    def _leave_channels(self) -> None:
        raise NotImplementedError

    def _tell_ended(self, code: int, reason: str) -> None:
        """Tell who acts for it, since the other end may answer late, or never."""

    def _reset(self) -> None:
        raise NotImplementedError

    def _close_code(self) -> int:
        raise NotImplementedError

    def _drained(self) -> None:
        raise NotImplementedError

    @property
    def _is_saying_goodbye(self) -> bool:
        """Tell whether what is queued now is the last that the peer is told."""
        return False

    # What it sends

    def pause_reading(self, why: Paused) -> None:
        """Stop reading the socket, so that TCP holds the sender back."""
        self.set_paused(self.paused | why)

    def resume_reading(self, why: int) -> None:
        self.set_paused(self.paused & ~why)

    def set_paused(self, paused: int) -> None:
        self.paused = paused
        self._watch()

    # What it is sent

    @property
    def queued_bytes(self) -> int:
        queue = self._queue
        return 0 if queue is None else queue.bytes

    def send(
        self, data: bytes | memoryview, *, messages: int = 0, shared: Chunk | None = None
    ) -> None:
        """Send frames, or queue what the socket does not take now.

        ``messages`` is the number of messages among them, for the statistics; ``shared`` is the
        chunk that holds the same data for other websockets as well.
        """
        if self.phase is not _OPEN and (
            self.phase > Phase.CLOSING
            or (messages and (self._farewell or self.phase is Phase.CLOSING))
        ):
            # No data may follow a close frame (RFC 6455, section 5.5.1).
            if messages:
                self.hub.statistics.messages_not_delivered[self._close_code()] += messages
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
            self.hub.statistics.bytes_sent += sent
            if sent == len(data):
                self.hub.statistics.messages_sent += messages
                return
        self.queue(shared or Chunk(data, messages), sent)

    def queue(self, chunk: Chunk, sent: int) -> None:
        """Queue frames of which the socket took ``sent`` bytes; too many of them end it."""
        queue = self._queue
        if queue is None:
            queue = self._queue = self.hub.queues.queue_of(self)
        self.direct = False
        room = self.hub.options.max_queue_bytes - queue.bytes
        if (
            len(chunk.data) - sent <= room
            # A single message may exceed the bound; else it could never be delivered.
            or (not queue and chunk.messages <= 1)
            or self.phase is not Phase.OPEN
            # The close frame that follows an overflow is queued whatever it comes behind.
            or self._is_saying_goodbye
        ):
            queue.append(chunk, sent=sent)
        else:
            attempted = self._attempted_bytes()
            kept = queue.append_what_fits(chunk, room, sent=sent, attempted=attempted)
            self._cannot_keep_up(max(0, chunk.messages - kept))
        self._watch()

    def give_up_queue(self) -> None:
        """Let go of what is queued, since all queues together take too much memory."""
        if self.phase is not Phase.OPEN or self._queue is None:
            # It is closing already, or not open yet, so it cannot be told anything.
            self._reset()
            return
        self._cannot_keep_up(self._queue.keep_begun(attempted=self._attempted_bytes()))

    def _attempted_bytes(self) -> int:
        # A TLS connection that could not write a record must be given the same bytes again.
        return getattr(self.sock, 'attempted_bytes', 0)

    def _cannot_keep_up(self, dropped: int) -> None:
        self.hub.statistics.messages_not_delivered[CloseCode.TRY_AGAIN_LATER] += dropped
        logger.warning('%r cannot keep up: %d messages were not delivered', self, dropped)
        self.close(CloseCode.TRY_AGAIN_LATER, 'cannot keep up')

    def _flush(self) -> None:
        queue = self._queue
        room = FLUSH_BYTES
        while queue and room > 0:
            assert self.sock is not None
            data = queue.next_data(FLUSH_BYTES)
            try:
                sent = self.sock.send(data, SEND_FLAGS)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self.lost()
                return
            self.hub.statistics.bytes_sent += sent
            self.hub.statistics.messages_sent += queue.take(sent)
            if sent < len(data):
                break
            room -= sent
        if not queue:
            self._drop_queue()
            self._drained()
        self._watch()

    def end(self, code: int, reason: str) -> None:
        """Close it since what was granted has ended: what waits for it is not sent any more."""
        if self.phase > Phase.OPEN:
            return
        self._leave_channels()
        if self._queue:
            undelivered = self._queue.keep_begun(attempted=self._attempted_bytes())
            self.hub.statistics.messages_not_delivered[code] += undelivered
        self.close_when_open(code, reason)
        self._tell_ended(code, reason)

    def _drop_queue(self) -> None:
        if self._queue is not None:
            self._queue.clear()
            self._queue = None
            self.hub.queues.forget(self)

    def _watch(self) -> None:
        if self.sock is None:
            return
        events = 0 if self.paused else READABLE
        if self._queue:
            events |= WRITABLE
        if events != self._events:
            self._events = events
            self.hub.loop.poller.modify(self.fd, events)
