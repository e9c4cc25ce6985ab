"""A bounded pool of native threads for what may block.

``concurrent.futures`` would do, were it not that gevent's monkey patching turns its threads into
greenlets of whichever thread submits; here, that is the loop.

One thread does all the work while it gets on well: more of them would only take the interpreter's
lock from each other, and from the loop. Sixteen of them echo less than half as many messages as one
does. When a task has waited for ``PATIENCE_SECONDS``, another thread joins, unless the pool is
crowded: that is, its threads already compute for most of a core, or the tasks are short. What the
loop computes does not count. A crowded pool lets its threads go, down to one, as long as others get
on with the tasks; when nobody does, another one joins all the same.

While tasks wait, one thread that has nothing to do stands by, and looks every ``PATIENCE_SECONDS``
whether it is time to join. The others sleep until they are called.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

from ws4redis.loop.native import original, start_thread, thread_ident
from ws4redis.loop.thread_hubs import Sleep, end_hub, turn_hub

logger = logging.getLogger('ws4redis')

# How long a task waits before another thread joins.
PATIENCE_SECONDS = 0.002
# Over how long it is measured, at least, whether the pool is crowded, and whether it gets on.
WINDOW_SECONDS = 0.005
# Of a core. More, and the loop would not get enough of the interpreter's lock.
CROWDED_SHARE = 0.6
# A thread whose tasks take less than this, on average, needs no help.
SHORT_TASK_SECONDS = 0.0002
# How long threads that have nothing to do may take to end.
END_SECONDS = 1.0
# After so many tasks of a thread that is never idle it is looked after all the same.
TASKS_BETWEEN_CARES = 256


_of_this_thread = original('_thread', '_local')()


def is_looked_after() -> bool:
    """Tell whether the caller runs in a pool whose threads are taken care of."""
    return getattr(_of_this_thread, 'is_looked_after', False)


class Task:
    """Something that runs once in a thread of a pool, or not at all."""

    __slots__ = ('_workers', 'args', 'function', 'has_ended', 'is_given_up', 'is_lent', 'since')

    def __init__(
        self, workers: Workers, function: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        self._workers = workers
        self.function = function
        self.args = args
        self.since = time.monotonic()
        self.has_ended = False
        self.is_given_up = False
        # Another thread may run in place of the one that is stuck in it.
        self.is_lent = False

    def give_up(self) -> bool:
        """Take note that nobody waits for it any more; tell whether it had not ended.

        If it has not begun it never will. If it has, it no longer counts as one of those that the
        pool runs at once.
        """
        return self._workers.give_up(self)


class _Thread:
    """One thread of a pool."""

    __slots__ = ('_clock', 'done', 'is_working', 'last_taken', 'sleep')

    def __init__(self) -> None:
        self.is_working = False
        # The number of its last task, among all those of the pool, and how many it has done.
        self.last_taken = 0
        self.done = 0
        self.sleep: Sleep | None = None
        self._clock: int | None = None

    def begin(self) -> None:
        self._clock = _cpu_clock()

    def cpu_seconds(self) -> float:
        return 0.0 if self._clock is None else time.clock_gettime(self._clock)


def _cpu_clock() -> int | None:
    """Return the clock of what the calling thread computes, where the platform has such clocks."""
    clock_of = getattr(time, 'pthread_getcpuclockid', None)
    return None if clock_of is None else clock_of(thread_ident())


def _even_if_logging_fails() -> AbstractContextManager[None]:
    # A handler of the log that raises must not end a thread, which the pool counts on.
    return suppress(BaseException)


class Workers:
    """Run functions in at most ``size`` native threads, in the order in which they came.

    ``care`` is called in a thread that has run something, when it has no more to do.
    ``is_crowded`` replaces the pool's own measurement.
    """

    def __init__(
        self,
        size: int,
        *,
        care: Callable[[], object] | None = None,
        is_crowded: Callable[[], bool] | None = None,
    ) -> None:
        self.size = size
        self._care = care
        self._is_crowded = is_crowded or self._measure_crowd
        # Not for what it permits, but since it knows its owner: see submit().
        self._lock = original('_thread', 'RLock')()
        self._tasks: deque[Task] = deque()
        self._threads: list[_Thread] = []
        # Those among them, and those that are about to end.
        self._alive = 0
        # The last one to fall asleep is woken first: few threads stay busy, and with them their
        # caches and database connections.
        self._sleepers: list[_Thread] = []
        self._stand_by: _Thread | None = None
        # Threads that run tasks, or were called to.
        self._working = 0
        self._taken = 0
        self._taken_at = 0.0
        # How long those that were taken had waited, in all.
        self.waited_seconds = 0.0
        self._running = 0
        # Threads that are stuck in tasks for which nobody waits, and may have replacements.
        self._lent = 0
        self._is_stopped = False
        # The last measurement.
        self._measured_at = time.monotonic()
        self._measured_cpu = 0.0
        self._measured_taken = 0
        self._was_crowded = False

    @property
    def waiting(self) -> int:
        """The number of tasks that no thread has begun."""
        return len(self._tasks)

    @property
    def begun(self) -> int:
        """The number of tasks that were begun until now."""
        return self._taken

    @property
    def unfinished(self) -> int:
        """The number of tasks that wait or run."""
        return len(self._tasks) + self._running

    def submit(self, function: Callable[..., object], *args: Any) -> Task:
        """Run ``function(*args)`` soon; its result is dropped, its exception logged."""
        task = Task(self, function, args)
        if self._lock._is_owned():
            # A finalizer or a signal's handler has interrupted this thread while it has the lock.
            start_thread(self._put, task)
        else:
            self._put(task)
        return task

    def _put(self, task: Task) -> None:
        with self._lock:
            if task.is_given_up:
                return
            self._tasks.append(task)
            called = self._call()
        self._start(called)

    def give_up(self, task: Task) -> bool:
        """See :meth:`Task.give_up`."""
        with self._lock:
            if task.has_ended or task.is_given_up:
                return False
            task.is_given_up = True
            called: list[_Thread] = []
            try:
                self._tasks.remove(task)
            except ValueError:
                if self._lent < self.size:
                    self._lent += 1
                    task.is_lent = True
                    called = self._call()
        self._start(called)
        return True

    def stop(self) -> None:
        """Let each thread end once it has done what was submitted before."""
        if self._lock._is_owned():
            start_thread(self.stop)
            return
        with self._lock:
            self._is_stopped = True
            while self._sleepers:
                self._wake(self._sleepers.pop())

    def wait_ended(self, timeout_seconds: float = END_SECONDS) -> bool:
        """Wait until the threads of a stopped pool have ended, but for those that are in a task.

        A thread that wakes in gevent's loop while the interpreter goes down crashes the process.
        Called outside the loop's turns; no greenlet runs meanwhile.
        """
        deadline = time.monotonic() + timeout_seconds
        while self._alive > self._running and time.monotonic() < deadline:
            original('time', 'sleep')(0.001)
        return self._alive <= self._running

    # Called with the lock

    def _call(self) -> list[_Thread]:
        """Call the threads that are due, to work and to stand by; return those to be started."""
        called: list[_Thread] = []
        is_stand_by_due = self._working > 0
        if self._tasks and not self._working:
            thread = self._choose(called)
            if thread is not None:
                self._working += 1
                thread.is_working = True
                # What runs in its loop may delay it.
                is_stand_by_due = thread.sleep is not None and thread.sleep.turns_hub
        if self._tasks and is_stand_by_due and self._stand_by is None:
            self._stand_by = self._choose(called)
        return called

    def _choose(self, called: list[_Thread]) -> _Thread | None:
        """Wake a thread that is free, or make one and add it to those to be started."""
        thread = None
        if self._sleepers:
            thread = self._sleepers.pop()
        elif self._stand_by is not None:
            thread, self._stand_by = self._stand_by, None
        elif len(self._threads) < self.size + self._lent:
            thread = _Thread()
            self._threads.append(thread)
            self._alive += 1
            called.append(thread)
        if thread is not None:
            self._wake(thread)
        return thread

    def _wake(self, thread: _Thread) -> None:
        if thread.sleep is not None:
            thread.sleep.end()

    def _is_wanted(self, thread: _Thread) -> bool:
        """Tell whether a thread is to take the next task."""
        if not thread.is_working:
            return not self._working or self._is_help_due()
        # Left to others only if one of them has taken something since: the rest may be stuck.
        is_alone = self._working == 1 or thread.last_taken == self._taken
        return is_alone or not self._is_crowded()

    def _is_help_due(self) -> bool:
        now = time.monotonic()
        if now - self._tasks[0].since < PATIENCE_SECONDS:
            return False
        # Where nobody gets on, what those that work do may take for ever.
        return not self._is_crowded() or now - self._taken_at >= WINDOW_SECONDS

    def _measure_crowd(self) -> bool:
        now = time.monotonic()
        elapsed = now - self._measured_at
        if elapsed >= WINDOW_SECONDS:
            cpu = sum(thread.cpu_seconds() for thread in self._threads)
            taken = self._taken - self._measured_taken
            self._was_crowded = (
                cpu - self._measured_cpu >= CROWDED_SHARE * elapsed
                or taken * SHORT_TASK_SECONDS > self._working * elapsed
            )
            self._measured_at, self._measured_cpu = now, cpu
            self._measured_taken = self._taken
        return self._was_crowded

    # Called without the lock

    def _start(self, called: list[_Thread]) -> None:
        for thread in called:
            try:
                start_thread(self._run, thread)
            except BaseException:
                # The next task tries again. Until then the threads that there are do it all.
                with _even_if_logging_fails():
                    logger.exception('a thread of the worker pool could not be started')
                with self._lock:
                    self._remove(thread)
                    self._alive -= 1
                    others = self._call() if self._sleepers else []
                self._start(others)

    def _remove(self, thread: _Thread) -> None:
        self._threads.remove(thread)
        if thread.is_working:
            self._working -= 1
        if self._stand_by is thread:
            self._stand_by = None

    # The threads

    def _run(self, thread: _Thread) -> None:
        thread.begin()
        _of_this_thread.is_looked_after = self._care is not None
        is_wanted = True
        while is_wanted:
            task = self._take(thread)
            if task is not None:
                self._perform(task)
                thread.done += 1
                # Drop the task's references before waiting again.
                del task
                if thread.done % TASKS_BETWEEN_CARES == 0:
                    self._take_care()
            else:
                if thread.done:
                    thread.done = 0
                    self._take_care()
                is_wanted = self._rest(thread)
        end_hub()
        with self._lock:
            self._alive -= 1

    def _take(self, thread: _Thread) -> Task | None:
        """Return the next task if this thread is to do it."""
        with self._lock:
            if not self._tasks or not self._is_wanted(thread):
                if thread.is_working:
                    thread.is_working = False
                    self._working -= 1
                return None
            if self._stand_by is thread:
                self._stand_by = None
            if not thread.is_working:
                thread.is_working = True
                self._working += 1
            task = self._tasks.popleft()
            self._running += 1
            self._taken += 1
            self._taken_at = now = time.monotonic()
            self.waited_seconds += now - task.since
            thread.last_taken = self._taken
            called = self._call()
        self._start(called)
        return task

    def _perform(self, task: Task) -> None:
        try:
            task.function(*task.args)
        except BaseException:
            # Even what calls sys.exit() must not end this thread, which the pool counts on.
            with _even_if_logging_fails():
                logger.exception('a task of the worker pool failed')
        with self._lock:
            self._running -= 1
            task.has_ended = True
            if task.is_lent:
                self._lent -= 1

    def _take_care(self) -> None:
        try:
            turn_hub()
            if self._care is not None:
                self._care()
        except BaseException:
            with _even_if_logging_fails():
                logger.exception('a thread of the worker pool could not be looked after')

    def _rest(self, thread: _Thread) -> bool:
        """Stand by or sleep, until there may be something to do; return whether there may."""
        with self._lock:
            if thread.is_working or (self._tasks and not self._working):
                return True
            stands_by = bool(self._tasks) and self._stand_by in (None, thread)
            if stands_by:
                if self._stand_by is None:
                    # From here on it counts.
                    self._measure_crowd()
                self._stand_by = thread
            elif self._stand_by is thread:
                self._stand_by = None
            if not stands_by and (self._is_stopped or len(self._threads) > self.size + self._lent):
                self._remove(thread)
                return False
            thread.sleep = sleep = Sleep()
            if not stands_by:
                self._sleepers.append(thread)
        try:
            sleep.wait(PATIENCE_SECONDS if stands_by else None)
        except BaseException:
            # Of something that a task has started in this thread.
            with _even_if_logging_fails():
                logger.exception('something that a task of the worker pool has started failed')
        with self._lock:
            thread.sleep = None
            # Nobody has called it.
            if thread in self._sleepers:
                self._sleepers.remove(thread)
        sleep.close()
        return True
