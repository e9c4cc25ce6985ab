"""A bounded pool of native threads for what may block.

``concurrent.futures`` would do, were it not that gevent's monkey patching turns its threads into
greenlets of whichever thread submits; here, that is the loop.

Threads that wait for a database or for Redis are worth having. Threads that compute only take the
interpreter's lock from each other, and from the loop: sixteen of them echo less than half as many
messages as one does. Which it is cannot be told from a task. So the pool looks at the process: once
that has a whole core's worth of work, no further thread is woken, and those that work give up, down
to one. Should the one be stuck, another takes over within milliseconds.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol

from ws4redis.loop.native import original, start_thread

logger = logging.getLogger('ws4redis')

# How often a watching thread looks whether the tasks still make progress.
WATCH_SECONDS = 0.005
# After so many tasks of a thread that is never idle it is looked after all the same.
TASKS_BETWEEN_CARES = 256


class Load(Protocol):
    """Tells whether further threads would only be in each other's way."""

    def is_full(self) -> bool: ...


class ProcessLoad:
    """Tells whether this process computes on a whole core, as much as the GIL lets it do.

    What is read is the processor time of all its threads, over ``WINDOW_SECONDS`` or more.
    """

    WINDOW_SECONDS = 0.005
    FULL_SHARE = 0.95

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._used = time.process_time()
        self._is_full = False

    def is_full(self) -> bool:
        now = time.monotonic()
        elapsed = now - self._since
        if elapsed >= self.WINDOW_SECONDS:
            used = time.process_time()
            self._is_full = used - self._used >= self.FULL_SHARE * elapsed
            self._since, self._used = now, used
        return self._is_full


class _Thread:
    """One thread of a pool: what it sleeps on, and what it was woken for."""

    __slots__ = ('is_started', 'is_watcher', 'lock')

    def __init__(self) -> None:
        self.lock = original('_thread', 'allocate_lock')()
        self.lock.acquire()
        self.is_started = False
        self.is_watcher = False


def _even_if_logging_fails() -> AbstractContextManager[None]:
    # A handler of the log that raises must not end a thread, which the pool counts on.
    return suppress(BaseException)


