"""The pool of native threads while the process has a full load, or tasks are stuck."""

from __future__ import annotations

import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest

from tests.loop.tasks import Gate, SetLoad
from tests.timeouts import SOON_SECONDS, wait_until
from ws4redis.loop.workers import Workers


def test_while_the_process_has_a_full_load_one_thread_runs_what_makes_progress() -> None:
    workers = Workers(8, is_crowded=lambda: True)
    idents: list[int] = []
    finished = threading.Event()
    for _ in range(1000):
        workers.submit(lambda: idents.append(threading.get_ident()))
    workers.submit(finished.set)
    assert finished.wait(SOON_SECONDS)
    most, count = Counter(idents).most_common(1)[0]
    # The watching thread may step in where the one was not given a processor in time.
    assert count > 500, most
    workers.stop()


def test_tasks_that_are_stuck_hold_no_others_up_though_the_load_is_full() -> None:
    workers = Workers(4, is_crowded=lambda: True)
    gate = Gate()
    for _ in range(3):
        workers.submit(gate.task)
    done: list[int] = []
    for number in range(100):
        workers.submit(done.append, number)
    for _ in range(3):
        assert gate.begun.acquire(timeout=SOON_SECONDS)
    wait_until(lambda: len(done) == 100)
    assert not gate.may_end.is_set()
    gate.may_end.set()
    wait_until(lambda: workers.unfinished == 0)
    workers.stop()


def test_threads_give_up_when_the_load_becomes_full_and_come_back_when_it_is_not() -> None:
    load = SetLoad()
    workers = Workers(4, is_crowded=load.is_full)
    gate = Gate()
    for _ in range(4):
        workers.submit(gate.task)
    for _ in range(4):
        assert gate.begun.acquire(timeout=SOON_SECONDS)
    load.full = True
    running, most = 0, 0
    lock = threading.Lock()
    steps = threading.Semaphore(0)

    def task() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        steps.acquire(timeout=SOON_SECONDS)
        with lock:
            running -= 1

    for _ in range(6):
        workers.submit(task)
    gate.may_end.set()
    wait_until(lambda: running >= 1)
    load.full = False
    # With room again all four work at once.
    wait_until(lambda: running == 4)
    steps.release(6)
    wait_until(lambda: workers.unfinished == 0)
    assert most == 4
    workers.stop()


def test_a_stopped_pool_ends_its_threads_though_tasks_wait_and_the_load_is_full() -> None:
    before = threading.active_count()
    workers = Workers(4, is_crowded=lambda: True)
    gate = Gate()
    done: list[int] = []
    workers.submit(gate.task)
    for number in range(100):
        workers.submit(done.append, number)
    workers.stop()
    gate.may_end.set()
    wait_until(lambda: done == list(range(100)))
    wait_until(lambda: threading.active_count() <= before)


def test_each_of_many_tasks_from_many_threads_runs_once_whatever_the_load() -> None:
    load = SetLoad()
    workers = Workers(5, is_crowded=load.is_full)
    counts: Counter[int] = Counter()
    lock = threading.Lock()

    def count(number: int) -> None:
        with lock:
            counts[number] += 1
            load.full = not load.full

    def submit(first: int) -> None:
        for number in range(first, first + 2000):
            workers.submit(count, number)

    threads = [threading.Thread(target=submit, args=(first,)) for first in range(0, 8000, 2000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: workers.unfinished == 0)
    assert counts == Counter(range(8000))
    workers.stop()


def test_a_stuck_task_under_full_load_does_not_make_the_others_change_threads() -> None:
    workers = Workers(8, is_crowded=lambda: True)
    gate = Gate()
    workers.submit(gate.task)
    assert gate.begun.acquire(timeout=SOON_SECONDS)
    idents: list[int] = []
    for _ in range(200):
        workers.submit(lambda: idents.append(threading.get_ident()))
    wait_until(lambda: len(idents) == 200)
    assert Counter(idents).most_common(1)[0][1] > 100
    gate.may_end.set()
    workers.stop()


class Clocks:
    """The clocks of a machine with two threads: one of the pool, and the loop."""

    def __init__(self, workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.monotonic()
        self.computed = 0.0
        self._workers = workers
        monkeypatch.setattr('ws4redis.loop.workers.time', SimpleNamespace(monotonic=self.monotonic))
        workers._threads.append(self)  # type: ignore[arg-type]
        workers._working = 1
        self.is_crowded_after(0.1)

    def monotonic(self) -> float:
        return self.now

    def cpu_seconds(self) -> float:
        return self.computed

    def is_crowded_after(self, seconds: float, *, computed: float = 0.0, taken: int = 0) -> bool:
        """Let a thread of the pool compute and take tasks; the loop may compute at any time."""
        self.now += seconds
        self.computed += computed
        self._workers._taken += taken
        return self._workers._measure_crowd()


def test_a_pool_is_crowded_by_what_its_own_threads_compute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clocks = Clocks(Workers(4), monkeypatch)
    assert not clocks.is_crowded_after(0.01, computed=0.004, taken=5)
    assert clocks.is_crowded_after(0.01, computed=0.008, taken=5)
    # Crowded until the next window says otherwise.
    assert clocks.is_crowded_after(0.001)
    assert not clocks.is_crowded_after(0.01, computed=0.001, taken=5)


def test_a_pool_whose_tasks_are_short_is_crowded_whatever_the_clocks_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clocks = Clocks(Workers(4), monkeypatch)
    assert clocks.is_crowded_after(0.01, computed=0.002, taken=100)
    assert not clocks.is_crowded_after(0.01, computed=0.002, taken=20)


def test_threads_that_are_stuck_in_tasks_that_were_given_up_are_replaced() -> None:
    before = threading.active_count()
    workers = Workers(2)
    gate = Gate()
    stuck = [workers.submit(gate.task) for _ in range(2)]
    for _ in range(2):
        assert gate.begun.acquire(timeout=SOON_SECONDS)
    done = threading.Event()
    workers.submit(done.set)
    assert not done.wait(0.05)
    for task in stuck:
        assert task.give_up()
    assert done.wait(SOON_SECONDS)
    # As many again, and not more: their threads cost memory as long as they are stuck.
    more = [workers.submit(gate.task) for _ in range(3)]
    for _ in range(2):
        assert gate.begun.acquire(timeout=SOON_SECONDS)
    for task in more[:2]:
        assert task.give_up()
    assert not gate.begun.acquire(timeout=0.05)
    gate.may_end.set()
    wait_until(lambda: workers.unfinished == 0)
    wait_until(lambda: threading.active_count() <= before + 2)
    workers.stop()
    wait_until(lambda: threading.active_count() <= before)
