"""Runners: what handlers of this process run in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from django.db import close_old_connections, connections

from ws4redis.loop.drivers import Event
from ws4redis.loop.native import NativeEvent
from ws4redis.loop.workers import Workers

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

    Database connections are looked after as at the ends of requests, but only when a thread has
    nothing left to do, and every so many tasks: for an echo that would cost as much as all the
    rest.
    """

    def __init__(self, size: int) -> None:
        self._workers = Workers(size, care=close_old_connections)

    def submit(self, task: Task) -> None:
        self._workers.submit(task)

    def stop(self) -> None:
        self._workers.stop()
        self._workers.wait_ended()

    def event(self) -> Event:
        return NativeEvent()


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
        # A greenlet has its own database connections, which nobody could use after it.
        connections.close_all()