class Workers:
    """Run functions in at most ``size`` native threads, in the order in which they came.

    ``care`` is called in a thread that has run something, when it has no more to do.
    """

    def __init__(
        self, size: int, *, care: Callable[[], object] | None = None, load: Load | None = None
    ) -> None:
        self.size = size
        self._care = care
        self._load = ProcessLoad() if load is None else load
        # Not for what it permits, but since it knows its owner: see submit().
        self._lock = original('_thread', 'RLock')()
        self._tasks: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        # The last one to fall asleep is woken first: few threads stay busy, and with them their
        # caches and database connections.
        self._sleepers: list[_Thread] = []
        self._threads = 0
        # Threads that run tasks, or are on their way to.
        self._active = 0
        self._is_watched = False
        # Threads that are being looked after, however long that takes.
        self._caring = 0
        self._taken = 0
        # Submitted and not finished.
        self._unfinished = 0
        self._is_stopped = False

    @property
    def waiting(self) -> int:
        """The number of tasks that no thread has begun."""
        return len(self._tasks)

    @property
    def unfinished(self) -> int:
        """The number of tasks that wait or run."""
        return self._unfinished

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)`` soon; its result is dropped, its exception logged."""
        if self._lock._is_owned():
            # A finalizer or a signal's handler has interrupted this thread while it has the lock.
            start_thread(self.submit, function, *args)
            return
        with self._lock:
            self._unfinished += 1
            self._tasks.append((function, args))
            called = self._call()
        self._wake(called)

    def stop(self) -> None:
        """Let each thread end once it has done what was submitted before."""
        if self._lock._is_owned():
            start_thread(self.stop)
            return
        with self._lock:
            self._is_stopped = True
            sleepers, self._sleepers = self._sleepers, []
            self._active += len(sleepers)
        for thread in sleepers:
            thread.lock.release()

    # Called with the lock

    def _has_enough(self) -> bool:
        """Tell whether another active thread would be in the way of those that there are."""
        return self._active > 0 and self._load.is_full()

    def _call(self) -> _Thread | None:
        """Choose a thread to work, or to watch, and return it to be woken; ``None``: nobody."""
        watches = self._has_enough()
        if watches and self._is_watched:
            return None
        if self._sleepers:
            thread = self._sleepers.pop()
        elif self._threads < min(self._unfinished + self._caring, self.size):
            # As many as the tasks would do: before a thread sleeps it looks whether there is one.
            self._threads += 1
            thread = _Thread()
        else:
            return None
        thread.is_watcher = watches
        if watches:
            self._is_watched = True
        else:
            self._active += 1
        return thread

    # Called without the lock

    def _wake(self, thread: _Thread | None) -> None:
        if thread is None:
            return
        if thread.is_started:
            thread.lock.release()
        else:
            thread.is_started = True
            try:
                start_thread(self._run, thread)
            except BaseException:
                # The next task tries again. Until then the threads that there are do it all.
                with _even_if_logging_fails():
                    logger.exception('a thread of the worker pool could not be started')
                self._wake(self._do_without(thread))

    def _do_without(self, thread: _Thread) -> _Thread | None:
        """Take back that a thread was started; return one to wake, should some rely on it."""
        with self._lock:
            self._threads -= 1
            if thread.is_watcher:
                self._is_watched = False
            else:
                self._active -= 1
            return self._call() if self._tasks and self._sleepers else None

    def _run(self, thread: _Thread) -> None:
        while True:
            if not thread.is_watcher or self._watch():
                self._work()
            if not self._sleep(thread):
                return

    def _work(self) -> None:
        """Run tasks until there are none, or fewer threads do as well."""
        done = 0
        last = 0
        while True:
            with self._lock:
                if done:
                    self._unfinished -= 1
                # Left to others only if one of them has taken something: the rest may be stuck.
                if not self._tasks or (
                    done and self._active > 1 and self._taken != last and self._load.is_full()
                ):
                    self._active -= 1
                    self._caring += 1
                    break
                self._taken += 1
                last = self._taken
                function, args = self._tasks.popleft()
                called = self._call() if self._tasks else None
            self._wake(called)
            try:
                function(*args)
            except BaseException:
                # Even what calls sys.exit() must not end this thread, which the pool counts on.
                with _even_if_logging_fails():
                    logger.exception('a task of the worker pool failed')
            # Nothing of a task may outlive it in this frame.
            del function, args
            done += 1
            if done % TASKS_BETWEEN_CARES == 0:
                self._take_care()
        if done:
            self._take_care()
        with self._lock:
            self._caring -= 1

    def _take_care(self) -> None:
        if self._care is not None:
            try:
                self._care()
            except BaseException:
                with _even_if_logging_fails():
                    logger.exception('a thread of the worker pool could not be looked after')

    def _sleep(self, thread: _Thread) -> bool:
        """Sleep until called; return whether there is anything to do, rather than the end."""
        with self._lock:
            if self._tasks:
                # They came, or were left to others, since this thread stopped working.
                if not self._has_enough():
                    self._active += 1
                    thread.is_watcher = False
                    return True
                if not self._is_watched:
                    self._is_watched = thread.is_watcher = True
                    return True
            if self._is_stopped:
                self._threads -= 1
                return False
            thread.is_watcher = False
            self._sleepers.append(thread)
        thread.lock.acquire()
        return True

    def _watch(self) -> bool:
        """Wait while tasks make progress by others; return whether this thread is needed."""
        while True:
            taken = self._taken
            original('time', 'sleep')(WATCH_SECONDS)
            with self._lock:
                if not self._tasks:
                    self._is_watched = False
                    return False
                if self._taken != taken and self._has_enough():
                    continue
                self._is_watched = False
                self._active += 1
                return True
