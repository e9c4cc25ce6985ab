"""Calls that run in a pool, while somebody waits for their results until a deadline.

Whoever waits and the thread that runs the call may both come to their end at the same moment. Each
claims the outcome then, and one of them gets it: so what a call has made is either used or undone.
"""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from ws4redis.loop.drivers import Event
    from ws4redis.loop.loop import Loop
    from ws4redis.loop.workers import Task, Workers

logger = logging.getLogger('ws4redis')

T = TypeVar('T')


class TookTooLong(TimeoutError):
    """A call has not ended before its deadline."""


class Pool(enum.Enum):
    """The pools of calls for which handshakes wait: what is stuck in one does not delay others."""

    POLICY = 'sessions, users, callbacks and subscribers'
    HANDLERS = 'the openings of handlers'
    SESSIONS = 'sessions that are read for many handshakes at once'


class BlockingCall(Generic[T]):
    """One call. ``finished`` is an event of whoever waits.

    ``too_late`` gets the result, in the thread of the pool, when nobody waits for it any more.
    """

    def __init__(
        self,
        function: Callable[..., T],
        args: tuple[Any, ...],
        finished: Event,
        too_late: Callable[[T], object] | None,
    ) -> None:
        self._function = function
        self._args = args
        self._finished = finished
        self._too_late = too_late
        self._result: T | None = None
        self._error: BaseException | None = None
        # Taken out by whoever is first: one operation, so that no lock is needed.
        self._claim = [True]

    def wait_in(self, workers: Workers, timeout_seconds: float | None) -> T:
        """Run in a pool and return the result; raise ``TookTooLong`` after ``timeout_seconds``."""
        task = workers.submit(self._run)
        try:
            self._finished.wait(timeout_seconds)
        finally:
            # Also when the wait ends by an exception, such as gevent's Timeout.
            is_given_up = self._is_first()
            if is_given_up:
                task.give_up()
        if is_given_up:
            raise TookTooLong
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def _is_first(self) -> bool:
        try:
            return self._claim.pop()
        except IndexError:
            return False

    def _run(self) -> None:
        try:
            self._result = self._function(*self._args)
        except BaseException as exc:  # noqa: BLE001 (it is reported to whoever waits)
            self._error = exc
        if self._is_first():
            self._finished.set()
        elif self._error is not None:
            logger.debug('what nobody waits for any more failed', exc_info=self._error)
        elif self._too_late is not None:
            self._too_late(self._result)  # type: ignore[arg-type]


class PooledCall:
    """One call for which the loop waits without waiting; all but the call itself runs in the loop.

    ``proceed(result, error)`` is called once, unless it is given up before. ``too_late`` gets the
    result, in a thread of the pool, when it comes after that.
    """

    __slots__ = ('_function', '_loop', '_proceed', '_task', '_timer', '_too_late', '_workers')

    def __init__(
        self,
        function: Callable[[], Any],
        proceed: Callable[[Any, BaseException | None], object],
        too_late: Callable[[Any], object] | None = None,
    ) -> None:
        self._function = function
        self._proceed: Callable[[Any, BaseException | None], object] | None = proceed
        self._too_late = too_late
        self._loop: Loop
        self._workers: Workers
        self._timer: Any = None
        self._task: Task

    def start(self, loop: Loop, workers: Workers, seconds: float) -> None:
        """Run in a pool; ``proceed`` gets ``TookTooLong`` after so many seconds."""
        self._loop = loop
        self._workers = workers
        self._timer = loop.call_later(seconds, self._expired)
        self._task = workers.submit(self._run)

    def give_up(self) -> None:
        """Wait no longer."""
        if self._proceed is not None:
            self._proceed = None
            self._loop.timers.cancel(self._timer)
            self._task.give_up()

    def _expired(self) -> None:
        proceed = self._proceed
        if proceed is not None:
            self.give_up()
            proceed(None, TookTooLong())

    def _run(self) -> None:
        try:
            result = self._function()
        except BaseException as exc:  # noqa: BLE001 (it is reported to whoever waits)
            self._loop.call_soon(self._finish, None, exc)
        else:
            self._loop.call_soon(self._finish, result, None)

    def _finish(self, result: Any, error: BaseException | None) -> None:
        proceed, self._proceed = self._proceed, None
        if proceed is not None:
            self._loop.timers.cancel(self._timer)
            proceed(result, error)
        elif error is not None:
            logger.debug('what nobody waits for any more failed', exc_info=error)
        elif self._too_late is not None:
            self._workers.submit(self._too_late, result)


def call_here(
    function: Callable[..., T],
    args: tuple[Any, ...],
    timeout_seconds: float | None,
    too_late: Callable[[T], object] | None,
) -> T:
    """Call a function in the thread that waits, which nothing can interrupt.

    Raise ``TookTooLong`` afterwards if it took longer than ``timeout_seconds``.
    """
    started = time.monotonic()
    result = function(*args)
    if timeout_seconds is not None and time.monotonic() - started > timeout_seconds:
        if too_late is not None:
            too_late(result)
        raise TookTooLong
    return result
