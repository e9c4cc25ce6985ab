"""The backend of a websocket server whose handlers run in other processes."""

from __future__ import annotations

import itertools
import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import hiredis

from ws4redis.exceptions import HandshakeError
from ws4redis.handlers.multiprocess.acceptance import Acceptance
from ws4redis.handlers.multiprocess.events import Event, Kind, parse, unpack_code
from ws4redis.handlers.multiprocess.links import CommandLink, StreamLink
from ws4redis.handlers.multiprocess.names import (
    ALIVE_INTERVAL_SECONDS,
    SERVER_STREAM_MS,
    KeyNames,
    new_id,
)
from ws4redis.handlers.multiprocess.outbox import Outbox, Refusal, Unseen
from ws4redis.handlers.multiprocess.roster import RemoteWorker, Roster
from ws4redis.handlers.multiprocess.sealing import seal
from ws4redis.handlers.requests import lasting_environ, make_lasting_request
from ws4redis.handshake.machine import Steps, Until
from ws4redis.handshake.policy import verify_origin
from ws4redis.protocol.frames import CloseCode, Opcode
from ws4redis.servers.process import connect_to_redis

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import WSGIEnvironment

    from ws4redis.handlers.routes import Match
    from ws4redis.hub.hub import Hub
    from ws4redis.servers.opening import Opening

logger = logging.getLogger('ws4redis')

MAX_EVENTS_PER_ENTRY = 256
# Of a dead worker's events so many are named one by one in the log.
LOGGED_EVENTS = 20


