"""The native door: it accepts connections in the loop, and gives websockets to the hub.

A connection that sends nothing, or sends it slowly, costs one object and one descriptor. What needs
no code of the project is answered at once; for the rest the machine of the handshake asks the pool.
"""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ws4redis.loop.poller import READABLE
from ws4redis.servers.native.connection import Connection, Stage
from ws4redis.servers.native.deadlines import Deadlines
from ws4redis.servers.native.environ import base_environ
from ws4redis.servers.native.queue import is_half_full
from ws4redis.servers.native.tls import PlainSocket

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from ws4redis.handshake.machine import Steps
    from ws4redis.loop.loop import Loop
    from ws4redis.protocol.http1 import RequestHead
    from ws4redis.servers.bodies import Response
    from ws4redis.servers.native.trust import TrustedProxies

logger = logging.getLogger('ws4redis')

# In a turn so many connections are accepted and, mostly, answered. Other processes that share the
# listening socket take the rest, and what is open already gets its share of the turn.
ACCEPTS_PER_TURN = 16
# So many may be sending their requests. Beyond it the oldest have to go.
MAX_ARRIVING = 16384
# So many are accepted before it is their turn, lest the kernel's queue overflows.
MAX_WAITING = 4096
# After our end of a connection the client has so long to end its own.
LINGER_SECONDS = 2.0
# Without a descriptor for another connection, so long nothing is accepted.
PAUSE_SECONDS = 0.1

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


Application = Callable[['WSGIEnvironment'], 'Steps[Response | None]']


class Door:
    """Accept connections on a listening socket, and answer their requests.

    ``application`` returns the machine that answers a request: it either hands the connection over,
    which it finds in the environment, or returns a response. ``response_to`` returns the response
    to an exception, ``refused`` is told the status of what was refused before there was a request.
    ``body_limit`` returns how many bytes the body of a request may have, which is read then; None:
    nobody reads one, and the connection ends with the answer to a request that has one.
    """

    def __init__(
        self,
        loop: Loop,
        listener: Any,
        application: Application,
        *,
        response_to: Callable[[BaseException, RequestHead], Response],
        refused: Callable[[int], object],
        body_limit: Callable[[RequestHead], int | None] = lambda head: None,
        trusted: TrustedProxies,
        tls: ssl.SSLContext | None = None,
        takes_proxy_protocol: bool = False,
        timeout_seconds: float,
        logs_requests: bool = False,
    ) -> None:
        self.loop = loop
        self.application = application
        self.response_to = response_to
        self.refused = refused
        self.body_limit = body_limit
        self.trusted = trusted
        self.tls = tls
        self.takes_proxy_protocol = takes_proxy_protocol
        self.logs_requests = logs_requests
        self.is_closing = False
        self.tls_resumed = self.tls_agreed = 0
        # Those that are sending a request or taking an answer, those that wait for ours, and those
        # whose end is awaited. The first and the last have their deadlines.
        self.arriving = Deadlines(loop, timeout_seconds, Connection.expired)
        self.busy: set[Connection] = set()
        self.lingering = Deadlines(loop, LINGER_SECONDS, Connection.close)
        # Those that are accepted, and that nothing was read of yet.
        self._waiting: deque[Connection] = deque()
        self._listener = listener
        self._is_watched = False
        self._is_exhausted = False
        self._family = listener.family
        self.base_environ = base_environ(*_name_and_port(listener))

    def start(self) -> None:
        """Accept from now on. Called in the loop."""
        self._watch()
        self.loop.at_close(self.close)

    def _watch(self) -> None:
        if not self._is_watched and not self.is_closing:
            self._is_watched = True
            self.loop.register(self._listener.fileno(), self, READABLE)

    def ready(self, events: int) -> None:
        if not self._waiting:
            for _ in range(ACCEPTS_PER_TURN):
                connection = self._accept()
                if connection is None:
                    return
                self._begin(connection)
        self._relieve_queue()

    def _accept(self, *, makes_room: bool = True) -> Connection | None:
        """Accept one connection, if there is one and a descriptor for it."""
        while True:
            try:
                fd, address = self._listener._accept()
                break
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return None
            except OSError as exc:
                if exc.errno not in _EXHAUSTED:
                    raise
                if not makes_room:
                    return None
                if not self._make_room():
                    self._pause(exc)
                    return None
        self._is_exhausted = False
        sock = PlainSocket(self._family, socket.SOCK_STREAM, 0, fd)
        sock.settimeout(0)
        return Connection(self, sock, address[0] if isinstance(address, tuple) else '')

    def _begin(self, connection: Connection) -> None:
        connection.begin()
        if len(self.arriving) > MAX_ARRIVING:
            self._make_room()

    def _relieve_queue(self) -> None:
        """Accept some before it is their turn, if the kernel's queue is about to overflow.

        It would drop what clients send then. They repeat it, but seconds later, and who is accepted
        meanwhile seems to be silent.
        """
        began_empty = not self._waiting
        while len(self._waiting) < MAX_WAITING and is_half_full(self._listener):
            for _ in range(ACCEPTS_PER_TURN):
                connection = self._accept(makes_room=False)
                if connection is None:
                    break
                self._waiting.append(connection)
            else:
                continue
            break
        if began_empty and self._waiting:
            self.loop.call_soon(self._begin_waiting)

    def _begin_waiting(self) -> None:
        """Go on with those whose turn has come."""
        try:
            for _ in range(min(ACCEPTS_PER_TURN, len(self._waiting))):
                self._begin(self._waiting.popleft())
        finally:
            if self._waiting:
                self.loop.call_soon(self._begin_waiting)

    def failed(self) -> None:
        """Go on after an exception of our own, which the loop has logged."""
        self._unwatch()
        self.loop.call_later(PAUSE_SECONDS, self._watch)

    def _make_room(self) -> bool:
        """Give up who has been at its request for longest; tell whether there was anybody."""
        oldest = self.lingering.oldest() or self.arriving.oldest()
        if oldest is None:
            return False
        oldest.close()
        return True

    def _pause(self, exc: OSError) -> None:
        if not self._is_exhausted:
            self._is_exhausted = True
            logger.error('no connection can be accepted for now: %s', exc)
        self._unwatch()
        self.loop.call_later(PAUSE_SECONDS, self._watch)

    def _unwatch(self) -> None:
        if self._is_watched:
            self._is_watched = False
            self.loop.unregister(self._listener.fileno())

    # What connections tell

    def agreed(self, *, resumed: bool) -> None:
        """Count a handshake of TLS."""
        self.tls_agreed += 1
        self.tls_resumed += resumed

    def left(self, connection: Connection) -> None:
        """Forget a connection that is closed or handed over."""
        self.arriving.discard(connection)
        self.lingering.discard(connection)
        self.busy.discard(connection)

    # The end

    def stop_accepting(self) -> None:
        """Accept no more, and let what is under way be answered. Called in the loop."""
        if self.is_closing:
            return
        self._unwatch()
        self.is_closing = True
        self._listener.close()
        for connection in self.arriving:
            if connection.stage is Stage.HEAD and connection.requests:
                # It waits for another request on a connection that was kept alive.
                connection.close()

    def close(self) -> None:
        """Let go of all that is left. Called when the loop has ended."""
        self.stop_accepting()
        waiting, self._waiting = self._waiting, deque()
        for connection in (*waiting, *self.arriving, *self.busy, *self.lingering):
            connection.close()


def _name_and_port(listener: Any) -> tuple[str, str]:
    name = listener.getsockname()
    return (str(name[0]), str(name[1])) if isinstance(name, tuple) else ('', '')
