"""The two connections to Redis of a websocket server, both read and written by its loop."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

from ws4redis.broker.link import AWAY_ERRORS, RedisLink
from ws4redis.loop.loop import Loop

logger = logging.getLogger('ws4redis')

OnReply = Callable[[Any], object]

# In a Cluster a new connection leads to the node that has the keys now.
FOLLOWING_ERRORS = AWAY_ERRORS | {'MOVED', 'ASK'}
READ_BLOCK_MS = 2000
READ_COUNT = 256


class CommandLink(RedisLink):
    """Write commands one after the other, and hand each reply to whom it concerns.

    An error of Redis is handed over as well, as an exception. When the connection is lost, what was
    not answered is forgotten: ``on_connected`` and ``on_disconnected`` tell.
    """

    away_errors = FOLLOWING_ERRORS

    def __init__(
        self,
        loop: Loop,
        connect: Callable[[], socket.socket],
        *,
        timeout_seconds: float,
        on_connected: Callable[[], object],
        on_disconnected: Callable[[], object],
    ) -> None:
        super().__init__(loop, connect, name='events', timeout_seconds=timeout_seconds)
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected

    def command(self, on_reply: OnReply, *words: bytes | str | int) -> None:
        """Queue a command; it is written when the turn ends. Does nothing while disconnected."""
        if self.is_connected:
            self.send(*words, replied=on_reply, refused=on_reply)

    def connected(self) -> None:
        self._on_connected()

    def disconnected(self) -> None:
        self._on_disconnected()


class StreamLink(RedisLink):
    """Read a stream from where it was read last, and remove what was read.

    ``on_entry`` gets the fields of each entry, as pairs in a flat list. ``on_reconnected`` is told
    when the connection was lost and is there again: Redis may have lost what was in the stream.
    """

    away_errors = FOLLOWING_ERRORS

    def __init__(
        self,
        loop: Loop,
        connect: Callable[[], socket.socket],
        key: str,
        *,
        timeout_seconds: float,
        on_entry: Callable[[list[bytes]], object],
        on_reconnected: Callable[[], object],
    ) -> None:
        super().__init__(loop, connect, name='answers', timeout_seconds=timeout_seconds)
        self._key = key
        self._last_id = b'0'
        self._on_entry = on_entry
        self._on_reconnected = on_reconnected

    def connected(self) -> None:
        self._read_on()
        if self.reconnects:
            self._on_reconnected()

    def disconnected(self) -> None:
        pass

    def health_check(self) -> None:
        # A blocked reader cannot be asked; it hears from Redis at the end of each block.
        pass

    def _read_on(self) -> None:
        self.send(
            *(b'XREAD', b'COUNT', READ_COUNT, b'BLOCK', READ_BLOCK_MS),
            *(b'STREAMS', self._key, self._last_id),
            replied=self._entries_read,
            refused=self.lost,
        )

    def _entries_read(self, reply: Any) -> None:
        if reply:
            streams = reply.values() if isinstance(reply, dict) else [pair[1] for pair in reply]
            for entries in streams:
                for entry_id, fields in entries:
                    self._last_id = entry_id
                    self._on_entry(fields)
            # What is older than the last one read goes; the rest of the stream is what is new.
            self.send(b'XTRIM', self._key, b'MINID', self._last_id)
        self._read_on()
