"""Handshakes that wait for their sessions together, in the loop and in a thread of the pool.

The sessions of those that wait are read at once, and their users. Where the policy asks for nothing
else the thread that has read admits them as well, one after the other: to hand each of them to the
pool, and back to the loop, would take as long again. Nobody waits for a thread that is stuck: after
``PATIENCE_SECONDS`` who is not being admitted yet reads for himself, and the next are read for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from ws4redis.handshake.blocking import with_database
from ws4redis.handshake.sessions import Read, read_sessions
from ws4redis.loop.blocking_call import Pool, TookTooLong

if TYPE_CHECKING:
    from ws4redis.handshake.machine import Proceed
    from ws4redis.loop.loop import Loop
    from ws4redis.loop.workers import Task

logger = logging.getLogger('ws4redis')

BATCH_SESSIONS = 100
# While fewer handshakes than this wait, each reads its session itself: that is one way, not two.
FEW_WAITING = 4
# For so long a thread admits those that it has read for. Where that takes its time, the others go
# to the pool, which has more threads.
AT_ONCE_SECONDS = 0.05
PATIENCE_SECONDS = 2.0
# So many go on in one turn of the loop, since open websockets wait for it.
TOLD_PER_TURN = 25


class Admitted(NamedTuple):
    """What came of a handshake that was admitted as soon as its session was read."""

    result: Any


class SessionReader:
    """Read the sessions that handshakes of a loop wait for; all but the reading runs in it."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        # Those who wait for each session.
        self._waiting: dict[str, list[ReadSession]] = {}
        # Those whose sessions are being read, and who reads them.
        self._batch: list[ReadSession] = []
        self._task: Task | None = None
        self._timer: Any = None
        self.round_trips = 0

    @property
    def is_worth_it(self) -> bool:
        """Tell whether so many wait that it pays to read for all of them. Safe in any thread."""
        return bool(self._batch) or self._loop.driver.pool(Pool.POLICY).waiting >= FEW_WAITING

    def read(self, step: ReadSession) -> None:
        """Read a session soon, and tell the step."""
        self._waiting.setdefault(step.key, []).append(step)
        if not self._batch:
            self._read_next()

    def _read_next(self) -> None:
        self._batch = batch = []
        keys = 0
        while self._waiting and keys < BATCH_SESSIONS:
            steps = self._waiting.pop(next(iter(self._waiting)))
            wanted = [step for step in steps if step.is_due]
            batch += wanted
            keys += bool(wanted)
        if batch:
            self.round_trips += 1
            self._timer = self._loop.call_later(PATIENCE_SECONDS, self._go_on)
            self._task = self._loop.driver.pool(Pool.SESSIONS).submit(self._read, batch)

    def _read(self, batch: list[ReadSession]) -> None:
        reads: list[Read | None] = [None] * len(batch)
        try:
            reads = with_database(read_sessions, [step.key for step in batch])
        except Exception as exc:  # noqa: BLE001 (see below)
            # Each of them finds the same by itself, and is answered accordingly.
            logger.debug('sessions could not be read together: %s', exc)
        until = monotonic() + AT_ONCE_SECONDS
        for step, read in zip(batch, reads, strict=True):
            if read is not None and read.is_complete and monotonic() < until:
                step.admit(read)
        self._loop.call_soon(self._is_read, batch, reads)

    def _is_read(self, batch: list[ReadSession], reads: list[Read | None]) -> None:
        if batch is self._batch:
            self._loop.timers.cancel(self._timer)
            self._read_next()
        self._tell(zip(batch, reads, strict=True))

    def _go_on(self) -> None:
        """Leave the thread that reads to itself."""
        assert self._task is not None
        self._task.give_up()
        batch = self._batch
        self._read_next()
        self._tell((step, None) for step in batch)

    def _tell(self, news: Iterator[tuple[ReadSession, Read | None]]) -> None:
        told = 0
        for step, read in islice(news, TOLD_PER_TURN):
            step.tell(read)
            told += 1
        if told == TOLD_PER_TURN:
            self._loop.call_soon(self._tell, news)


class ReadSession:
    """A step of a handshake: wait for its session, which is read together with others.

    The result is what was read, ``None`` where nothing is known. With ``admit`` the thread that
    reads may call ``admit(read)`` at once, and then the result is :class:`Admitted`. ``too_late``
    gets what that has returned when nobody waits any more, and may block. Raise ``TookTooLong``
    after ``seconds``.

    All but :meth:`wait` and :meth:`admit` runs in the loop.
    """

    def __init__(
        self,
        reader: SessionReader,
        loop: Loop,
        key: str,
        seconds: float,
        *,
        admit: Callable[[Read], Any] | None = None,
        too_late: Callable[[Any], object] | None = None,
    ) -> None:
        self.key = key
        self._reader = reader
        self._loop = loop
        self._seconds = seconds
        self._admit = admit
        self._too_late = too_late
        self._proceed: Proceed | None = None
        self._timer: Any = None
        # Taken out by the thread when it begins to admit, or by the loop when that is not to be:
        # one operation, so that no lock is needed.
        self._claim = [True]
        self._outcome: tuple[Any, BaseException | None] | None = None

    @property
    def is_due(self) -> bool:
        return bool(self._claim)

    def wait(self) -> Any:
        event = self._loop.driver.event()
        got: list[tuple[Any, BaseException | None]] = []

        def proceed(value: Any, error: BaseException | None) -> None:
            got.append((value, error))
            event.set()

        def give_up() -> None:
            if got:
                self._undo(got[0][0])
            else:
                self._cancel()

        is_over = False
        self._loop.call_soon(self.begin, proceed)
        try:
            event.wait(self._seconds)
            is_over = bool(got)
        finally:
            # Also when the wait ends by an exception, such as gevent's Timeout.
            if not is_over:
                self._loop.call_soon(give_up)
        if not is_over:
            raise TookTooLong
        value, error = got[0]
        if error is not None:
            raise error
        return value

    def begin(self, proceed: Proceed) -> Callable[[], object]:
        self._proceed = proceed
        self._timer = self._loop.call_later(self._seconds, self._end, None, TookTooLong())
        self._reader.read(self)
        return self._cancel

    def admit(self, read: Read) -> None:
        """Admit at once, in the thread that reads; may block."""
        if self._admit is None or not self._has_claimed():
            return
        try:
            self._outcome = Admitted(with_database(self._admit, read)), None
        except BaseException as exc:  # noqa: BLE001 (the handshake gets it)
            self._outcome = None, exc

    def tell(self, read: Read | None) -> None:
        """Go on with what was read, or with what came of it; not while it is being admitted."""
        outcome, self._outcome = self._outcome, None
        if outcome is not None:
            self._end(*outcome)
        elif self._has_claimed():
            self._end(read, None)

    def _has_claimed(self) -> bool:
        try:
            return self._claim.pop()
        except IndexError:
            return False

    def _end(self, value: Any, error: BaseException | None) -> None:
        proceed = self._proceed
        self._cancel()
        if proceed is None:
            self._undo(value)
        else:
            proceed(value, error)

    def _cancel(self) -> None:
        self._proceed = None
        self._has_claimed()
        self._loop.timers.cancel(self._timer)

    def _undo(self, value: Any) -> None:
        if isinstance(value, Admitted) and self._too_late is not None:
            workers = self._loop.driver.pool(Pool.POLICY)
            workers.submit(with_database, self._too_late, value.result)
