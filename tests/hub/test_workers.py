"""The pool of native threads."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest

from tests.hub.rig import run_program
from tests.timeouts import SOON_SECONDS, wait_until
from ws4redis.hub.workers import Workers


def test_tasks_run_in_the_order_in_which_they_came() -> None:
    workers = Workers(1)
    done: list[int] = []
    finished = threading.Event()
    for number in range(100):
        workers.submit(done.append, number)
    workers.submit(finished.set)
    assert finished.wait(SOON_SECONDS)
    assert done == list(range(100))
    workers.stop()


def test_no_more_tasks_run_at_once_than_the_pool_has_threads() -> None:
    workers = Workers(3)
    gate = threading.Event()
    begun = threading.Semaphore(0)
    finished = threading.Semaphore(0)

    def task() -> None:
        begun.release()
        assert gate.wait(SOON_SECONDS)
        finished.release()

    for _ in range(5):
        workers.submit(task)
    for _ in range(3):
        assert begun.acquire(timeout=SOON_SECONDS)
    assert not begun.acquire(timeout=0.05)
    assert workers.waiting == 2
    gate.set()
    for _ in range(5):
        assert finished.acquire(timeout=SOON_SECONDS)
    assert workers.waiting == 0
    workers.stop()


class SlowQueue:
    """A queue whose takers dawdle between taking a task and beginning it."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self.put = queue.put
        self.qsize = queue.qsize
        self.taken = threading.Event()
        self.may_begin = threading.Event()

    def get(self) -> Any:
        task = self._queue.get()
        if not self.taken.is_set():
            self.taken.set()
            assert self.may_begin.wait(SOON_SECONDS)
        return task


def test_a_task_does_not_wait_for_one_that_is_about_to_begin_while_threads_are_left() -> None:
    workers = Workers(2)
    queue = workers._tasks = SlowQueue(workers._tasks)
    finished = threading.Event()
    workers.submit(lambda: None)
    assert queue.taken.wait(SOON_SECONDS)
    workers.submit(finished.set)
    assert finished.wait(1)
    queue.may_begin.set()
    workers.stop()


def test_an_idle_thread_is_used_again() -> None:
    workers = Workers(100)
    idents: set[int] = set()
    for _ in range(100):
        finished = threading.Event()
        workers.submit(lambda: idents.add(threading.get_ident()))
        workers.submit(finished.set)
        assert finished.wait(SOON_SECONDS)
    assert len(idents) < 20
    workers.stop()


def test_the_exception_of_a_task_is_logged_and_ends_no_thread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    workers = Workers(1)
    finished = threading.Event()
    workers.submit(lambda: 1 / 0)
    workers.submit(finished.set)
    assert finished.wait(SOON_SECONDS)
    assert 'ZeroDivisionError' in caplog.text
    workers.stop()


def test_nothing_of_a_task_outlives_it() -> None:
    class Held:
        pass

    workers = Workers(1)
    finished = threading.Event()
    held = Held()
    reference = weakref.ref(held)
    workers.submit(lambda something: finished.set(), held)
    del held
    assert finished.wait(SOON_SECONDS)
    wait_until(lambda: gc.collect() is None or reference() is None)
    workers.stop()


def test_a_stopped_pool_finishes_what_was_submitted_and_ends_its_threads() -> None:
    before = threading.active_count()
    workers = Workers(2)
    done: list[int] = []
    for number in range(10):
        workers.submit(done.append, number)
    workers.stop()
    wait_until(lambda: len(done) == 10)
    wait_until(lambda: threading.active_count() <= before)


def test_under_monkey_patching_tasks_run_in_native_threads() -> None:
    run_program("""
        from gevent import monkey
        monkey.patch_all()
        from ws4redis.hub.native import NativeEvent, original, thread_ident
        from ws4redis.hub.workers import Workers
        workers, finished, idents = Workers(2), NativeEvent(), []
        def task():
            original('time', 'sleep')(0.05)
            idents.append(thread_ident())
            finished.set()
        workers.submit(task)
        assert finished.wait(10)
        assert idents[0] != thread_ident()
        workers.stop()
    """)
