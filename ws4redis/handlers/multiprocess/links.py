"""The two connections to Redis of a websocket server, both read and written by its loop."""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis

from ws4redis.broker.link import RedisLink, pack_command
from ws4redis.loop.loop import Hub

logger = logging.getLogger('ws4redis')

OnReply = Callable[[Any], object]

READ_BLOCK_MS = 2000
READ_COUNT = 256


class CommandLink(RedisLink):
    """Write commands one after the other, and hand each reply to whom it concerns.

    An error of Redis is handed over as well, as an exception. When the connection is lost, what was
    not answered is forgotten: ``on_connected`` and ``on_disconnected`` tell.
    """

    def __init__(
        self,
        hub: Hub,
        connect: Callable[[], socket.socket],
        *,
        timeout_seconds: float,
        on_connected: Callable[[], object],
        on_disconnected: Callable[[], object],
    ) -> None:
        super().__init__(hub, connect, name='events', timeout_seconds=timeout_seconds)
        self._expected: deque[OnReply] = deque()
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected

    def command(self, on_reply: OnReply, *words: bytes | str | int) -> None:
        """Queue a command; it is written when the turn ends. Does nothing while disconnected."""
        if self.is_connected:
            self.write(pack_command(*words))
            self._expected.append(on_reply)

    def connected(self) -> None:
        self._on_connected()

    def disconnected(self) -> None:
        self._expected.clear()
        self._on_disconnected()

    def health_check(self) -> None:
        self.command(_ignore, b'PING')

    def reply_received(self, reply: Any) -> None:
        if isinstance(reply, hiredis.PushNotification):
            return
        if self._expected:
            self._expected.popleft()(reply)
        else:
            self.lost(f'unexpected reply {reply!r}')


class StreamLink(RedisLink):
    """Read a stream from where it was read last, and remove what was read.

    ``on_entry`` gets the fields of each entry, as pairs in a flat list. ``on_reconnected`` is told
    when the connection was lost and is there again: Redis may have lost what was in the stream.
    """

    def __init__(
        self,
        hub: Hub,
        connect: Callable[[], socket.socket],
        key: str,
        *,
        timeout_seconds: float,
        on_entry: Callable[[list[bytes]], object],
        on_reconnected: Callable[[], object],
    ) -> None:
        super().__init__(hub, connect, name='answers', timeout_seconds=timeout_seconds)
        self._key = key
        self._last_id = b'0'
        self._on_entry = on_entry
        self._on_reconnected = on_reconnected
        self._to_ignore = 0

    def connected(self) -> None:
        self._to_ignore = 0
        self._read_on()
        if self.reconnects:
            self._on_reconnected()

    def disconnected(self) -> None:
        pass

    def health_check(self) -> None:
        # A blocked reader cannot be asked; it hears from Redis at the end of each block.
        pass

    def _read_on(self) -> None:
        words: tuple[bytes | str | int, ...] = (b'XREAD', b'COUNT', READ_COUNT, b'BLOCK')
        self.write(pack_command(*words, READ_BLOCK_MS, b'STREAMS', self._key, self._last_id))

    def reply_received(self, reply: Any) -> None:
        if isinstance(reply, hiredis.PushNotification):
            return
        if self._to_ignore:
            self._to_ignore -= 1
            return
        if isinstance(reply, hiredis.HiredisError):
            self.lost(reply)
            return
        if reply:
            streams = reply.values() if isinstance(reply, dict) else [pair[1] for pair in reply]
            for entries in streams:
                for entry_id, fields in entries:
                    self._last_id = entry_id
                    self._on_entry(fields)
            # What is older than the last one read goes; the rest of the stream is what is new.
            self.write(pack_command(b'XTRIM', self._key, b'MINID', self._last_id))
            self._to_ignore += 1
        self._read_on()


def _ignore(reply: Any) -> None:
    pass
