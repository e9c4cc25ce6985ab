"""A connection to Redis that belongs to the loop.

It is built and authenticated in a thread, since that blocks, and from then on read and written here
without blocking. When it is lost it is built again, with growing, jittered delays.

Redis answers commands in their order, so each command is queued with those who take its answer: a
reply, or an error. ``SUBSCRIBE`` and its like are answered by a push that names the channel, which
is taken from the same queue; all other pushes are news that nobody asked for.
"""

from __future__ import annotations

import logging
import random
import socket
import ssl
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeAlias

import hiredis

from ws4redis.loop.loop import Loop
from ws4redis.loop.poller import READABLE, WRITABLE
from ws4redis.loop.timers import Timer

logger = logging.getLogger('ws4redis')

READ_BYTES = 65536
# A turn reads at most this much, so that a flood of messages cannot starve the websockets.
MAX_READ_BYTES_PER_TURN = 1024 * 1024
# Thousands of short replies fit into that, so there is a bound in time, looked at now and then.
TURN_SECONDS = 0.005
REPLIES_BETWEEN_LOOKS = 32
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 5.0
HEALTH_CHECK_SECONDS = 5.0
# A connection that is lost sooner counts as one more attempt that failed: else something that takes
# connections and drops them would be asked without a pause.
STABLE_SECONDS = 0.2
# Attempts whose thread does not come back, since looking up the host's name hangs, say.
MAX_STUCK_ATTEMPTS = 3

# Of a Cluster: Redis has done nothing; the slot is elsewhere, or on its way.
MOVING_ERRORS = frozenset({'MOVED', 'ASK', 'TRYAGAIN', 'CLUSTERDOWN'})
# Redis is there, but cannot serve now: it loads its data, runs a long script, has no master or too
# few replicas. READONLY comes from what was the master before a failover: a new connection looks
# the address up anew, and may lead to the one that is it now.
AWAY_ERRORS = frozenset(
    {
        'BUSY',
        'CLUSTERDOWN',
        'LOADING',
        'MASTERDOWN',
        'NOREPLICAS',
        'READONLY',
        'TRYAGAIN',
    }
)

Replied: TypeAlias = Callable[[Any], object]
Refused: TypeAlias = Callable[[Exception], object]

_NOTHING = object()
_Push = hiredis.PushNotification
_Error = hiredis.HiredisError
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


def ignore(answer: object) -> None:
    """Take an answer that makes no difference."""


def error_code(error: object) -> str:
    """Return the first word of an error of Redis, which tells its kind."""
    return str(error).partition(' ')[0]


class LinkUser(Protocol):
    """Somebody who sends commands over a link that is another's."""

    def link_connected(self) -> None: ...

    def link_lost(self) -> None:
        """Expect no answers to what was sent."""


class Commands(Protocol):
    """What sends commands for others, over one connection or several."""

    users: list[LinkUser]

    @property
    def is_connected(self) -> bool: ...

    def send(
        self, *words: bytes | str | int, replied: Replied = ..., refused: Refused = ...
    ) -> None:
        """Queue a command; nobody is told when the connection is lost before the answer."""


