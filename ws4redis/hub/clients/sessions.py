"""Emulation: what clients of streams say comes in requests, which any process may get.

A stream has a session, which nobody can guess, and its process a name, *node*. A request names
both. Where the node is another one, the frame goes through Redis, on a channel on which that
process alone listens; when nobody does, the process has gone, and the client begins anew.

All of it runs in the loop.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

from ws4redis.hub.peer import Paused, Phase
from ws4redis.protocol.client.streams import EmulatedFrame
from ws4redis.protocol.frames import Opcode

if TYPE_CHECKING:
    from ws4redis.hub.bus_link import BusLink
    from ws4redis.hub.clients.connection import ClientConnection
    from ws4redis.hub.hub import Hub

logger = logging.getLogger('ws4redis')

# Nothing holds back who sends requests, as TCP does with a websocket; so frames are refused.
MAX_WAITING_FRAMES: Final = 64
# How long a request waits for Redis. Its client is then told so, and may say it again.
REDIS_SECONDS: Final = 2.0
# So many wait for Redis at most; the oldest have to go, and their clients are told after a while.
MAX_UNSENT_FRAMES: Final = 1000
MAX_WAITING_STREAMS: Final = 16384


class Fate(Enum):
    """What became of a frame."""

    TAKEN = auto()
    NOBODY = auto()  # no such stream
    TOO_MUCH = auto()  # the client sends more than it may
    TOO_LARGE = auto()
    AWAY = auto()  # Redis cannot be asked to pass it on


Told = Callable[[Fate], object]


class Sessions:
    """The streams of a process by their sessions, and the way to those of other processes."""

    def __init__(self, hub: Hub, prefix: str) -> None:
        self.node = secrets.token_hex(8)
        self._hub = hub
        self._prefix = prefix
        self._connections: dict[str, ClientConnection] = {}
        self._link: BusLink | None = None
        self._is_listening = self._hears = False
        self._waiting: deque[Callable[[], object]] = deque(maxlen=MAX_WAITING_STREAMS)
        # What is passed on as soon as there is a connection: a process may just have begun.
        self._unsent: deque[tuple[float, EmulatedFrame, Told]] = deque(maxlen=MAX_UNSENT_FRAMES)
        hub.links.commands.users.append(self)

    # Streams of this process

    def listen(self, done: Callable[[], object]) -> None:
        """Call ``done`` when other processes can reach the streams of this one."""
        if not self._is_listening:
            self._is_listening = True
            self._hub.bus.listen(self._channel_of(self.node), self)
        if self._hears:
            done()
        else:
            self._waiting.append(done)

    def add(self, connection: ClientConnection) -> str:
        """Return the session of a new stream."""
        session = secrets.token_urlsafe(24)
        self._connections[session] = connection
        return session

    def forget(self, session: str) -> None:
        self._connections.pop(session, None)

    # What clients say

    def take(self, frame: EmulatedFrame, told: Told) -> None:
        """Give a frame to its stream, wherever that is; tell what became of it.

        Nobody is told while Redis cannot be reached.
        """
        if frame.node == self.node:
            told(self._give(frame.session, frame.data))
        else:
            self._send(frame, told)

    def _give(self, session: str, data: bytes) -> Fate:
        connection = self._connections.get(session)
        if connection is None or connection.websocket.phase is not Phase.OPEN:
            return Fate.NOBODY
        stream = connection.websocket
        if len(data) > self._hub.options.limits.max_message_size:
            return Fate.TOO_LARGE
        if stream.paused & Paused.RATE or connection.waiting_frames >= MAX_WAITING_FRAMES:
            return Fate.TOO_MUCH
        self._hub.statistics.messages_received += 1
        self._hub.statistics.bytes_received += len(data)
        connection.receive_message(stream, Opcode.TEXT, data)
        self._hub.intake.charge(stream, size=len(data))
        return Fate.TAKEN

    def _send(self, frame: EmulatedFrame, told: Told) -> None:
        commands = self._hub.links.commands
        # It becomes a part of a channel's name.
        if not (frame.node.isascii() and frame.node.isalnum() and len(frame.node) <= 64):
            told(Fate.NOBODY)
        elif not commands.is_connected:
            deadline = self._hub.loop.timers.clock() + REDIS_SECONDS
            self._unsent.append((deadline, frame, told))
        else:
            commands.send(
                self._hub.publish_word,
                self._channel_of(frame.node),
                frame.session.encode(errors='replace') + b'\n' + frame.data,
                replied=lambda receivers: told(Fate.TAKEN if receivers else Fate.NOBODY),
                refused=lambda error: self._not_sent(error, told),
            )

    def _not_sent(self, error: Exception, told: Told) -> None:
        logger.error('Redis does not pass on what the client of a stream says: %s', error)
        told(Fate.AWAY)

    def _channel_of(self, node: str) -> bytes:
        return f'{self._prefix}ws4redis:node:{node}'.encode()

    # From the link that carries commands

    def link_connected(self) -> None:
        unsent = list(self._unsent)
        self._unsent.clear()
        now = self._hub.loop.timers.clock()
        for deadline, frame, told in unsent:
            # Of the others the clients were told that they are lost.
            if now < deadline:
                self._send(frame, told)

    def link_lost(self) -> None:
        """Do nothing: who waits for an answer has a deadline."""

    # What other processes say: see `OwnListener`

    def connected(self, link: BusLink) -> None:
        self._link = link
        link.subscribe(
            self._channel_of(self.node), confirmed=self._confirmed, refused=self._refused
        )

    def disconnected(self, link: BusLink) -> None:
        if link is self._link:
            self._link = None
            self._hears = False

    def heard(self, payload: bytes) -> None:
        session, _, data = payload.partition(b'\n')
        fate = self._give(session.decode(errors='replace'), data)
        if fate is not Fate.TAKEN:
            # The process that got the request has answered it.
            logger.debug('what the client of a stream said is lost: %s', fate.name)

    def _confirmed(self, answer: Any) -> None:
        self._hears = True
        waiting = list(self._waiting)
        self._waiting.clear()
        for done in waiting:
            done()

    def _refused(self, error: Exception) -> None:
        if not self._hub.bus.listening_refused(error):
            logger.error(
                'Redis refuses the channel of this process: %s; what clients of streams say '
                'reaches it only where it takes the request itself',
                error,
            )
