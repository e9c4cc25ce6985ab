"""A process that runs handlers for websocket servers anywhere.

Three kinds of threads: the *reader* takes events from the worker's stream, puts them into lanes,
and gives signs of life; the *runner's* threads call handlers; the *writer* adds answers to the
streams of servers and acknowledges what was seen. No handler, however slow, delays a sign of life.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import redis

from ws4redis.conf import conf
from ws4redis.exceptions import HandshakeError
from ws4redis.handlers.handler import WebSocketHandler
from ws4redis.handlers.lanes import Lanes
from ws4redis.handlers.multiprocess.answers import RETRY_SECONDS, Answers, RedisAway
from ws4redis.handlers.multiprocess.events import Event, Kind, parse
from ws4redis.handlers.multiprocess.names import (
    ALIVE_INTERVAL_SECONDS,
    WORKER_MS,
    KeyNames,
    make_sign,
    new_id,
)
from ws4redis.handlers.multiprocess.pipe import Command, Pipe
from ws4redis.handlers.multiprocess.remote_lane import Entry, RemoteLane
from ws4redis.handlers.routes import HandlerRoutes
from ws4redis.handlers.runners import ThreadRunner
from ws4redis.hub.statistics import Statistics
from ws4redis.protocol.frames import CloseCode

logger = logging.getLogger('ws4redis')

READ_COUNT = 64
READ_BLOCK_MS = 300
# A server whose stream is missing so many times in a row has gone. (It is not time that counts, for
# which Redis may have been halted.)
MISSING_ROUNDS = 7
SERVER_GONE_SECONDS = MISSING_ROUNDS * ALIVE_INTERVAL_SECONDS
# Websockets that ended lately: should their events come again, they were seen before.
REMEMBERED_ENDS = 10_000


class HandlerWorker:
    """Run handlers until told to stop.

    ``routes`` are those of the settings; a handler that is not among them is refused.
    """

    def __init__(self, names: KeyNames, routes: HandlerRoutes) -> None:
        self.id = new_id()
        self.statistics = Statistics()
        self.lanes = Lanes(ThreadRunner(conf.WS4REDIS_WORKER_THREADS), self.statistics)
        self._names = names
        self._stream = names.events(self.id)
        self._handler_classes = {
            f'{cls.__module__}.{cls.__qualname__}': cls for cls in routes.handler_classes()
        }
        self._open_lanes: dict[tuple[str, int], RemoteLane] = {}
        self._ended: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._ends = threading.Lock()
        # No event: to set one takes a lock, which the thread that a signal interrupts may hold.
        self._stopping = False
        self._is_leaving = False
        self._announce: Callable[[], object] | None = None
        self._next_beat = 0.0
        self._beats = 0
        self._missing: Counter[str] = Counter()
        self.answers = Answers(names, self.id, has_websockets=self._has_websockets)

    def handler_class(self, path: str) -> type[WebSocketHandler]:
        """Return a handler by its dotted path; raise ``HandshakeError`` 500 if it is unknown."""
        try:
            return self._handler_classes[path]
        except KeyError:
            logger.error('the handler %s is not in the settings of this worker', path)
            raise HandshakeError(500, 'Internal server error.') from None

    def stop(self) -> None:
        """Make :meth:`run` return, in good order. Safe in signal handlers and threads."""
        self._stopping = True

    def run(self, *, announce: Callable[[], object]) -> None:
        """Serve until :meth:`stop`. Blocks.

        ``announce`` is called once: when servers can find this worker, or when Redis is away.
        """
        self._announce = announce
        writer = threading.Thread(target=self.answers.write_all, name='answers', daemon=True)
        writer.start()
        pipe = Pipe(self._names.workers)
        try:
            self._read_until(pipe, lambda: self._stopping)
            self._leave(pipe)
        finally:
            self.lanes.finish(conf.WS4REDIS_CLOSE_TIMEOUT)
            self.answers.finish()
            writer.join(conf.WS4REDIS_CLOSE_TIMEOUT)
            self._unregister(pipe)
            pipe.close()

    # The reader

    def _read_until(self, pipe: Pipe, is_enough: Any) -> None:
        """Take events until ``is_enough()``; sit out that Redis is away."""
        has_group = False
        complaint = ''
        while not is_enough():
            try:
                has_group = has_group or self._make_group(pipe)
                self._give_sign_of_life(pipe)
                self._announce_once()
                has_group = self._read(pipe)
                if complaint:
                    logger.warning('connected to Redis again (handlers)')
                    complaint = ''
            except RedisAway as exc:
                if str(exc) != complaint:
                    complaint = str(exc)
                    logger.error('cannot reach Redis (handlers): %s; trying again', exc)
                self._announce_once()
                has_group = False
                self._next_beat = 0.0
                self._missing.clear()
                time.sleep(RETRY_SECONDS)

    def _announce_once(self) -> None:
        announce, self._announce = self._announce, None
        if announce is not None:
            announce()

    def _make_group(self, pipe: Pipe) -> bool:
        # From the very first entry: a server may be quicker than we are.
        command = ('XGROUP', 'CREATE', self._stream, self.id, '0', 'MKSTREAM')
        (reply,) = pipe.run([command])
        if isinstance(reply, Exception) and not str(reply).startswith('BUSYGROUP'):
            raise redis.ConnectionError(f'Redis refuses the group of a worker: {reply}')
        self._next_beat = 0.0
        return True

    def _give_sign_of_life(self, pipe: Pipe) -> None:
        now = time.monotonic()
        if now < self._next_beat:
            return
        self._next_beat = now + ALIVE_INTERVAL_SECONDS
        servers = sorted({server for server, _ in list(self._open_lanes)})
        load = -1 if self._is_leaving else len(self._open_lanes)
        self._beats += 1
        commands: list[Command] = [
            ('HSET', self._names.workers, self.id, make_sign(load, self._beats)),
            ('PEXPIRE', self._names.workers, WORKER_MS),
            ('PEXPIRE', self._stream, WORKER_MS),
            *(('EXISTS', self._names.answers(server)) for server in servers),
        ]
        replies = pipe.run(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                logger.error('Redis refuses the sign of life of a worker: %s', reply)
                return
        for server, exists in zip(servers, replies[3:], strict=True):
            self._server_seen(server, exists=bool(exists))

    def _server_seen(self, server: str, *, exists: bool) -> None:
        self._missing[server] += 1
        if exists:
            del self._missing[server]
        elif self._missing[server] >= MISSING_ROUNDS:
            del self._missing[server]
            logger.error('the websocket server %s has gone', server)
            self.answers.drop(server)
            for lane in self._lanes_of(server):
                lane.server_gone()

    def _lanes_of(self, server: str) -> Iterable[RemoteLane]:
        return [lane for lane in list(self._open_lanes.values()) if lane.server == server]

    def _has_websockets(self, server: str) -> bool:
        return bool(self._lanes_of(server))

    def _read(self, pipe: Pipe) -> bool:
        """Read and distribute events; tell whether the group is still there."""
        (reply,) = pipe.run(
            [
                (
                    *('XREADGROUP', 'GROUP', self.id, self.id, 'COUNT', READ_COUNT),
                    *('BLOCK', READ_BLOCK_MS, 'STREAMS', self._stream, '>'),
                )
            ]
        )
        if isinstance(reply, Exception):
            if not str(reply).startswith(('NOGROUP', 'UNBLOCKED')):
                raise redis.ConnectionError(f'Redis refuses to read events: {reply}')
            return False
        if reply:
            streams = reply.values() if isinstance(reply, dict) else [pair[1] for pair in reply]
            for entries in streams:
                for entry_id, fields in entries:
                    self._distribute(entry_id, fields)
        return True

    def _distribute(self, entry_id: bytes, fields: list[bytes]) -> None:
        entry = Entry(entry_id, len(fields) // 2)
        for kind, content in zip(fields[::2], fields[1::2], strict=True):
            try:
                taken = self._take(parse(kind, content), entry)
            except (ValueError, UnicodeDecodeError):
                logger.exception('there is something in %s that is no event', self._stream)
                taken = False
            if not taken:
                self.answers.acknowledge(entry)

    def _take(self, event: Event, entry: Entry) -> bool:
        """Put an event into its lane; tell whether it was."""
        key = (event.peer, event.websocket)
        lane = self._open_lanes.get(key)
        if event.kind == Kind.REPORT:
            self._report(event.peer)
            return False
        if lane is None:
            if event.kind == Kind.OPEN and key not in self._ended:
                lane = self._open_lanes[key] = RemoteLane(self, event.peer, event.websocket)
            else:
                self._take_stray(event, self._ended.get(key, 0))
                return False
        if event.kind == Kind.END and event.number == 0:
            lane.server_gone()
            return False
        if event.number == lane.last_event + 1 and lane.closed_with is None:
            lane.take(event.kind, event.payload, entry)
            return True
        # It came before; should its acknowledgement have been lost, this is the next one.
        self.answers.seen_before(event.peer, event.websocket, lane.seen)
        return False

    def _take_stray(self, event: Event, last_seen: int) -> None:
        """Take an event of a websocket that has ended here, or was never known."""
        if event.kind == Kind.END or event.number <= last_seen:
            self.answers.seen_before(event.peer, event.websocket, event.number)
        else:
            self._report(event.peer)

    def _report(self, server: str) -> None:
        self.answers.report(server, self._lanes_of(server))

    # Called by the runner's threads

    def ended(self, lane: RemoteLane) -> None:
        """Forget a websocket whose handler has seen its end."""
        key = (lane.server, lane.number)
        with self._ends:
            self._open_lanes.pop(key, None)
            self._ended[key] = lane.last_event
            if len(self._ended) > REMEMBERED_ENDS:
                self._ended.popitem(last=False)

    # The end

    def _leave(self, pipe: Pipe) -> None:
        """Close all websockets, and go on until their ends have been seen, or for long enough."""
        self._is_leaving = True
        self._next_beat = 0.0
        for lane in list(self._open_lanes.values()):
            lane.close(CloseCode.SERVICE_RESTART, 'the handler restarts')
        deadline = time.monotonic() + conf.WS4REDIS_CLOSE_TIMEOUT + SERVER_GONE_SECONDS

        def is_enough() -> bool:
            return not self._open_lanes or time.monotonic() >= deadline

        self._read_until(pipe, is_enough)
        if self._open_lanes:
            logger.error('%d websockets did not end in time', len(self._open_lanes))

    def _unregister(self, pipe: Pipe) -> None:
        try:
            pipe.run(
                [
                    ('HDEL', self._names.workers, self.id),
                    ('DEL', self._stream),
                ]
            )
        except RedisAway:
            # The keys expire by themselves.
            logger.warning('Redis is away: the keys of this worker stay until they expire')