class RemoteBackend:
    """Let workers take websockets, and pass events and answers between them."""

    def __init__(self, hub: Hub, names: KeyNames) -> None:
        self.hub = hub
        self.id = new_id()
        self._names = names
        self._answers_key = names.answers(self.id)
        self._numbers = itertools.count(1)
        self._outboxes: dict[int, Outbox] = {}
        self._waiting: dict[Outbox, bytes] = {}
        self._pending: dict[RemoteWorker, None] = {}
        self._disconnected_at = hub.loop.timers.clock()
        timeout = hub.options.redis_timeout_seconds
        connect = partial(connect_to_redis, names.workers)
        self._commands = CommandLink(
            hub.loop,
            connect,
            timeout_seconds=timeout,
            on_connected=self._connected,
            on_disconnected=self._disconnected,
        )
        self._roster = Roster(
            self._commands,
            names.workers,
            on_new=self._ask_for_report,
            on_dead=self._bury,
            on_round=self._assign_waiting,
        )
        self._answers = StreamLink(
            hub.loop,
            connect,
            self._answers_key,
            timeout_seconds=timeout,
            on_entry=self._entry_received,
            on_reconnected=self._ask_for_reports,
        )
        hub.loop.call_soon(self._start)
        hub.loop.at_turn_end(self._turn_end)
        hub.loop.at_close(self._finish)

    @property
    def is_connected(self) -> bool:
        return self._commands.is_connected

    # Handshakes: a machine that runs in the loop or outside it

    def open(self, opening: Opening, environ: WSGIEnvironment, match: Match) -> Steps[None]:
        # What needs neither session nor user is decided here, without asking anybody.
        verify_origin(make_lasting_request(environ))
        outbox = Outbox(self, next(self._numbers))
        outbox.websocket = opening.make_websocket(outbox)
        handler = f'{match.handler_class.__module__}.{match.handler_class.__qualname__}'
        request = {'handler': handler, 'kwargs': match.kwargs, 'environ': lasting_environ(environ)}
        sealed = seal(json.dumps(request).encode())

        def begin(answered: Callable[[], object]) -> None:
            outbox.answered = answered
            self._assign(outbox, sealed)

        yield Until(self.hub.loop, begin, opening.seconds_left)
        outcome = outbox.outcome
        if outcome is None:
            logger.error('no handler answered a handshake in time; does run_wsworker run?')
            outcome = Refusal(503, 'The handler of this websocket is not available.')
        if isinstance(outcome, Refusal):
            raise HandshakeError(outcome.status, outcome.sentence)
        accepted = Acceptance.unsealed(outcome)
        opening.identify(accepted.identity)
        if accepted.user is not None:
            opening.count_user(accepted.user)
        opening.complete()

    # From here on all runs in the loop

    def _start(self) -> None:
        self._commands.start()
        self._answers.start()
        self._tick()

    def _assign(self, outbox: Outbox, request: bytes) -> None:
        """Choose a worker for a new websocket: of those that live, the one with least to do."""
        if outbox.websocket is None:
            return
        worker = self._roster.choose()
        if worker is None:
            # Until one is there; the handshake does not wait for ever.
            self._waiting[outbox] = request
            return
        worker.load += 1
        worker.outboxes[outbox.id] = self._outboxes[outbox.id] = outbox
        outbox.worker = worker
        outbox.put(Kind.OPEN, request)

    def forget(self, outbox: Outbox) -> None:
        """Let go of a websocket of which nobody has to be told any more."""
        self._outboxes.pop(outbox.id, None)
        self._waiting.pop(outbox, None)
        if outbox.worker is not None:
            outbox.worker.outboxes.pop(outbox.id, None)

    # Sending events

    def send(self, outbox: Outbox, unseen: Unseen) -> None:
        """Queue an event for the worker of a websocket; it goes out when the turn ends."""
        worker = outbox.worker
        if worker is not None and self.is_connected and not worker.needs_resend:
            event = Event(unseen.kind, self.id, outbox.id, unseen.number, unseen.payload)
            self._queue(worker, event)

    def _queue(self, worker: RemoteWorker, event: Event) -> None:
        worker.pending += (event.kind, event.content())
        self._pending[worker] = None

    def _turn_end(self) -> bool:
        if self._pending:
            pending, self._pending = self._pending, {}
            for worker in pending:
                self._write(worker)
        self._answers.flush()
        return self._commands.flush()

    def _write(self, worker: RemoteWorker) -> None:
        pending, worker.pending = worker.pending, []
        step = 2 * MAX_EVENTS_PER_ENTRY
        for start in range(0, len(pending), step):
            self._commands.command(
                lambda reply: self._added(worker, reply),
                b'XADD',
                self._names.events(worker.id),
                # A stream that has gone is its reader's to make anew, which then wants it all.
                b'NOMKSTREAM',
                b'*',
                *pending[start : start + step],
            )

    def _added(self, worker: RemoteWorker, reply: Any) -> None:
        if isinstance(reply, hiredis.HiredisError):
            if not worker.needs_resend:
                logger.error('Redis refuses events for the worker %s: %s', worker.id, reply)
            worker.needs_resend = True
        elif reply is None:
            worker.needs_resend = True

    def _resend(self, worker: RemoteWorker) -> None:
        """Send again what a worker has not seen; it knows what it has had before."""
        worker.needs_resend = False
        worker.pending.clear()
        for outbox in worker.outboxes.values():
            for unseen in outbox.unseen:
                self.send(outbox, unseen)

    # Answers

    def _entry_received(self, fields: list[bytes]) -> None:
        for kind, content in zip(fields[::2], fields[1::2], strict=True):
            try:
                self._answer_received(parse(kind, content))
            except (ValueError, UnicodeDecodeError):
                logger.exception('there is something in %s that is no answer', self._answers_key)

    def _answer_received(self, answer: Event) -> None:
        if answer.kind == b'hello':
            return
        if answer.kind == Kind.STATE:
            self._state_received(answer)
            return
        outbox = self._outboxes.get(answer.websocket)
        if outbox is None:
            self._disown(answer)
        elif answer.kind == Kind.SEEN:
            outbox.seen(answer.number)
        elif answer.number == outbox.last_answer + 1:
            outbox.last_answer = answer.number
            self._apply(outbox, answer)
        elif answer.number > outbox.last_answer:
            self._answers_lost(outbox)

    def _apply(self, outbox: Outbox, answer: Event) -> None:
        if answer.kind in (Kind.SEND_TEXT, Kind.SEND_BINARY):
            opcode = Opcode.TEXT if answer.kind == Kind.SEND_TEXT else Opcode.BINARY
            if outbox.websocket is not None:
                outbox.websocket.send_message(answer.payload, opcode)
        elif answer.kind == Kind.CLOSE:
            outbox.close_websocket(*unpack_code(answer.payload))
        elif answer.kind == Kind.ACCEPT:
            outbox.answer(answer.payload)
        elif answer.kind == Kind.REFUSE:
            outbox.answer(Refusal(*unpack_code(answer.payload)))

    def _disown(self, answer: Event) -> None:
        # The websocket has ended, and its worker was given up. Should the worker live after all,
        # its handler learns of the end.
        worker = self._roster.get(answer.peer)
        if worker is not None and answer.kind != Kind.SEEN:
            self._end_stray(worker, answer.websocket)

    def _end_stray(self, worker: RemoteWorker, number: int) -> None:
        code = b'%d ' % CloseCode.ABNORMAL_CLOSURE
        self._queue(worker, Event(Kind.END, self.id, number, 0, code))

    # After a reconnection: was anything lost?

    def _ask_for_reports(self) -> None:
        for worker in self._roster:
            self._ask_for_report(worker)

    def _state_received(self, answer: Event) -> None:
        """Compare what a worker says of its websockets with what has arrived here."""
        worker = self._roster.get(answer.peer)
        if worker is None:
            return
        pairs = (item.split(b':') for item in answer.payload.split())
        last_answers = {int(number): int(last) for number, last in pairs}
        for number in last_answers.keys() - self._outboxes.keys():
            self._end_stray(worker, number)
        for outbox in list(worker.outboxes.values()):
            last = last_answers.get(outbox.id)
            if last is not None and last > outbox.last_answer:
                self._answers_lost(outbox)
            elif last is None and outbox.unseen and outbox.unseen[0].number > 1:
                # It has forgotten a websocket that it had accepted.
                outbox.give_up(CloseCode.SERVICE_RESTART, 'the handler has gone')
            elif last is None and not outbox.unseen:
                outbox.give_up(CloseCode.SERVICE_RESTART, 'the handler has gone')

    def _answers_lost(self, outbox: Outbox) -> None:
        logger.error('answers to websocket %d were lost in Redis', outbox.id)
        outbox.answer(Refusal(503, 'The handler of this websocket is not available.'))
        outbox.close_websocket(CloseCode.INTERNAL_ERROR, 'messages were lost')

    # Redis and the workers: who is there?

    def _connected(self) -> None:
        self._make_stream()
        self._roster.connected()
        for worker in self._roster:
            self._resend(worker)

    def _disconnected(self) -> None:
        self._disconnected_at = self.hub.loop.timers.clock()
        for worker in self._roster:
            worker.pending.clear()

    def _make_stream(self) -> None:
        content = Event(b'hello', self.id, 0, 0).content()
        self._commands.command(_ignore, b'XADD', self._answers_key, b'*', b'hello', content)
        self._keep_stream()

    def _keep_stream(self) -> None:
        def kept(reply: Any) -> None:
            if reply == 0:
                # It had expired, with what was in it: we were halted for long.
                self._make_stream()
                self._ask_for_reports()

        self._commands.command(kept, b'PEXPIRE', self._answers_key, SERVER_STREAM_MS)

    def _tick(self) -> None:
        self.hub.loop.call_later(ALIVE_INTERVAL_SECONDS, self._tick)
        if self.is_connected:
            self._keep_stream()
            self._roster.ask()
            for worker in self._roster:
                if worker.needs_resend:
                    self._resend(worker)
        else:
            self._give_up_senders()

    def _give_up_senders(self) -> None:
        """Close those whose messages Redis has not taken for too long."""
        overdue_since = self.hub.loop.timers.clock() - self.hub.options.redis_timeout_seconds
        if self._disconnected_at > overdue_since:
            return
        for outbox in self._outboxes.values():
            waits = outbox.websocket is not None and outbox.unseen
            if waits and outbox.unseen[0].since <= overdue_since:
                outbox.close_websocket(CloseCode.TRY_AGAIN_LATER, 'Redis is not available')

    def _ask_for_report(self, worker: RemoteWorker) -> None:
        # One that was thought dead may still have websockets that we have closed.
        self._queue(worker, Event(Kind.REPORT, self.id, 0, 0))

    def _assign_waiting(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for outbox, request in waiting.items():
            self._assign(outbox, request)

    def _bury(self, worker: RemoteWorker) -> None:
        """Close the websockets of a worker that has died, and log what it has not seen."""
        outboxes = list(worker.outboxes.values())
        events = [(outbox, unseen) for outbox in outboxes for unseen in outbox.unseen]
        if outboxes:
            logger.error(
                'the worker %s has died: %d websockets are closed, %d events were not seen',
                worker.id,
                sum(outbox.websocket is not None for outbox in outboxes),
                len(events),
            )
        for outbox, unseen in events[:LOGGED_EVENTS]:
            logger.error(
                'not seen: event %d of websocket %d: %s, %d bytes',
                unseen.number,
                outbox.id,
                unseen.kind.decode(),
                len(unseen.payload),
            )
        for outbox in outboxes:
            outbox.give_up(CloseCode.SERVICE_RESTART, 'the handler has gone')

    # The end

    def _finish(self) -> None:
        # Websockets that are still there tell their workers of their end, if Redis takes it.
        for websocket in self.hub:
            websocket.lost()
        self._turn_end()
        self._commands.stop()
        self._answers.stop()


def _ignore(reply: Any) -> None:
    pass
