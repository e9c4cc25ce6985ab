"""Runners: what handlers of this process run in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from django.db import close_old_connections, connections

from ws4redis.hub.drivers import Event
from ws4redis.hub.native import NativeEvent, original, start_thread

Task = Callable[[], object]


class Runner(Protocol):
    """Run tasks, each soon and in any order; tasks raise nothing."""

    def submit(self, task: Task) -> None: ...

    def stop(self) -> None:
        """Run what was submitted, and nothing more."""

    def event(self) -> Event:
        """Return an event for which tasks, or others, wait."""


class ThreadRunner:
    """Run tasks in at most ``size`` native threads.

    A thread that has become idle first was the last to work: few threads stay busy, and with them
    their caches and database connections. Connections are looked after as at the ends of requests,
    but only when a thread has nothing left to do, and every so many tasks: for an echo that would
    cost as much as all the rest.
    """

    TASKS_BETWEEN_CLEANUPS = 256

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = original('_thread', 'allocate_lock')()
        self._wakers: list[Any] = []
        self._tasks: deque[Task] = deque()
        self._threads = 0
        self._stopped = False

    def submit(self, task: Task) -> None:
        self._tasks.append(task)
        waker = None
        with self._lock:
            if self._wakers:
                waker = self._wakers.pop()
            elif self._threads < self._size:
                self._threads += 1
            else:
                return
        if waker is not None:
            waker.release()
        else:
            start_thread(self._run)

    def stop(self) -> None:
        self._stopped = True
        with self._lock:
            wakers, self._wakers = self._wakers, []
        for waker in wakers:
            waker.release()

    def event(self) -> Event:
        return NativeEvent()

    def _run(self) -> None:
        waker = original('_thread', 'allocate_lock')()
        waker.acquire()
        tasks = self._tasks
        done = 0
        while True:
            try:
                task = tasks.popleft()
            except IndexError:
                if done:
                    close_old_connections()
                    done = 0
                if not self._sleep(waker):
                    return
                continue
            task()
            # Nothing of it may outlive it in this frame while the thread sleeps.
            del task
            done += 1
            if done == self.TASKS_BETWEEN_CLEANUPS:
                close_old_connections()
                done = 0

    def _sleep(self, waker: Any) -> bool:
        with self._lock:
            if self._tasks:
                return True
            if self._stopped:
                self._threads -= 1
                return False
            self._wakers.append(waker)
        waker.acquire()
        return True


class GreenletRunner:
    """Run each task in a greenlet of the loop's own thread; for a monkey-patched process."""

    def __init__(self) -> None:
        import gevent
        from gevent.event import Event as GeventEvent

        self._spawn = gevent.spawn
        self._event_class = GeventEvent

    def submit(self, task: Task) -> None:
        self._spawn(_run_and_close_connections, task)

    def stop(self) -> None:
        pass

    def event(self) -> Event:
        event: Event = self._event_class()
        return event


def _run_and_close_connections(task: Task) -> None:
    try:
        task()
    finally:
        # A greenlet has connections of its own, which nobody could use after it.
        connections.close_all()
