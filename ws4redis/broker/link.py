"""A connection to Redis that belongs to the loop.

It is built and authenticated in the pool, since that blocks, and from then on read and written here
without blocking. When it is lost it is built again, with growing, jittered delays.
"""

from __future__ import annotations

import logging
import random
import socket
import ssl
from collections.abc import Callable
from typing import Any

import hiredis

from ws4redis.loop.loop import Hub
from ws4redis.loop.poller import READABLE, WRITABLE
from ws4redis.loop.timers import Timer

logger = logging.getLogger('ws4redis')

READ_BYTES = 65536
# A turn reads at most this much, so that a flood of messages cannot starve the websockets.
MAX_READ_BYTES_PER_TURN = 1024 * 1024
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 5.0
HEALTH_CHECK_SECONDS = 5.0
# A connection that is lost sooner counts as one more attempt that failed: else something that takes
# connections and drops them would be asked without a pause.
STABLE_SECONDS = 0.2

_NOTHING = object()
_WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def pack_command(*words: bytes | str | int) -> bytes:
    """Return a command in Redis's protocol."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub takes one word
    return packed


def retry_delay(failed_attempts: int) -> float:
    """Return after how many seconds to connect again.

    The first attempt is made at once; after it the delays double, and vary so that many processes
    do not come at the same moment.
    """
    if not failed_attempts:
        return 0.0
    # A Redis that is away for a day would raise 2 to a power that no float holds.
    doublings = min(failed_attempts - 1, 10)
    delay = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0**doublings)
    return delay * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)


class RedisLink:
    """Keep one connection to Redis open, and exchange commands and replies over it.

    Subclasses implement :meth:`connected`, :meth:`disconnected` and :meth:`reply_received`.
    """

    def __init__(
        self,
        hub: Hub,
        connect: Callable[[], socket.socket],
        *,
        name: str,
        timeout_seconds: float,
    ) -> None:
        self.hub = hub
        self.name = name
        self.is_connected = False
        # Whether there is no connection, and the latest attempt to make one has failed.
        self.is_away = False
        self.reconnects = 0
        self._connect_blocking = connect
        self._timeout_seconds = timeout_seconds
        self._sock: socket.socket | None = None
        self._fd = -1
        self._reader: Any = None
        self._output = bytearray()
        self._events = READABLE
        self._attempts = 0
        self._connected_at = 0.0
        self._complaint: str | None = None
        self._was_connected = False
        self._stopped = False
        self._heard = False
        self._silent_since: float | None = None
        self._health_timer: Timer | None = None

    # For subclasses

    def connected(self) -> None:
        """Write what a new connection needs first."""
        raise NotImplementedError

    def disconnected(self) -> None:
        """Take back what a lost connection had not answered, and let nothing wait for Redis."""
        raise NotImplementedError

    def reply_received(self, reply: Any) -> None:
        """Take one reply or push."""
        raise NotImplementedError

    def health_check(self) -> None:
        """Write a command that makes Redis answer."""
        raise NotImplementedError

    def wants_replies(self) -> bool:
        """Tell whether replies may be read now."""
        return True

    # The life of the connection

    def start(self) -> None:
        # Not in the pool: what a project does there may take long, and Redis is needed at once.
        self.hub.driver.submit_apart(self._connection_made, self._connect_blocking)

    def stop(self) -> None:
        """Close the connection and build no other."""
        self._stopped = True
        self._drop()

    def _connection_made(self, sock: socket.socket | None, exc: BaseException | None) -> None:
        if self._stopped:
            if sock is not None:
                sock.close()
            return
        if sock is None:
            self._complain(f'cannot connect to Redis ({self.name}): {exc}')
            if not self.is_away:
                self.is_away = True
                self.disconnected()
            self._retry()
            return
        sock.settimeout(0)
        self._sock = sock
        self._fd = sock.fileno()
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._connected_at = self.hub.timers.clock()
        self._events = READABLE
        self.hub.register(self._fd, self)
        self.is_connected = True
        self.is_away = False
        if self._was_connected:
            self.reconnects += 1
        if self._complaint is not None:
            logger.warning('connected to Redis again (%s)', self.name)
            self._complaint = None
        self._was_connected = True
        self._heard = True
        self._silent_since = None
        self._health_timer = self.hub.call_later(HEALTH_CHECK_SECONDS, self._check_health)
        self.connected()
        self.flush()

    def _retry(self) -> None:
        delay = retry_delay(self._attempts)
        self._attempts += 1
        self.hub.call_later(delay, self.start)

    def lost(self, why: object) -> None:
        """Give up the connection and build another one."""
        if self._sock is None:
            return
        self._complain(f'lost the connection to Redis ({self.name}): {why}; trying again')
        if self.hub.timers.clock() - self._connected_at >= STABLE_SECONDS:
            self._attempts = 0
        self._drop()
        self._retry()

    def failed(self) -> None:
        """Start over after an exception of our own; the loop has logged it."""
        self.lost('internal error')

    def _drop(self) -> None:
        if self._sock is None:
            return
        self.is_connected = False
        self.is_away = True
        if self._health_timer is not None:
            self.hub.timers.cancel(self._health_timer)
        self.hub.unregister(self._fd)
        self._sock.close()
        self._sock = None
        self._reader = None
        self._output.clear()
        self.disconnected()

    def _complain(self, complaint: str) -> None:
        # Each change of state is logged once, not each attempt.
        if complaint != self._complaint:
            self._complaint = complaint
            logger.error('%s', complaint)

    def _check_health(self) -> None:
        """Ask for an answer after a silence; a connection that gives none is given up.

        Only this finds out about a Redis that hangs, or a host that vanished without a word.
        """
        now = self.hub.timers.clock()
        if self._heard:
            self._heard = False
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = now
            self.health_check()
            self.flush()
        elif now - self._silent_since >= self._timeout_seconds:
            self.lost(f'no answer for {self._timeout_seconds:g} seconds')
            return
        interval = min(HEALTH_CHECK_SECONDS, max(0.05, self._timeout_seconds / 4))
        self._health_timer = self.hub.call_later(interval, self._check_health)

    # Reading and writing

    def ready(self, events: int) -> None:
        if events & WRITABLE:
            self.flush()
        if events & ~WRITABLE and self._sock is not None:
            self._read()

    def _read(self) -> None:
        read = 0
        while self._sock is not None and read < MAX_READ_BYTES_PER_TURN:
            if not self.wants_replies():
                self._watch()
                return
            try:
                data = self._sock.recv(READ_BYTES)
            except _WOULD_BLOCK:
                return
            except OSError as exc:
                self.lost(exc)
                return
            if not data:
                self.lost('closed by Redis')
                return
            read += len(data)
            self._heard = True
            self._reader.feed(data)
            self._take_replies()
            # A short read from a plain socket has emptied it.
            if len(data) < READ_BYTES and not isinstance(self._sock, ssl.SSLSocket):
                return
        # Under TLS, decrypted data may be left of which the poller knows nothing.
        if isinstance(self._sock, ssl.SSLSocket):
            self.hub.call_soon(self._read)

    def _take_replies(self) -> None:
        reader = self._reader
        try:
            while self._reader is reader:
                reply = reader.gets()
                if reply is _NOTHING:
                    return
                self.reply_received(reply)
        except hiredis.ProtocolError as exc:
            self.lost(exc)

    def write(self, data: bytes) -> None:
        """Queue commands; they are written when the turn ends."""
        self._output += data

    @property
    def unwritten_bytes(self) -> int:
        return len(self._output)

    def flush(self) -> bool:
        """Write what is queued, as far as the socket takes it. Called when a turn ends."""
        while self._output and self._sock is not None:
            try:
                sent = self._sock.send(self._output)
            except _WOULD_BLOCK:
                break
            except OSError as exc:
                self.lost(exc)
                return False
            del self._output[:sent]
        self._watch()
        return False

    def _watch(self) -> None:
        if self._sock is None:
            return
        events = (READABLE if self.wants_replies() else 0) | (WRITABLE if self._output else 0)
        if events != self._events:
            if events & ~self._events & READABLE and isinstance(self._sock, ssl.SSLSocket):
                # What was decrypted before is nothing that the poller would report.
                self.hub.call_soon(self._read)
            self._events = events
            self.hub.poller.modify(self._fd, events)
