"""The worker's end: from its stream to a handler, and back."""

from __future__ import annotations

import json
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from ws4redis.exceptions import HandshakeError
from ws4redis.handlers.lanes import HandlerLane
from ws4redis.handlers.multiprocess.acceptance import Acceptance
from ws4redis.handlers.multiprocess.events import Kind, pack_code
from ws4redis.handlers.multiprocess.sealing import WrongSeal, unseal
from ws4redis.handlers.requests import make_lasting_request
from ws4redis.handlers.session import HandlerSession
from ws4redis.handshake.identity import identity_to_keep
from ws4redis.handshake.policy import authorise, refusing_errors, user_to_count
from ws4redis.protocol.frames import CloseCode, Opcode

if TYPE_CHECKING:
    from ws4redis.handlers.multiprocess.worker import HandlerWorker

logger = logging.getLogger('ws4redis')


class Entry:
    """An entry of the worker's stream, acknowledged when its last event has been seen."""

    __slots__ = ('id', 'remaining')

    def __init__(self, entry_id: bytes, remaining: int) -> None:
        self.id = entry_id
        self.remaining = remaining


class RemoteLane(HandlerLane):
    """The events of one websocket of a server somewhere, and its handler here."""

    __slots__ = ('_entries', '_worker', 'answers', 'last_event', 'number', 'seen', 'server')

    def __init__(self, worker: HandlerWorker, server: str, number: int) -> None:
        super().__init__(worker.lanes)
        self.server = server
        self.number = number
        # Numbers of the last event that came, of the last that was seen, and of the last answer.
        self.last_event = 0
        self.seen = 0
        self.answers = 0
        self._worker = worker
        self._entries: deque[Entry] = deque()

    # Called by the reader's thread

    def take(self, kind: bytes, payload: bytes, entry: Entry) -> None:
        """Take the next event."""
        self.last_event += 1
        self._entries.append(entry)
        if kind == Kind.OPEN:
            # No opcode of a message, so that it cannot be taken for one.
            self.put_message(Opcode.CONTINUATION, payload)
        elif kind == Kind.END:
            code, _, reason = payload.partition(b' ')
            self.put_close(int(code), reason.decode())
        else:
            self.put_message(Opcode.TEXT if kind == Kind.TEXT else Opcode.BINARY, payload)

    def server_gone(self) -> None:
        """Take the end of a server that vanished without a word."""
        if self.closed_with is None:
            self.last_event += 1
            self._entries.append(Entry(b'', 0))
            self.put_close(CloseCode.ABNORMAL_CLOSURE, '')

    # Called by the runner

    def _receive(self, opcode: Opcode, payload: bytes) -> None:
        try:
            if opcode is Opcode.CONTINUATION:
                self._open(payload)
            elif self.session is not None:
                super()._receive(opcode, payload)
        finally:
            self._event_seen()

    def _end(self, code: int) -> None:
        try:
            super()._end(code)
        finally:
            self._worker.ended(self)
            self._event_seen()

    def _event_seen(self) -> None:
        self.seen += 1
        self._worker.answers.event_seen(self, self._entries.popleft())

    def _open(self, payload: bytes) -> None:
        """Apply the policy, then ask the handler; send the answer."""
        try:
            accepted = self._connect(json.loads(unseal(payload)))
        except HandshakeError as error:
            self.session = None
            self._answer(Kind.REFUSE, pack_code(error.status, error.body))
        except WrongSeal as exc:
            logger.error('cannot read the handshake of %s: %s', self.server, exc)
            self.session = None
            self._answer(Kind.REFUSE, pack_code(500, 'Internal server error.'))
        except BaseException:  # (whatever it is, the thread goes on)
            logger.exception('a handshake failed')
            self.session = None
            self._answer(Kind.REFUSE, pack_code(500, 'Internal server error.'))
        else:
            self._answer(Kind.ACCEPT, accepted.sealed())

    def _connect(self, opening: Any) -> Acceptance:
        handler_class = self._worker.handler_class(opening['handler'])
        request = make_lasting_request(opening['environ'])
        authorise(request)
        self.session = HandlerSession(handler_class, request, opening['kwargs'], self)
        with refusing_errors(request):
            self.session.connect()
        return Acceptance(user_to_count(request), identity_to_keep(request))

    # The connection: called in any thread

    def send(self, payload: bytes, opcode: Opcode) -> None:
        self._answer(Kind.SEND_TEXT if opcode is Opcode.TEXT else Kind.SEND_BINARY, payload)

    def close(self, code: int, reason: str) -> None:
        self._answer(Kind.CLOSE, pack_code(code, reason))

    def _answer(self, kind: Kind, payload: bytes) -> None:
        self._worker.answers.answer(self, kind, payload)