class RedisLink:
    """Keep one connection to Redis open, and exchange commands and replies over it.

    When it is lost, nobody is told that the commands under way will not be answered:
    :meth:`disconnected` takes care of them all. Subclasses implement that and :meth:`connected`.
    """

    # What makes it start over, whoever gave the command.
    away_errors = AWAY_ERRORS

    def __init__(
        self,
        loop: Loop,
        connect: Callable[[], socket.socket],
        *,
        name: str,
        timeout_seconds: float,
    ) -> None:
        self.loop = loop
        self.name = name
        self.is_connected = False
        # Whether there is no connection, and the latest attempt to make one has failed.
        self.is_away = False
        self.reconnects = 0
        # Others that send commands over this connection.
        self.users: list[LinkUser] = []
        self._connect_blocking = connect
        self._timeout_seconds = timeout_seconds
        self._sock: socket.socket | None = None
        self._fd = -1
        self._reader: Any = None
        # Whether replies that were read have yet to be taken.
        self._has_more = False
        self._output = bytearray()
        # Who takes the next answers, in order, and the push that some of them are.
        self._expected: deque[tuple[Replied, Refused, list[bytes] | None]] = deque()
        self._events = READABLE
        self._attempts = 0
        self._connected_at = 0.0
        self._complaint: str | None = None
        self._was_connected = False
        self._stopped = False
        self._attempt: object | None = None
        self._stuck_attempts = 0
        self._waits_for_stuck = False
        self._attempt_timer: Timer | None = None
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

    def push_received(self, push: list[Any]) -> None:
        """Take a push that answers no command."""

    def health_check(self) -> None:
        """Write a command that makes Redis answer."""
        self.send(b'PING')

    def wants_replies(self) -> bool:
        """Tell whether replies may be read now."""
        return True

    # Commands

    def send(
        self, *words: bytes | str | int, replied: Replied = ignore, refused: Refused = ignore
    ) -> None:
        """Queue a command; it is written when the turn ends. ``refused`` takes an error."""
        self.write(pack_command(*words))
        self.expect(replied, refused)

    def send_subscription(
        self, word: bytes, *names: bytes, confirmed: Replied = ignore, refused: Refused = ignore
    ) -> None:
        """Queue ``SUBSCRIBE`` or the like, which a push for each name confirms, or an error all."""
        self.write(pack_command(word, *names))
        # The pushes come together, so those before the last one tell nothing.
        self._expected.append((confirmed, refused, [word.lower(), names[-1]]))

    def write(self, packed: bytes) -> None:
        """Queue packed commands; call :meth:`expect` for each of them, in their order."""
        self._output += packed

    def expect(self, replied: Replied, refused: Refused, *, commands: int = 1) -> None:
        """Say who takes the answers to commands that were given to :meth:`write`."""
        if commands == 1:
            self._expected.append((replied, refused, None))
        else:
            self._expected.extend(((replied, refused, None),) * commands)

    # The life of the connection

    def start(self) -> None:
        """Begin to connect, at once."""
        attempt = self._attempt = object()
        # Not in the pool: what a project does there may take long, and Redis is needed at once.
        self.loop.driver.submit_apart(
            partial(self._connection_made, attempt), self._connect_blocking
        )
        self._attempt_timer = self.loop.call_later(
            self._timeout_seconds, self._attempt_overdue, attempt
        )

    def stop(self) -> None:
        """Close the connection and build no other."""
        self._stopped = True
        self._drop()

    def _connection_made(
        self, attempt: object, sock: socket.socket | None, exc: BaseException | None
    ) -> None:
        is_late = attempt is not self._attempt
        if is_late:
            self._stuck_attempts -= 1
        else:
            self._attempt = None
            assert self._attempt_timer is not None
            self.loop.timers.cancel(self._attempt_timer)
        if is_late or self._stopped:
            if sock is not None:
                sock.close()
            if is_late and self._waits_for_stuck and not self._stopped:
                self._waits_for_stuck = False
                self._retry()
        elif sock is None:
            self._not_connected(exc)
        else:
            self._use(sock)

    def _attempt_overdue(self, attempt: object) -> None:
        if attempt is self._attempt and not self._stopped:
            self._attempt = None
            self._stuck_attempts += 1
            self._not_connected(f'no connection within {self._timeout_seconds:g} seconds')

    def _not_connected(self, why: object) -> None:
        self._complain(f'cannot connect to Redis ({self.name}): {why}')
        if not self.is_away:
            self.is_away = True
            self.disconnected()
        if self._stuck_attempts < MAX_STUCK_ATTEMPTS:
            self._retry()
        else:
            self._waits_for_stuck = True

    def _use(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        self._sock = sock
        self._fd = sock.fileno()
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._connected_at = self.loop.timers.clock()
        self._events = READABLE
        self.loop.register(self._fd, self)
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
        self._health_timer = self.loop.call_later(HEALTH_CHECK_SECONDS, self._check_health)
        self.connected()
        for user in self.users:
            user.link_connected()
        self.flush()

    def _retry(self) -> None:
        delay = retry_delay(self._attempts)
        self._attempts += 1
        self.loop.call_later(delay, self.start)

    def lost(self, why: object) -> None:
        """Give up the connection and build another one."""
        if self._sock is None:
            return
        self._complain(f'lost the connection to Redis ({self.name}): {why}; trying again')
        if self.loop.timers.clock() - self._connected_at >= STABLE_SECONDS:
            self._attempts = 0
        self._drop()
        self._retry()

    def start_over(self, why: str) -> None:
        """Connect anew at once, as to another server; what was tried before does not count."""
        if self._stopped:
            return
        self._attempts = 0
        if self._sock is not None:
            self.lost(why)
        elif self._attempt is not None:
            # It may lead to where nobody answers; should it come late, it is closed.
            assert self._attempt_timer is not None
            self.loop.timers.cancel(self._attempt_timer)
            self._attempt = None
            self._stuck_attempts += 1
            self._retry()

    def away(self, error: Exception) -> None:
        """Start over, later, since Redis cannot serve now."""
        self.lost(error)

    def failed(self) -> None:
        """Start over after an exception of our own; the loop has logged it."""
        self.lost('internal error')

    def _drop(self) -> None:
        if self._sock is None:
            return
        self.is_connected = False
        self.is_away = True
        if self._health_timer is not None:
            self.loop.timers.cancel(self._health_timer)
        self.loop.unregister(self._fd)
        self._sock.close()
        self._sock = None
        self._reader = None
        self._has_more = False
        self._output.clear()
        self._expected.clear()
        self.disconnected()
        for user in self.users:
            user.link_lost()

    def _complain(self, complaint: str) -> None:
        # Each change of state is logged once, not each attempt.
        if complaint != self._complaint:
            self._complaint = complaint
            logger.error('%s', complaint)

    def _check_health(self) -> None:
        """Ask for an answer after a silence; a connection that gives none is given up.

        Only this finds out about a Redis that hangs, or a host that vanished without a word.
        """
        now = self.loop.timers.clock()
        if self._heard:
            self._heard = False
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = now
            self.health_check()
            self.flush()
            if not self.is_connected:
                # Writing has found out already; the next connection has a timer of its own.
                return
        elif now - self._silent_since >= self._timeout_seconds:
            self.lost(f'no answer for {self._timeout_seconds:g} seconds')
            return
        interval = min(HEALTH_CHECK_SECONDS, max(0.05, self._timeout_seconds / 4))
        self._health_timer = self.loop.call_later(interval, self._check_health)

    # Reading and writing

    def ready(self, events: int) -> None:
        if events & WRITABLE:
            self.flush()
        if events & ~WRITABLE and self._sock is not None:
            self._read()

    def _read(self) -> None:
        read = 0
        deadline = self.loop.timers.clock() + TURN_SECONDS
        if self._has_more:
            self._take_replies(deadline)
        while self._sock is not None and not self._has_more and read < MAX_READ_BYTES_PER_TURN:
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
            self._take_replies(deadline)
            # A short read from a plain socket has emptied it.
            is_empty = len(data) < READ_BYTES and not isinstance(self._sock, ssl.SSLSocket)
            if is_empty and not self._has_more:
                return
        # The poller knows nothing of replies that were read, nor, under TLS, of data that was
        # decrypted.
        if self._has_more or isinstance(self._sock, ssl.SSLSocket):
            self.loop.call_soon(self._read)

    def _take_replies(self, deadline: float) -> None:
        """Take what was read, for as long as a turn may; the rest is taken in the next one."""
        reader = self._reader
        expected = self._expected
        taken = 0
        self._has_more = False
        try:
            while self._reader is reader:
                taken += 1
                if taken % REPLIES_BETWEEN_LOOKS == 0 and self.loop.timers.clock() >= deadline:
                    self._has_more = True
                    return
                reply = reader.gets()
                if reply is _NOTHING:
                    return
                if type(reply) is _Push:
                    if expected and reply[0] != b'message':
                        self._take_push(reply)
                    else:
                        self.push_received(reply)
                elif isinstance(reply, _Error):
                    self._take_error(reply)
                elif expected and expected[0][2] is None:
                    replied = expected.popleft()[0]
                    if replied is not ignore:
                        replied(reply)
                else:
                    self.lost(f'unexpected reply {reply!r:.100}')
        except hiredis.ProtocolError as exc:
            self.lost(exc)

    def _take_push(self, push: list[Any]) -> None:
        if self._expected[0][2] == push[:2]:
            self._expected.popleft()[0](push)
        else:
            self.push_received(push)

    def _take_error(self, error: Exception) -> None:
        if error_code(error) in self.away_errors:
            self.away(error)
        elif not self._expected:
            self.lost(error)
        else:
            self._expected.popleft()[1](error)

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
                self.loop.call_soon(self._read)
            self._events = events
            self.loop.poller.modify(self._fd, events)
