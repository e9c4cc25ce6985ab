"""Calls in a pool for which somebody waits until a deadline."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from tests.timeouts import SOON_SECONDS, wait_until
from ws4redis.loop.blocking_call import BlockingCall, TookTooLong, call_here
from ws4redis.loop.native import NativeEvent
from ws4redis.loop.workers import Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(1)
    yield workers
    workers.stop()


def test_the_result_comes_back_and_so_does_an_exception(workers: Workers) -> None:
    too_late: list[object] = []
    call = BlockingCall(divmod, (7, 2), NativeEvent(), too_late.append)
    assert call.wait_in(workers, SOON_SECONDS) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        BlockingCall(divmod, (7, 0), NativeEvent(), None).wait_in(workers, SOON_SECONDS)
    assert not too_late


def test_a_result_that_comes_too_late_is_undone_where_it_was_made(workers: Workers) -> None:
    may_end = threading.Event()
    too_late: list[tuple[object, int]] = []

    def function() -> str:
        assert may_end.wait(SOON_SECONDS)
        return 'late'

    def undo(result: str) -> None:
        too_late.append((result, threading.get_ident()))

    with pytest.raises(TookTooLong):
        BlockingCall(function, (), NativeEvent(), undo).wait_in(workers, 0.05)
    may_end.set()
    wait_until(lambda: too_late)
    assert too_late[0][0] == 'late'
    assert too_late[0][1] != threading.get_ident()


def test_what_has_not_begun_at_its_deadline_never_does_and_is_not_kept(workers: Workers) -> None:
    class Held:
        def method(self) -> None:
            begun.append(1)

    begun: list[int] = []
    may_end = threading.Event()
    # Of the one thread and its replacement none is left.
    stuck = [workers.submit(may_end.wait, SOON_SECONDS)]
    wait_until(lambda: workers.waiting == 0)
    stuck[0].give_up()
    stuck.append(workers.submit(may_end.wait, SOON_SECONDS))
    wait_until(lambda: workers.waiting == 0)
    held = Held()
    reference = weakref.ref(held)
    with pytest.raises(TookTooLong):
        BlockingCall(held.method, (), NativeEvent(), None).wait_in(workers, 0.05)
    del held
    assert workers.waiting == 0
    gc.collect()
    assert reference() is None
    may_end.set()
    wait_until(lambda: workers.unfinished == 0)
    assert not begun


def test_each_outcome_goes_to_one_side_however_close_the_race(workers: Workers) -> None:
    undone: list[int] = []
    used: list[int] = []

    def function(number: int) -> int:
        time.sleep(0.002)
        return number

    for number in range(200):
        call = BlockingCall(function, (number,), NativeEvent(), undone.append)
        try:
            used.append(call.wait_in(workers, 0.0022))
        except TookTooLong:
            pass
    wait_until(lambda: workers.unfinished == 0)
    assert not set(undone) & set(used)
    assert len(undone) + len(used) <= 200


def test_where_the_caller_does_the_work_itself_it_learns_afterwards_that_it_took_too_long() -> None:
    undone: list[str] = []

    def late() -> str:
        time.sleep(0.02)
        return 'late'

    assert call_here(str, (1,), SOON_SECONDS, undone.append) == '1'
    with pytest.raises(TookTooLong):
        call_here(late, (), 0.01, undone.append)
    assert undone == ['late']
