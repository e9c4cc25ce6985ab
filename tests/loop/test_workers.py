"""The pool of native threads."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable

import pytest

from tests.hub.rig import run_program
from tests.loop.tasks import Gate, SetLoad
from tests.timeouts import SOON_SECONDS, wait_until
from ws4redis.loop.native import start_thread
from ws4redis.loop.workers import TASKS_BETWEEN_CARES, Workers


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


def test_a_task_does_not_wait_for_another_while_threads_are_left() -> None:
    workers = Workers(2, is_crowded=lambda: False)
    gate = Gate()
    workers.submit(gate.task)
    finished = threading.Event()
    workers.submit(finished.set)
    assert finished.wait(SOON_SECONDS)
    gate.may_end.set()
    workers.stop()


def test_a_thread_is_looked_after_when_it_has_nothing_left_to_do() -> None:
    cared: list[int] = []
    idents: list[int] = []
    workers = Workers(1, care=lambda: cared.append(threading.get_ident()))
    workers.submit(lambda: idents.append(threading.get_ident()))
    wait_until(lambda: len(cared) == 1)
    assert cared == idents
    for _ in range(TASKS_BETWEEN_CARES + 1):
        workers.submit(lambda: None)
    wait_until(lambda: len(cared) >= 3)
    workers.stop()


def test_a_thread_that_cannot_be_started_is_tried_again_and_its_task_not_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [RuntimeError("can't start new thread")] * 3

    def fail_at_first(function: Callable[..., object], *args: object) -> None:
        if failures:
            raise failures.pop()
        start_thread(function, *args)

    monkeypatch.setattr('ws4redis.loop.workers.start_thread', fail_at_first)
    workers = Workers(2)
    done: list[int] = []
    for number in range(4):
        workers.submit(done.append, number)
    wait_until(lambda: done == [0, 1, 2, 3])
    assert caplog.text.count('could not be started') == 3
    workers.stop()


def test_a_thread_that_is_looked_after_for_long_holds_nobody_up() -> None:
    care = Gate()
    workers = Workers(2, care=care.task)
    workers.submit(lambda: None)
    assert care.begun.acquire(timeout=SOON_SECONDS)
    finished = threading.Event()
    workers.submit(finished.set)
    assert finished.wait(SOON_SECONDS)
    care.may_end.set()
    workers.stop()


def test_neither_a_failing_care_nor_a_failing_log_ends_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: object) -> None:
        raise SystemExit

    monkeypatch.setattr('ws4redis.loop.workers.logger.exception', fail)
    workers = Workers(1, care=fail)
    for _ in range(3):
        finished = threading.Event()
        workers.submit(fail)
        workers.submit(finished.set)
        assert finished.wait(SOON_SECONDS)
    workers.stop()


def test_what_interrupts_a_thread_that_has_the_lock_may_submit_and_stop() -> None:
    class Interrupting(SetLoad):
        """Asked with the lock, as a finalizer may be run."""

        def is_full(self) -> bool:
            if pending:
                pending.pop()()
            return False

    workers = Workers(2, is_crowded=Interrupting().is_full)
    done: list[str] = []
    pending = [workers.stop, lambda: workers.submit(done.append, 'interrupting')]
    gate = Gate()
    workers.submit(gate.task)
    assert gate.begun.acquire(timeout=SOON_SECONDS)
    workers.submit(done.append, 'second')
    workers.submit(done.append, 'third')
    wait_until(lambda: sorted(done) == ['interrupting', 'second', 'third'])
    gate.may_end.set()
    wait_until(lambda: workers.unfinished == 0)


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
        from ws4redis.loop.native import NativeEvent, original, thread_ident
        from ws4redis.loop.workers import Workers
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


def test_a_task_that_was_given_up_in_time_never_runs_and_is_not_kept() -> None:
    workers = Workers(1)
    gate = Gate()
    workers.submit(gate.task)
    assert gate.begun.acquire(timeout=SOON_SECONDS)
    done: list[int] = []
    tasks = [workers.submit(done.append, number) for number in range(3)]
    assert tasks[1].give_up()
    assert not tasks[1].give_up()
    assert workers.waiting == 2
    gate.may_end.set()
    wait_until(lambda: workers.unfinished == 0)
    assert done == [0, 2]
    assert not tasks[0].give_up()
    workers.stop()


STARTED_IN_A_TASK = """
    PATCH
    import gevent, os, threading, time
    from ws4redis.loop.native import NativeEvent, original, thread_ident
    from ws4redis.loop.workers import Workers

    workers, idents, waits = Workers(2), [], []
    def descriptors(): return len(os.listdir('/proc/self/fd'))
    before = descriptors()
    def ran(event):
        idents.append(thread_ident())
        event.set()
    def expect():
        waits.append(NativeEvent())
        return waits[-1]
    def task():
        idents.append(thread_ident())
        gevent.spawn(ran, expect())
        gevent.spawn_later(0.05, ran, expect())
        if 'PATCH':
            threading.Timer(0.05, ran, (expect(),)).start()
            threading.Thread(target=lambda: (time.sleep(0.05), ran(expected_late))).start()
        begun.set()
    expected_late, begun = NativeEvent(), NativeEvent()
    workers.submit(task)
    assert begun.wait(10)
    for event in [*waits, *([expected_late] if 'PATCH' else [])]:
        assert event.wait(10), 'it never ran'
    # In the thread that started it, which meanwhile takes tasks as ever.
    assert len(set(idents)) == 1, idents
    for _ in range(100):
        event = NativeEvent()
        workers.submit(event.set)
        assert event.wait(10)

    # One that blocks its thread holds up no task.
    blocked, may_go = NativeEvent(), NativeEvent()
    def block():
        blocked.set()
        may_go.wait(10)
    workers.submit(gevent.spawn, block)
    assert blocked.wait(10)
    event = NativeEvent()
    workers.submit(event.set)
    assert event.wait(10)
    may_go.set()

    # What ends its own "process" ends no thread of the pool.
    def leave(): raise SystemExit
    for _ in range(3):
        workers.submit(gevent.spawn, leave)
    original('time', 'sleep')(0.05)
    event = NativeEvent()
    workers.submit(event.set)
    assert event.wait(10)

    # Nothing of the threads' hubs remains.
    workers.stop()
    assert workers.wait_ended(10)
    assert descriptors() <= before, (descriptors(), before)
    print('done')
