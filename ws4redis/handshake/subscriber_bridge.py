"""Between a websocket in the loop and a subscriber class that overrides what the loop would do.

The stock class needs none of this: the loop subscribes, sends kept messages and publishes by
itself. Each method that a subclass overrides runs in the pool instead, one at a time per websocket.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ws4redis.handshake.blocking import with_database
from ws4redis.handshake.subscriber import (
    RedisSubscriber,
    Subscription,
    has_more,
    has_own_connection,
    publishers_of,
    release,
    subscription_of,
)
from ws4redis.hub.messages import Messages
from ws4redis.hub.websocket import Paused, Phase, WebSocket
from ws4redis.protocol.frames import CloseCode, Opcode
from ws4redis.publishing.store import RedisMessage
from ws4redis.settings.hooks import call

if TYPE_CHECKING:
    from collections.abc import Callable

    from ws4redis.hub.hub import Hub

logger = logging.getLogger('ws4redis')

_SENDS_PERSISTED = ('send_persisted_messages', 'send_persited_messages')
_BRINGS_DESCRIPTOR = ('get_file_descriptor', 'parse_response')
_NEEDS_BRIDGE = (*_SENDS_PERSISTED, *_BRINGS_DESCRIPTOR, 'publish_message', 'release')

# A sender is not read while this many of its messages wait for `publish_message`.
_MAX_WAITING_MESSAGES = 16
# At most this many responses are taken at a time, so that the pool's threads are shared.
_MAX_RESPONSES = 1000


def needs_bridge(subscriber: RedisSubscriber) -> bool:
    """Tell whether a subscriber's class overrides what the loop would do by itself."""
    if type(subscriber) is RedisSubscriber:
        return False
    return _overrides(subscriber, *_NEEDS_BRIDGE) or has_own_connection(subscriber)


def _overrides(subscriber: RedisSubscriber, *names: str) -> bool:
    """Tell whether a class has any of some methods that are not the stock ones.

    It need not be derived from the stock class, and may have one of two spellings only.
    """
    mine, stock = type(subscriber), RedisSubscriber
    return any(
        hasattr(mine, name) and getattr(mine, name) is not getattr(stock, name) for name in names
    )


class Proxy:
    """The websocket as ``send_persisted_messages`` sees it: something to send to."""

    def __init__(
        self, send: Callable[[bytes, Opcode | None], object], is_closed: Callable[[], bool]
    ) -> None:
        self._send = send
        self._is_closed = is_closed
        self.sent: list[bytes] = []
        self.closing: tuple[int, str] | None = None

    @property
    def closed(self) -> bool:
        return self.closing is not None or self._is_closed()

    def send(
        self,
        message: str | bytes | bytearray | memoryview,
        binary: bool | None = None,  # noqa: FBT001 - the signature that users know
    ) -> None:
        """Send one message, as text where it is ``str`` or valid UTF-8, else as binary.

        ``binary`` says which, whatever it is.
        """
        if self.closed:
            return
        payload = message.encode() if isinstance(message, str) else bytes(message)
        opcode = None if binary is None else Opcode.BINARY if binary else Opcode.TEXT
        self.sent.append(payload)
        self._send(payload, opcode)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, message: str | bytes = '') -> None:
        """Close the websocket, as soon as it is open, after what was sent before."""
        if not self.closed:
            reason = message if isinstance(message, str) else bytes(message).decode()
            self.closing = (code, reason)


