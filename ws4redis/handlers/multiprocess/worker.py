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
from ws4redis.handlers.multiprocess.events import Event, Kind, parse
from ws4redis.handlers.multiprocess.names import (
    ALIVE_INTERVAL_SECONDS,
    ALIVE_MS,
    WORKER_STREAM_MS,
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
RETRY_SECONDS = 0.3
# A server whose stream is missing so many times in a row has gone. (It is not time that counts, for
# which Redis may have been halted.)
MISSING_ROUNDS = 7
SERVER_GONE_SECONDS = MISSING_ROUNDS * ALIVE_INTERVAL_SECONDS
# Websockets that ended lately: should their events come again, they were seen before.
REMEMBERED_ENDS = 10_000

RedisAway = (redis.ConnectionError, redis.TimeoutError, OSError)


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
        # No event: to set one takes a lock, which the thread that a signal interrupts may hold.
        self._stopping = False
        self._is_leaving = False
        self._announce: Callable[[], object] | None = None
        self._next_beat = 0.0
        self._beats = 0
        self._missing: Counter[str] = Counter()
        # What the writer has to write; guarded by the condition.
        self._to_write = threading.Condition()
        self._answers: dict[str, list[bytes]] = {}
        self._seen: dict[RemoteLane, int] = {}
        self._seen_again: list[tuple[str, int, int]] = []
        self._acknowledged: list[bytes] = []
        self._no_more_answers = False

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
        writer = threading.Thread(target=self._write_answers, name='answers', daemon=True)
        writer.start()
        pipe = Pipe()
        try:
            self._read_until(pipe, lambda: self._stopping)
            self._leave(pipe)
        finally:
            self.lanes.finish(conf.WS4REDIS_CLOSE_TIMEOUT)
            with self._to_write:
                self._no_more_answers = True
                self._to_write.notify()
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
            ('SET', self._names.alive(self.id), make_sign(load, self._beats), 'PX', ALIVE_MS),
            ('SADD', self._names.workers, self.id),
            ('PEXPIRE', self._stream, WORKER_STREAM_MS),
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
            with self._to_write:
                self._answers.pop(server, None)
            for lane in self._lanes_of(server):
                lane.server_gone()

    def _lanes_of(self, server: str) -> Iterable[RemoteLane]:
        return [lane for lane in list(self._open_lanes.values()) if lane.server == server]

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
                self._acknowledge(entry)

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
        with self._to_write:
            self._seen_again.append((event.peer, event.websocket, lane.seen))
            self._to_write.notify()
        return False

    def _take_stray(self, event: Event, last_seen: int) -> None:
        """Take an event of a websocket that has ended here, or was never known."""
        if event.kind == Kind.END or event.number <= last_seen:
            with self._to_write:
                self._seen_again.append((event.peer, event.websocket, event.number))
                self._to_write.notify()
        else:
            self._report(event.peer)

    def _report(self, server: str) -> None:
        """Tell a server which of its websockets are known here, and what they were answered."""
        with self._to_write:
            state = b' '.join(
                b'%d:%d' % (lane.number, lane.answers) for lane in self._lanes_of(server)
            )
            self._put_answer(server, Event(Kind.STATE, self.id, 0, 0, state))

    # Called by the runner's threads

    def answer(self, lane: RemoteLane, kind: Kind, payload: bytes) -> None:
        """Send an answer to the server of a websocket, after those that were sent before."""
        with self._to_write:
            lane.answers += 1
            event = Event(kind, self.id, lane.number, lane.answers, payload)
            self._put_answer(lane.server, event)

    def _put_answer(self, server: str, event: Event) -> None:
        self._answers.setdefault(server, []).extend((event.kind, event.content()))
        self._to_write.notify()

    def event_seen(self, lane: RemoteLane, entry: Entry) -> None:
        """Let the server know that the handler has seen one more event."""
        with self._to_write:
            self._seen[lane] = lane.seen
            self._to_write.notify()
        self._acknowledge(entry)

    def _acknowledge(self, entry: Entry) -> None:
        with self._to_write:
            entry.remaining -= 1
            if entry.remaining == 0 and entry.id:
                self._acknowledged.append(entry.id)
                self._to_write.notify()

    def ended(self, lane: RemoteLane) -> None:
        """Forget a websocket whose handler has seen its end."""
        key = (lane.server, lane.number)
        with self._to_write:
            self._open_lanes.pop(key, None)
            self._ended[key] = lane.last_event
            if len(self._ended) > REMEMBERED_ENDS:
                self._ended.popitem(last=False)

    # The writer

    def _write_answers(self) -> None:
        pipe = Pipe()
        while True:
            with self._to_write:
                self._to_write.wait_for(self._has_to_write)
                if self._no_more_answers and not self._has_answers():
                    break
                answers, acknowledged = self._take_answers()
            while not self._write(pipe, answers, acknowledged):
                if self._no_more_answers:
                    pipe.close()
                    return
                time.sleep(RETRY_SECONDS)
        pipe.close()

    def _has_answers(self) -> bool:
        return bool(self._answers or self._seen or self._seen_again or self._acknowledged)

    def _has_to_write(self) -> bool:
        return self._has_answers() or self._no_more_answers

    def _take_answers(self) -> tuple[dict[str, list[bytes]], list[bytes]]:
        """Take what is to be written. What was seen comes after the answers to it."""
        answers, self._answers = self._answers, {}
        seen, self._seen = self._seen, {}
        again, self._seen_again = self._seen_again, []
        again += [(lane.server, lane.number, number) for lane, number in seen.items()]
        for server, websocket, number in again:
            event = Event(Kind.SEEN, self.id, websocket, number)
            answers.setdefault(server, []).extend((event.kind, event.content()))
        acknowledged, self._acknowledged = self._acknowledged, []
        return answers, acknowledged

    def _write(
        self, pipe: Pipe, answers: dict[str, list[bytes]], acknowledged: list[bytes]
    ) -> bool:
        """Write answers and acknowledgements; tell whether all are written or of no use.

        What Redis took is removed from the arguments. A server knows what it has had before, so
        that to write twice does no harm.
        """
        servers = list(answers)
        commands: list[Command] = [
            ('XADD', self._names.answers(server), 'NOMKSTREAM', '*', *answers[server])
            for server in servers
        ]
        if acknowledged:
            commands.append(('XACK', self._stream, self.id, *acknowledged))
            commands.append(('XDEL', self._stream, *acknowledged))
        try:
            replies = pipe.run(commands)
        except RedisAway:
            return False
        acknowledged.clear()
        for server, reply in zip(servers, replies, strict=False):
            if isinstance(reply, Exception):
                logger.error('Redis refuses answers to %s: %s', server, reply)
            elif reply is not None or not self._lanes_of(server):
                # No stream, and no websocket of that server either: it has gone, and knows it.
                del answers[server]
        return not answers

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
                    ('SREM', self._names.workers, self.id),
                    ('DEL', self._names.alive(self.id), self._stream),
                ]
            )
        except RedisAway:
            # The keys expire by themselves.
            logger.warning('Redis is away: the keys of this worker stay until they expire')