"""


@pytest.mark.parametrize('patch', ['', 'from gevent import monkey; monkey.patch_all()'])
def test_what_a_task_starts_in_its_thread_runs_under_gevent(patch: str) -> None:
    output = run_program(STARTED_IN_A_TASK.replace('PATCH', patch))
    assert output.endswith('done\n'), output


def test_a_stopped_pool_does_not_wait_for_threads_that_are_stuck_in_tasks() -> None:
    workers = Workers(2)
    gate = Gate()
    workers.submit(gate.task)
    assert gate.begun.acquire(timeout=SOON_SECONDS)
    workers.submit(lambda: None)
    wait_until(lambda: workers.unfinished == 1)
    workers.stop()
    assert workers.wait_ended(SOON_SECONDS)
    gate.may_end.set()
    wait_until(lambda: workers.unfinished == 0)


def test_a_process_whose_pool_was_stopped_ends_well_though_its_threads_had_hubs() -> None:
    for _ in range(5):
        output = run_program("""
            from gevent import monkey; monkey.patch_all()
            import time
            from ws4redis.loop.drivers import ThreadDriver
            from ws4redis.loop.loop import Loop

            driver = ThreadDriver(pool_size=8)
            loop = Loop(driver)
            driver.start(loop)
            finished = [driver.event() for _ in range(8)]
            for event in finished:
                driver.submit(lambda result, exc, event=event: event.set(), time.sleep, 0.02)
            for event in finished:
                assert event.wait(10)
            loop.stop()
            assert driver.wait_stopped(10)
        """)
        assert output == ''


def test_it_is_told_how_many_tasks_waited_and_for_how_long() -> None:
    workers = Workers(1)
    gate = Gate()
    workers.submit(gate.task)
    assert gate.begun.acquire(timeout=SOON_SECONDS)
    since = time.monotonic()
    workers.submit(lambda: None)
    assert (workers.waiting, workers.begun) == (1, 1)
    time.sleep(0.02)
    gate.may_end.set()
    wait_until(lambda: workers.begun == 2)
    assert workers.waited_seconds >= 0.02
    assert workers.waited_seconds <= time.monotonic() - since + 1
    workers.stop()