class SubscriberBridge:
    """Let one subscriber send, publish and be released, beside the loop.

    It is the websocket's receiver as well as its companion. Methods run in the loop unless they say
    otherwise.
    """

    def __init__(self, hub: Hub, subscriber: RedisSubscriber) -> None:
        self._hub = hub
        self._subscriber = subscriber
        self._publishes = _overrides(subscriber, 'publish_message')
        self.brings_descriptor = has_own_connection(subscriber) or _overrides(
            subscriber, *_BRINGS_DESCRIPTOR
        )
        self._closing: tuple[int, str] | None = None
        self.sends_persisted_messages = _overrides(subscriber, *_SENDS_PERSISTED)
        self._waiting: deque[bytes] = deque()
        self._busy = False
        self._parsing = False
        self._fd_to_watch: int | None = None
        self._fd: int | None = None
        # One for each call that uses the subscriber while the websocket opens.
        self._uses: list[None] = []
        self._is_released = False
        self._websocket: WebSocket | None = None

    # Opening: called outside the loop, before the handshake is answered, though it may take so long
    # that this is given up. Then the subscriber is released when the call ends after all.

    @contextmanager
    def _used(self) -> Iterator[None]:
        """Keep the subscriber from being released meanwhile."""
        self._uses.append(None)
        try:
            yield
        finally:
            self._hub.loop.call_soon(self._no_longer_used)

    def _no_longer_used(self) -> None:
        self._uses.pop()
        if self._websocket is None:
            self._drop_descriptor()
            self._release_when_done()

    def begin(self, websocket: WebSocket) -> None:
        """Take note of the websocket. Called first of all; does not block."""
        self._websocket = websocket

    def take_descriptor(self) -> None:
        """Ask the subscriber for its descriptor, before its channels are joined. May block.

        A subscriber whose descriptor is that of a connection of its own has subscribed on it, and
        gets its messages there, not from the loop. Its kept messages it has to send itself.
        """
        if self.brings_descriptor:
            with self._used():
                self._take_descriptor()

    def _take_descriptor(self) -> None:
        fd = self._subscriber.get_file_descriptor()
        if fd is not None:
            # A duplicate is ours to watch and close, whatever becomes of the original.
            self._fd_to_watch = os.dup(fd)
        subscription = getattr(self._subscriber, '_subscription', None)
        if not isinstance(subscription, Subscription) or subscription.has_own_connection:
            self.sends_persisted_messages = True

    def prepare(self, websocket: WebSocket) -> None:
        """Let the subscriber send what it wants to come first. May block."""
        with self._used():
            self._prepare(websocket)

    def _prepare(self, websocket: WebSocket) -> None:
        call_soon = self._hub.loop.call_soon
        if self.sends_persisted_messages:
            proxy = Proxy(
                lambda payload, opcode: call_soon(websocket.send_message, payload, opcode),
                lambda: websocket.phase > Phase.OPEN,
            )
            # Whichever spelling the subclass overrides leads to it: the old one calls the new one.
            if _overrides(self._subscriber, 'send_persited_messages'):
                call('send_persited_messages()', self._subscriber.send_persited_messages, proxy)
            else:
                call('send_persisted_messages()', self._subscriber.send_persisted_messages, proxy)
            self._closing = proxy.closing
            call_soon(websocket.release_held, proxy.sent)
        call_soon(self._watch)

    def opened(self) -> None:
        """Close the websocket, now that it is open, if the subscriber wanted that."""
        if self._closing is not None and self._websocket is not None:
            self._hub.loop.call_soon(self._websocket.close, *self._closing)

    # An own descriptor

    def _watch(self) -> None:
        # It has been closed meanwhile.
        fd, self._fd_to_watch = self._fd_to_watch, None
        if fd is not None:
            self._fd = fd
            self._hub.loop.register(fd, self)

    def ready(self, events: int) -> None:
        assert self._fd is not None
        # Not watched until the responses have been taken, or the loop would turn for nothing. To
        # watch for no event is not enough: epoll reports the other end's hang-up all the same.
        self._hub.loop.unregister(self._fd)
        self._parsing = True
        self._hub.loop.driver.submit(self._responses_parsed, with_database, self._parse_responses)

    def _parse_responses(self) -> list[Any]:
        """Take what has arrived. Called in the pool."""
        responses = [call('parse_response()', self._subscriber.parse_response)]
        # What redis-py has read already does not make the descriptor readable again.
        while len(responses) < _MAX_RESPONSES and has_more(subscription_of(self._subscriber)):
            responses.append(self._subscriber.parse_response())
        return responses

    def failed(self) -> None:
        if self._websocket is not None:
            self._websocket.failed()

    def _responses_parsed(self, responses: list[Any] | None, exc: BaseException | None) -> None:
        self._parsing = False
        websocket = self._websocket
        if websocket is None or self._fd is None:
            self._release_when_done()
            return
        if exc is not None:
            logger.error('parse_response() failed', exc_info=exc)
            websocket.close(CloseCode.INTERNAL_ERROR)
            return
        messages = [bytes(m) for m in map(RedisMessage, responses or ()) if m is not None]
        if messages:
            websocket.deliver(Messages.of(messages))
        # Delivering may have ended the websocket.
        if self._fd is not None:
            self._hub.loop.register(self._fd, self)

    # Messages of the websocket

    def receive_message(self, websocket: WebSocket, opcode: Opcode, payload: bytes) -> None:
        channels = publishers_of(self._subscriber)
        if self._publishes:
            websocket.remember_own(payload, channels)
            self._waiting.append(payload)
            if len(self._waiting) >= _MAX_WAITING_MESSAGES:
                websocket.pause_reading(Paused.RECEIVER)
            self._publish_next()
        elif channels:
            self._hub.publish(websocket, channels, payload)

    def _publish_next(self) -> None:
        if self._waiting and not self._busy:
            self._busy = True
            message = RedisMessage(self._waiting.popleft())
            publish = self._subscriber.publish_message
            self._hub.loop.driver.submit(
                self._published, with_database, call, 'publish_message()', publish, message
            )

    def _published(self, result: Any, exc: BaseException | None) -> None:
        self._busy = False
        websocket = self._websocket
        if exc is not None:
            logger.error('publish_message() failed', exc_info=exc)
            if websocket is not None:
                websocket.close(CloseCode.INTERNAL_ERROR, 'not published')
            self._waiting.clear()
        if websocket is not None and len(self._waiting) < _MAX_WAITING_MESSAGES:
            websocket.resume_reading(Paused.RECEIVER)
        self._publish_next()
        self._release_when_done()

    def websocket_drained(self, websocket: WebSocket) -> None:
        pass

    def websocket_closed(self, websocket: WebSocket, code: int, reason: str) -> None:
        self._websocket = None
        if self._fd is not None:
            if self._fd in self._hub.loop.handlers:
                self._hub.loop.unregister(self._fd)
            os.close(self._fd)
            self._fd = None
        self._drop_descriptor()
        self._release_when_done()

    def _drop_descriptor(self) -> None:
        fd, self._fd_to_watch = self._fd_to_watch, None
        if fd is not None:
            os.close(fd)

    def _release_when_done(self) -> None:
        # What it received while it was open is published before the subscriber is released.
        is_done = not (self._busy or self._waiting or self._parsing or self._uses)
        if self._websocket is None and is_done and not self._is_released:
            self._is_released = True
            self._hub.loop.driver.workers.submit(with_database, release, self._subscriber)
