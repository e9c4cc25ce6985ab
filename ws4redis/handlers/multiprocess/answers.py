"""What a worker writes: answers to servers, and which of their events it has seen.

Handlers answer in any thread; one thread writes. Each server has a list of its own: one whose
stream is missing, since it was killed perhaps, keeps its answers waiting, and nobody else's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import redis

from ws4redis.handlers.multiprocess.events import Event, Kind
from ws4redis.handlers.multiprocess.names import KeyNames
from ws4redis.handlers.multiprocess.pipe import Command, Pipe
from ws4redis.handlers.multiprocess.remote_lane import Entry, RemoteLane

logger = logging.getLogger('ws4redis')

RETRY_SECONDS = 0.3

RedisAway = (redis.ConnectionError, redis.TimeoutError, OSError)


class Answers:
    """Take answers in any thread, and write them in one.

    ``has_websockets`` tells whether any websocket of a server has a handler here.
    """

    def __init__(
        self, names: KeyNames, worker: str, *, has_websockets: Callable[[str], bool]
    ) -> None:
        self._names = names
        self._worker = worker
        self._has_websockets = has_websockets
        # Guards all that follows, and the numbers of a lane's answers.
        self._changed = threading.Condition()
        self._pending: dict[str, list[bytes]] = {}
        self._seen: dict[RemoteLane, int] = {}
        self._acknowledged: list[bytes] = []
        # Servers that did not take their answers, and when to try again.
        self._retry_at: dict[str, float] = {}
        self._no_more = False

    # Called in any thread

    def answer(self, lane: RemoteLane, kind: Kind, payload: bytes) -> None:
        """Send an answer to the server of a websocket, after those that were sent before."""
        with self._changed:
            lane.answers += 1
            self._put(lane.server, kind, lane.number, lane.answers, payload)

    def report(self, server: str, lanes: Iterable[RemoteLane]) -> None:
        """Tell a server which of its websockets are known here, and what they were answered."""
        with self._changed:
            state = b' '.join(b'%d:%d' % (lane.number, lane.answers) for lane in lanes)
            self._put(server, Kind.STATE, 0, 0, state)

    def event_seen(self, lane: RemoteLane, entry: Entry) -> None:
        """Let the server know that the handler has seen one more event."""
        with self._changed:
            self._seen[lane] = lane.seen
            self._acknowledge(entry)

    def seen_before(self, server: str, websocket: int, number: int) -> None:
        """Tell a server again up to where events were seen."""
        with self._changed:
            self._put(server, Kind.SEEN, websocket, number)

    def acknowledge(self, entry: Entry) -> None:
        """Count one event of an entry as done; the last one removes it from the stream."""
        with self._changed:
            self._acknowledge(entry)

    def _acknowledge(self, entry: Entry) -> None:
        entry.remaining -= 1
        if entry.remaining == 0 and entry.id:
            self._acknowledged.append(entry.id)
        self._changed.notify()

    def drop(self, server: str) -> None:
        """Forget what a server that has gone was to be told."""
        with self._changed:
            self._pending.pop(server, None)
            self._retry_at.pop(server, None)

    def finish(self) -> None:
        """Let :meth:`write_all` return when all is written that can be."""
        with self._changed:
            self._no_more = True
            self._changed.notify()

    def _put(
        self, server: str, kind: Kind, websocket: int, number: int, payload: bytes = b''
    ) -> None:
        event = Event(kind, self._worker, websocket, number, payload)
        self._pending.setdefault(server, []).extend((kind, event.content()))
        self._changed.notify()

    # Called in the writer's thread

    def write_all(self) -> None:
        """Write what comes until :meth:`finish`. Blocks."""
        pipe = Pipe(self._names.workers)
        try:
            while True:
                with self._changed:
                    while not self._is_due() and not self._no_more:
                        self._changed.wait(self._seconds_to_wait())
                    if self._no_more and not self._is_due():
                        return
                    answers, acknowledged = self._take()
                if not self._write(pipe, answers, acknowledged):
                    if self._no_more:
                        return
                    time.sleep(RETRY_SECONDS)
        finally:
            pipe.close()

    def _is_due(self) -> bool:
        now = time.monotonic()
        return bool(
            self._seen
            or self._acknowledged
            or any(self._retry_at.get(server, 0.0) <= now for server in self._pending)
        )

    def _seconds_to_wait(self) -> float | None:
        times = [self._retry_at[server] for server in self._pending if server in self._retry_at]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _take(self) -> tuple[dict[str, list[bytes]], list[bytes]]:
        """Take what is to be written now. What was seen comes after the answers to it."""
        seen, self._seen = self._seen, {}
        for lane, number in seen.items():
            self._put(lane.server, Kind.SEEN, lane.number, number)
        now = time.monotonic()
        due = [server for server in self._pending if self._retry_at.get(server, 0.0) <= now]
        acknowledged, self._acknowledged = self._acknowledged, []
        return {server: self._pending.pop(server) for server in due}, acknowledged

    def _write(
        self, pipe: Pipe, answers: dict[str, list[bytes]], acknowledged: list[bytes]
    ) -> bool:
        """Write; what is not taken waits again, before what came since. Tell if Redis is there.

        A server knows what it has had before, so that to write twice does no harm.
        """
        commands: list[Command] = [
            ('XADD', self._names.answers(server), 'NOMKSTREAM', '*', *words)
            for server, words in answers.items()
        ]
        if acknowledged:
            stream = self._names.events(self._worker)
            commands.append(('XACK', stream, self._worker, *acknowledged))
            commands.append(('XDEL', stream, *acknowledged))
        try:
            replies = pipe.run(commands)
        except RedisAway:
            with self._changed:
                self._acknowledged[:0] = acknowledged
                for server, words in answers.items():
                    self._pending[server] = words + self._pending.get(server, [])
            return False
        for (server, words), reply in zip(answers.items(), replies, strict=False):
            self._take_reply(server, words, reply)
        return True

    def _take_reply(self, server: str, words: list[bytes], reply: Any) -> None:
        if reply is not None and not isinstance(reply, Exception):
            self._retry_at.pop(server, None)
            return
        if isinstance(reply, Exception) and server not in self._retry_at:
            logger.error('Redis refuses answers to %s: %s', server, reply)
        if reply is None and not self._has_websockets(server):
            # No stream, and no websocket of that server either: it has gone, and knows it.
            self._retry_at.pop(server, None)
            return
        self._retry_at[server] = time.monotonic() + RETRY_SECONDS
        with self._changed:
            self._pending[server] = words + self._pending.get(server, [])
