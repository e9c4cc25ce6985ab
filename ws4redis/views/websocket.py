"""The websocket of a view: blocking calls on one side, the loop on the other.

The loop puts what arrives into a queue, and the view takes it from there, so the view's thread or
greenlet sleeps unless there is something for it to do. Who has to wait leaves a bell, and then
looks once more whether it still has to; the loop first changes what is waited for, and then rings.
So no ring is missed, and none is made while the view has not yet taken the messages before.

Both directions are bounded by ``WS4REDIS_MAX_QUEUE_BYTES``. Past it a client is not read until the
view has taken half of what waits, and a view that sends waits until the client has taken what was
sent before.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from django.core.serializers.json import DjangoJSONEncoder

from ws4redis.exceptions import ConnectionClosed, HandshakeError, WebSocketError
from ws4redis.hub.receiver import ConnectionKind
from ws4redis.hub.websocket import Paused, Phase, WebSocket
from ws4redis.loop.native import original, thread_ident
from ws4redis.protocol.frames import CloseCode, Opcode, is_sendable_close_code

if TYPE_CHECKING:
    from ws4redis.loop.drivers import Bell, Driver
    from ws4redis.servers.opening import Opening

Message = str | bytes

#: How long ``send`` waits for a client that does not read.
SEND_TIMEOUT_SECONDS = 30.0

# How often a view may look for messages when none can come any more. Loops written for older
# packages would otherwise run for ever.
MAX_LOOKS_IN_VAIN = 10

# What an empty message counts against the bound, since it takes memory as well.
_MESSAGE_OVERHEAD_BYTES = 128

_allocate_lock = original('_thread', 'allocate_lock')


class ViewWebSocket:
    """Talk with one client in straight-line code; a view has it as ``request.websocket``.

    The handshake is answered when the view uses the websocket for the first time. All methods may
    be called from any thread or greenlet, so views may send to each other's websockets.

    ``send_timeout`` is for how many seconds :meth:`send` waits for a client that does not read.
    ``close_code`` and ``close_reason`` tell how the websocket was closed (RFC 6455, section 7.1.5),
    ``None`` and ``''`` until it is. ``subprotocol`` is the one that was agreed upon, or ``None``.
    """

    kind = ConnectionKind.VIEW

    __slots__ = (
        '__weakref__',
        '_accepted',
        '_bell',
        '_driver',
        '_ended',
        '_handed_bytes',
        '_lock',
        '_looks_in_vain',
        '_max_queue_bytes',
        '_messages',
        '_opening',
        '_paused',
        '_polled',
        '_readers',
        '_received_bytes',
        '_taken_bytes',
        '_thread',
        '_websocket',
        '_writers',
        'close_code',
        'close_reason',
        'refusal',
        'send_timeout',
        'subprotocol',
    )

    def __init__(self) -> None:
        self.send_timeout = SEND_TIMEOUT_SECONDS
        self.close_code: int | None = None
        self.close_reason = ''
        self.subprotocol: str | None = None
        #: Why the handshake could not be completed after all.
        self.refusal: HandshakeError | None = None
        self._lock = _allocate_lock()
        self._opening: Opening | None = None
        self._websocket: WebSocket | None = None
        # The same, once the handshake is answered.
        self._accepted: WebSocket | None = None
        self._driver: Driver
        self._ended = False
        self._max_queue_bytes = 0
        self._messages: deque[tuple[Opcode, bytes]] = deque()
        # Changed only by the loop, and by those who take messages, under the lock.
        self._received_bytes = 0
        self._taken_bytes = 0
        self._paused = False
        # The view has looked, and neither waited nor given way since.
        self._polled = False
        self._looks_in_vain = 0
        # Bytes that are on their way to the loop; then they are the websocket's queued_bytes.
        self._handed_bytes = 0
        # For reading in the thread that runs the view, as nearly all views do.
        self._bell: Bell
        self._thread = 0
        self._readers: list[Bell] = []
        self._writers: list[Bell] = []

    def __repr__(self) -> str:
        state = 'closed' if self._ended else 'open' if self.is_accepted else 'not yet open'
        return f'<ViewWebSocket {state}>'

    # Receiving

    def wait(self, timeout: float | None = None) -> Message | None:
        """Wait for one message and return it, text as ``str`` and binary as ``bytes``.

        Return ``None`` once the websocket is closed and all that came before was taken, or when
        ``timeout`` seconds have passed; :meth:`is_closed` tells which. Raise ``ConnectionClosed``
        when it is called again and again after that.
        """
        websocket = self._accepted or self._accept()
        deadline = None if timeout is None else time.monotonic() + timeout
        bell = None
        while True:
            if self._messages:
                message: Message | None = self._take(websocket, None)
                if message is not None:
                    return message
            if self._ended and not self._messages:
                self._look_in_vain()
                return None
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                last: Message | None = self.read()
                return last
            if bell is None:
                bell = self._bell
                if thread_ident() != self._thread or bell in self._readers:
                    bell = self._driver.bell()
            self._readers.append(bell)
            try:
                if not self._messages and not self._ended:
                    self._polled = False
                    bell.wait(remaining)
            except BaseException:
                # gevent's Timeout, say. If the bell has rung, it is another reader's turn.
                if self._messages and bell not in self._readers:
                    _ring_one(self._readers)
                raise
            finally:
                if self._readers:
                    _discard(self._readers, bell)

    def read(self, fallback: Any = None) -> Any:
        """Return the next message if there is one, else ``fallback``; never block.

        Raise ``ConnectionClosed`` when it is called again and again on a closed websocket.
        """
        websocket = self._accepted or self._accept()
        if self._messages:
            return self._take(websocket, fallback)
        if self._ended:
            self._look_in_vain()
        self._give_way()
        return fallback

    def count_messages(self) -> int:
        """Return how many messages can be taken without waiting."""
        if self._accepted is None:
            self._accept()
        if not self._messages:
            if self._ended:
                self._look_in_vain()
            self._poll()
        return len(self._messages)

    def has_messages(self) -> bool:
        """Tell whether a message can be taken without waiting."""
        return self.count_messages() > 0

    def __iter__(self) -> Iterator[Message]:
        """Yield messages until the websocket is closed."""
        return cast('Iterator[Message]', iter(self.wait, None))

    def iter_json(self) -> Iterator[Any]:
        """Yield what the messages say in JSON, until the websocket is closed.

        A client that sends anything else than JSON is closed with the code 1007.
        """
        for message in self:
            try:
                value = json.loads(message)
            except ValueError:
                self.close(CloseCode.INVALID_PAYLOAD_DATA, 'not JSON')
                return
            yield value

    # Sending

    def send(
        self, message: str | bytes | bytearray | memoryview, *, timeout: float | None = None
    ) -> None:
        """Send one message: ``str`` as text, anything else as binary.

        While the client does not take what was sent before, wait for it, at most ``timeout``
        seconds (by default ``send_timeout``). Raise ``ConnectionClosed`` when the websocket is
        closed; with the code 1013 when that time has passed, and the websocket is closed then.
        Raise ``TypeError`` for a message of another type.
        """
        websocket = self._accepted or self._accept()
        if self._ended:
            # Whatever the message is: many views send the None that wait() has returned at the end.
            raise self._closed()
        if isinstance(message, str):
            frame = websocket.wire.encode_message(message.encode(), Opcode.TEXT)
        elif isinstance(message, bytes | bytearray | memoryview):
            frame = websocket.wire.encode_message(bytes(message), Opcode.BINARY)
        else:
            # bytes() of a number would be that many zeros.
            raise TypeError(
                f'a message is str or bytes, not {type(message).__name__}; see also send_json()'
            )
        if not self._handed_bytes and not websocket.queued_bytes and self._driver.is_at_rest():
            # Nothing is queued before it, and the loop runs in this thread, so it is idle now.
            websocket.send(frame, messages=1)
            if websocket.phase is not Phase.OPEN:
                self._driver.wake()
        else:
            self._send_by_loop(websocket, frame, self.send_timeout if timeout is None else timeout)

    def send_json(self, value: Any, *, timeout: float | None = None) -> None:
        """Send a value as JSON in a text message; dates and the like as Django encodes them."""
        self.send(json.dumps(value, cls=DjangoJSONEncoder), timeout=timeout)

    def _send_by_loop(self, websocket: WebSocket, frame: bytes, timeout: float) -> None:
        deadline = None
        bell = None
        while not self._takes_room(websocket, len(frame)):
            now = time.monotonic()
            if deadline is None or bell is None:
                deadline, bell = now + timeout, self._driver.bell()
            if now >= deadline:
                self.close(CloseCode.TRY_AGAIN_LATER, 'cannot keep up')
                raise self._closed()
            self._writers.append(bell)
            try:
                if not self._has_room(websocket, len(frame)) and not self._ended:
                    bell.wait(deadline - now)
            finally:
                _discard(self._writers, bell)
        websocket.hub.loop.call_soon(self._send_in_loop, websocket, frame)

    def _takes_room(self, websocket: WebSocket, size: int) -> bool:
        with self._lock:
            if self._ended:
                raise self._closed()
            has_room = self._has_room(websocket, size)
            if has_room:
                self._handed_bytes += size
            return has_room

    def _has_room(self, websocket: WebSocket, size: int) -> bool:
        unsent = self._handed_bytes + websocket.queued_bytes
        # A message that is larger than the bound goes alone.
        return not unsent or unsent + size <= self._max_queue_bytes

    # Closing

    def close(self, code: int | None = None, reason: str | bytes | None = None) -> None:
        """Close the websocket, after what was sent before; a closed one is left as it is.

        The code is 1000 unless another one is given. ``reason`` may have 123 bytes in UTF-8.
        Messages that were not yet taken are dropped. Raise ``ValueError`` for a code that may not
        be sent, or bytes that are not UTF-8, ``TypeError`` for a reason that is no text.
        """
        code = CloseCode.NORMAL_CLOSURE if code is None else code
        reason = reason.decode() if isinstance(reason, bytes) else reason or ''
        if not is_sendable_close_code(code):
            raise ValueError(f'{code} cannot be sent as a close code')
        # In the loop it would fail too late, and leave the websocket open.
        if not isinstance(reason, str):
            raise TypeError(f'a reason is str, not {type(reason).__name__}')
        websocket = self._accepted or self._accept()
        if self._ended:
            return
        self._end(code, reason)
        self._messages.clear()
        websocket.hub.loop.call_soon(websocket.close, code, reason)

    def is_closed(self) -> bool:
        """Tell whether the websocket is closed, by whichever side; nothing can be sent then."""
        if not self._ended and self._websocket is not None:
            self._poll()
        return self._ended

    @property
    def closed(self) -> bool:
        """The same as :meth:`is_closed`."""
        return self.is_closed()

    # The handshake

    @property
    def is_admitted(self) -> bool:
        """Whether a view that accepts websockets is running."""
        return self._websocket is not None

    @property
    def is_accepted(self) -> bool:
        """Whether the handshake was answered with 101."""
        return self._accepted is not None

    def admit(self, opening: Opening) -> None:
        """Let the view use the websocket; called by what runs the view."""
        self._websocket = opening.make_websocket(self)
        self._driver = opening.hub.loop.driver
        self._bell = self._driver.bell()
        self._thread = thread_ident()
        self._max_queue_bytes = opening.hub.options.max_queue_bytes
        self.subprotocol = opening.subprotocol
        self._opening = opening

    def accept(self) -> None:
        """Answer the handshake now, rather than when the websocket is first used.

        Raise ``HandshakeError`` when that is not possible, and let it through: the client is told.
        """
        self._accept()

    def _accept(self) -> WebSocket:
        websocket = self._websocket
        if websocket is None:
            raise WebSocketError('Only a view that accepts websockets can use the websocket.')
        with self._lock:
            opening, self._opening = self._opening, None
        if opening is not None:
            self._complete(opening)
        if self.refusal is not None:
            raise self.refusal
        # Until the socket is there, what another thread sends now waits in the websocket.
        self._accepted = websocket
        return websocket

    def _complete(self, opening: Opening) -> None:
        try:
            opening.complete()
        except HandshakeError as error:
            self.refusal = error
            opening.abandon()

    def abandon(self) -> None:
        """Give back what an unanswered handshake holds; called by what runs the view."""
        with self._lock:
            opening, self._opening = self._opening, None
        self._end(CloseCode.ABNORMAL_CLOSURE, '')
        if opening is not None:
            opening.abandon()

    def raised(self, exc: ConnectionClosed) -> bool:
        """Tell whether an exception comes from this websocket, rather than another one."""
        return isinstance(exc, _ClosedInView) and exc.websocket is self

    # Called in the loop

    def receive_message(self, websocket: WebSocket, opcode: Opcode, payload: bytes) -> None:
        if self._ended:
            return
        self._messages.append((opcode, payload))
        self._received_bytes += len(payload) + _MESSAGE_OVERHEAD_BYTES
        if self._received_bytes - self._taken_bytes > self._max_queue_bytes:
            self._pause(websocket)
        if self._readers:
            _ring_one(self._readers)

    def websocket_drained(self, websocket: WebSocket) -> None:
        _ring_all(self._writers)

    def websocket_closing(self, websocket: WebSocket, code: int, reason: str) -> None:
        """Take the beginning of the closing handshake: no more messages will come."""
        self._end(code, reason)

    def websocket_closed(self, websocket: WebSocket, code: int, reason: str) -> None:
        self._end(code, reason)

    def _send_in_loop(self, websocket: WebSocket, frame: bytes) -> None:
        websocket.send(frame, messages=1)
        with self._lock:
            self._handed_bytes -= len(frame)
        _ring_all(self._writers)

    def _pause(self, websocket: WebSocket) -> None:
        with self._lock:
            # Meanwhile messages may have been taken.
            if self._received_bytes - self._taken_bytes > self._max_queue_bytes:
                self._paused = True
                websocket.pause_reading(Paused.RECEIVER)

    def _resume(self, websocket: WebSocket) -> None:
        with self._lock:
            if not self._paused:
                websocket.resume_reading(Paused.RECEIVER)

    # Called by the view

    def _poll(self) -> None:
        """Give way if the view does nothing but look, again and again."""
        # The first look is free: views that look once for each message stay as fast as they are.
        if self._polled:
            self._give_way()
        else:
            self._polled = True

    def _give_way(self) -> None:
        # A greenlet that polls would otherwise keep the loop from ever receiving.
        self._polled = False
        self._driver.give_way()

    # Called on both sides

    def _take(self, websocket: WebSocket, fallback: Any) -> Any:
        with self._lock:
            try:
                opcode, payload = self._messages.popleft()
            except IndexError:
                # Another thread was faster.
                return fallback
            self._taken_bytes += len(payload) + _MESSAGE_OVERHEAD_BYTES
            resumes = self._paused and self._is_half_empty()
            if resumes:
                self._paused = False
        if resumes:
            websocket.hub.loop.call_soon(self._resume, websocket)
        return payload.decode() if opcode is Opcode.TEXT else payload

    def _is_half_empty(self) -> bool:
        return self._received_bytes - self._taken_bytes <= self._max_queue_bytes // 2

    def _look_in_vain(self) -> None:
        self._looks_in_vain += 1
        if self._looks_in_vain > MAX_LOOKS_IN_VAIN:
            raise self._closed()

    def _end(self, code: int, reason: str) -> None:
        with self._lock:
            if self._ended:
                return
            self.close_code = code
            self.close_reason = reason
            self._ended = True
        _ring_all(self._readers)
        _ring_all(self._writers)

    def _closed(self) -> ConnectionClosed:
        return _ClosedInView(self)


class _ClosedInView(ConnectionClosed):
    def __init__(self, websocket: ViewWebSocket) -> None:
        code = websocket.close_code or CloseCode.ABNORMAL_CLOSURE
        super().__init__(code, websocket.close_reason)
        self.websocket = websocket


# Others may change the lists at the same time; single operations of a list are atomic.


def _ring_one(bells: list[Bell]) -> None:
    try:
        bell = bells.pop()
    except IndexError:
        return
    bell.ring()


def _ring_all(bells: list[Bell]) -> None:
    while bells:
        _ring_one(bells)


def _discard(bells: list[Bell], bell: Bell) -> None:
    try:
        bells.remove(bell)
    except ValueError:
        pass
