"""Which workers there are, as a server sees them.

Each worker writes a new sign of life into one hash of Redis again and again, and servers read that
hash as often. It is not time that counts, but answers of Redis: while it is away or halted nobody
is taken for dead, since one question waits for the answer to the one before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import hiredis

from ws4redis.handlers.multiprocess.links import CommandLink
from ws4redis.handlers.multiprocess.names import parse_sign

if TYPE_CHECKING:
    from ws4redis.handlers.multiprocess.outbox import Outbox

logger = logging.getLogger('ws4redis')

# A worker that gives no new sign of life in so many answers in a row is dead.
SILENT_ROUNDS = 5


class RemoteWorker:
    """A process that runs handlers."""

    def __init__(self, worker_id: str) -> None:
        self.id = worker_id
        self.outboxes: dict[int, Outbox] = {}
        # How many websockets it has, as it said, and those that it got from us since.
        self.load = 0
        self.accepts = False
        self.pending: list[bytes | str] = []
        # Its stream was away, or refused an event: all that it has not seen is to be sent again.
        self.needs_resend = False
        self._sign = b''
        self._is_proven = False
        self._silent_rounds = 0

    def round(self, sign: bytes | None, *, is_new: bool) -> bool:
        """Take its sign of life, None if there is none; tell whether it is thought alive.

        ``is_new`` tells that there was no sign at all before, so that this one must be fresh.
        """
        if sign is None or sign == self._sign:
            self._silent_rounds += 1
            return self._silent_rounds < SILENT_ROUNDS
        # Of one that was there before us, the first sign may be what a dead one has left.
        self._is_proven = self._is_proven or is_new or bool(self._sign)
        self._sign = sign
        self._silent_rounds = 0
        load = parse_sign(sign)
        # One that is about to stop says so by a negative number.
        self.accepts = self._is_proven and load >= 0
        self.load = max(load, len(self.outboxes))
        return True

    def start_over(self) -> None:
        """Forget how long it was silent: Redis was away."""
        self._silent_rounds = 0


class Roster:
    """The workers that are thought alive. All methods run in the loop.

    ``on_new`` and ``on_dead`` are told of each that comes and goes, ``on_round`` of each answer.
    """

    def __init__(
        self,
        commands: CommandLink,
        key: str,
        *,
        on_new: Callable[[RemoteWorker], object],
        on_dead: Callable[[RemoteWorker], object],
        on_round: Callable[[], object],
    ) -> None:
        self._commands = commands
        self._key = key
        self._on_new = on_new
        self._on_dead = on_dead
        self._on_round = on_round
        self._workers: dict[str, RemoteWorker] = {}
        self._is_asking = False
        self._is_first_round = True

    def __iter__(self) -> Iterator[RemoteWorker]:
        return iter(list(self._workers.values()))

    def get(self, name: str) -> RemoteWorker | None:
        return self._workers.get(name)

    def choose(self) -> RemoteWorker | None:
        """Return the worker with least to do of those that take websockets, if there is any."""
        candidates = [worker for worker in self._workers.values() if worker.accepts]
        return min(candidates, key=lambda worker: worker.load, default=None)

    def connected(self) -> None:
        """Take note that Redis is there again; it may have forgotten everything."""
        self._is_asking = False
        self._is_first_round = True
        for worker in self._workers.values():
            worker.start_over()
        self.ask()

    def ask(self) -> None:
        """Ask Redis who is there, unless the last question is unanswered."""
        if not self._is_asking and self._commands.is_connected:
            self._is_asking = True
            self._commands.command(self._take_round, b'HGETALL', self._key)

    def _take_round(self, reply: Any) -> None:
        self._is_asking = False
        if isinstance(reply, hiredis.HiredisError):
            logger.error('Redis does not tell which workers there are: %s', reply)
            return
        signs = {name.decode(): sign for name, sign in reply.items()}
        for name in signs.keys() - self._workers.keys():
            worker = self._workers[name] = RemoteWorker(name)
            self._on_new(worker)
        for worker in self:
            if not worker.round(signs.get(worker.id), is_new=not self._is_first_round):
                del self._workers[worker.id]
                self._commands.command(_ignore, b'HDEL', self._key, worker.id)
                self._on_dead(worker)
        self._is_first_round = False
        self._on_round()


def _ignore(reply: Any) -> None:
    pass
