"""A handshake as a machine: received → admitted → joined → answered, or refused.

It is written once, as a generator that yields what it has to wait for and is sent what came of it.
It knows no server. Servers of WSGI run it by :func:`run_waiting` in the thread or greenlet that
they give each request; the native door runs it by :class:`Running`, in the loop, where nothing
waits: a handshake that waits costs its objects there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from ws4redis.handshake.blocking import with_database
from ws4redis.loop.blocking_call import Pool, PooledCall, TookTooLong

if TYPE_CHECKING:
    from ws4redis.loop.loop import Loop

logger = logging.getLogger('ws4redis')

T = TypeVar('T')

Proceed: TypeAlias = Callable[[Any, BaseException | None], object]


class Step(Protocol):
    """What a handshake waits for."""

    def wait(self) -> Any:
        """Wait for it, and return the result; called outside the loop."""

    def begin(self, proceed: Proceed) -> Callable[[], object]:
        """Let ``proceed(result, error)`` be called later, in the loop; return what prevents it."""


Steps = Generator[Step, Any, T]


class Call:
    """Call code of the project, which may block and use the database.

    Its result or exception comes back; ``TookTooLong`` after ``seconds``. ``too_late`` then gets
    the result if there is one after all, and may block as well.
    """

    __slots__ = ('_args', '_function', '_loop', '_pool', '_seconds', '_too_late')

    def __init__(
        self,
        loop: Loop,
        function: Callable[..., Any],
        *args: Any,
        seconds: float,
        too_late: Callable[[Any], object] | None = None,
        pool: Pool = Pool.POLICY,
    ) -> None:
        self._loop = loop
        self._function = function
        self._args = args
        self._seconds = seconds
        self._too_late = None if too_late is None else partial(with_database, too_late)
        self._pool = pool

    def wait(self) -> Any:
        return self._loop.driver.run_blocking(
            with_database,
            self._function,
            *self._args,
            timeout_seconds=self._seconds,
            too_late=self._too_late,
            pool=self._pool,
        )

    def begin(self, proceed: Proceed) -> Callable[[], object]:
        call = PooledCall(
            partial(with_database, self._function, *self._args), proceed, self._too_late
        )
        call.start(self._loop, self._loop.driver.pool(self._pool), self._seconds)
        return call.give_up


class Until:
    """Wait until something has happened in the loop, or for so many seconds.

    ``begin(done)`` is called in the loop, and calls ``done`` there.
    """

    __slots__ = ('_begin', '_due', '_loop', '_seconds', '_timer')

    def __init__(
        self, loop: Loop, begin: Callable[[Callable[[], object]], object], seconds: float
    ) -> None:
        self._loop = loop
        self._begin = begin
        self._seconds = seconds
        self._due: Proceed | None = None
        self._timer: Any = None

    def wait(self) -> None:
        happened = self._loop.driver.event()
        self._loop.call_soon(self._begin, happened.set)
        happened.wait(self._seconds)

    def begin(self, proceed: Proceed) -> Callable[[], object]:
        self._due = proceed
        self._timer = self._loop.call_later(self._seconds, self._expired)
        self._begin(self._happened)
        return self._prevent

    def _happened(self) -> None:
        due = self._due
        if due is not None:
            self._prevent()
            due(None, None)

    def _expired(self) -> None:
        due, self._due = self._due, None
        if due is not None:
            due(None, None)

    def _prevent(self) -> None:
        self._due = None
        self._loop.timers.cancel(self._timer)


def run_waiting(steps: Steps[T]) -> T:
    """Run a handshake to its end where waiting blocks nobody else; return its result."""
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = steps.send(value) if error is None else steps.throw(error)
        except StopIteration as end:
            result: T = end.value
            return result
        value = error = None
        try:
            value = step.wait()
        except BaseException as exc:  # noqa: BLE001 (the handshake gets it)
            error = exc


class Running:
    """A handshake that runs in the loop.

    ``ended(result, error)`` is called once, with what the machine has returned or raised; never
    after :meth:`cancel`.
    """

    __slots__ = ('_ended', '_prevent', '_steps', '_turn', 'waits_for_project')

    def __init__(self, steps: Steps[Any], ended: Proceed) -> None:
        self._steps: Steps[Any] | None = steps
        self._ended = ended
        self._prevent: Callable[[], object] | None = None
        self._turn = 0
        # Whether it waits for code of the project, which may take its time.
        self.waits_for_project = False

    def start(self) -> None:
        """Run to the first step that waits, if there is one."""
        self._proceed(None, None)

    def _proceed(self, value: Any, error: BaseException | None) -> None:
        steps = self._steps
        if steps is None:
            return
        self._prevent = None
        self._turn += 1
        try:
            step = steps.send(value) if error is None else steps.throw(error)
        except StopIteration as end:
            self._end(end.value, None)
        except BaseException as exc:  # noqa: BLE001 (it is what the client is refused for)
            self._end(None, exc)
        else:
            self.waits_for_project = isinstance(step, Call)
            turn = self._turn
            prevent = step.begin(self._proceed)
            # It may have gone on, and be at another step, when that call returns.
            if self._turn == turn:
                self._prevent = prevent

    def _end(self, result: Any, error: BaseException | None) -> None:
        self._steps = None
        self._ended(result, error)

    def cancel(self) -> None:
        """Stop: the client has gone, or nobody will answer it."""
        steps, self._steps = self._steps, None
        if self._prevent is not None:
            self._prevent()
        if steps is not None:
            try:
                steps.close()
            except Exception:
                logger.exception('a handshake could not be given up')


__all__ = ['Call', 'Running', 'Step', 'Steps', 'TookTooLong', 'Until', 'run_waiting']
