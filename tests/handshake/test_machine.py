"""The machine of a handshake: the same steps, waited for or run in the loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.timeouts import SOON_SECONDS, scaled, wait_until
from ws4redis.handshake.machine import Call, Running, Steps, Until, run_waiting
from ws4redis.loop.blocking_call import TookTooLong
from ws4redis.loop.drivers import ThreadDriver
from ws4redis.loop.loop import Loop

# What runs in the pool looks after connections that earlier tests of the process have left.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop(ThreadDriver(pool_size=2))
    loop.driver.start(loop)
    yield loop
    loop.stop()
    assert loop.driver.wait_stopped(SOON_SECONDS)


class Outcome:
    """What became of a machine that runs in the loop."""

    def __init__(self, loop: Loop, steps: Steps[Any]) -> None:
        self.ended = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self.running = Running(steps, self._ended)
        loop.call_soon(self.running.start)

    def _ended(self, result: Any, error: BaseException | None) -> None:
        assert not self.ended.is_set()
        self.result, self.error = result, error
        self.ended.set()

    def wait(self) -> Any:
        assert self.ended.wait(SOON_SECONDS)
        if self.error is not None:
            raise self.error
        return self.result


def wait_for(loop: Loop, steps: Steps[Any]) -> Any:
    return run_waiting(steps)


def run_in_loop(loop: Loop, steps: Steps[Any]) -> Any:
    return Outcome(loop, steps).wait()


both_ways = pytest.mark.parametrize('run', [wait_for, run_in_loop])
Run = Callable[[Loop, Steps[Any]], Any]


def soon(loop: Loop) -> Callable[[Callable[[], object]], object]:
    return lambda done: loop.call_later(0.01, done)


@both_ways
def test_results_of_calls_come_back_and_the_last_is_returned(run: Run, loop: Loop) -> None:
    def steps() -> Steps[int]:
        one = yield Call(loop, lambda: 1, seconds=SOON_SECONDS)
        yield Until(loop, soon(loop), SOON_SECONDS)
        yield Until(loop, lambda done: done(), SOON_SECONDS)
        two = yield Call(loop, lambda number: number + 1, one, seconds=SOON_SECONDS)
        return int(two)

    assert run(loop, steps()) == 2


@both_ways
def test_a_call_that_raises_raises_in_the_machine(run: Run, loop: Loop) -> None:
    def fail() -> None:
        raise LookupError('gone')

    def steps() -> Steps[str]:
        try:
            yield Call(loop, fail, seconds=SOON_SECONDS)
        except LookupError as exc:
            return str(exc)
        return 'nothing was raised'

    def uncaught() -> Steps[None]:
        yield Call(loop, fail, seconds=SOON_SECONDS)

    assert run(loop, steps()) == 'gone'
    with pytest.raises(LookupError):
        run(loop, uncaught())


@both_ways
def test_what_never_happens_is_not_waited_for_longer_than_it_may_be(run: Run, loop: Loop) -> None:
    def steps() -> Steps[str]:
        yield Until(loop, lambda done: None, 0.01)
        return 'went on'

    assert run(loop, steps()) == 'went on'


@both_ways
def test_of_a_call_that_takes_too_long_the_result_is_undone(run: Run, loop: Loop) -> None:
    may_end = threading.Event()
    undone: list[str] = []
    # Long enough for it to begin: what has not, never would.
    seconds = scaled(0.3)

    def slow() -> str:
        # Who waits in this thread runs it here, and goes on only when it has ended.
        may_end.wait(SOON_SECONDS if run is run_in_loop else seconds * 1.2)
        return 'made'

    def steps() -> Steps[None]:
        yield Call(loop, slow, seconds=seconds, too_late=undone.append)

    with pytest.raises(TookTooLong):
        run(loop, steps())
    may_end.set()
    wait_until(lambda: undone == ['made'])


def test_a_machine_that_is_cancelled_learns_of_it_and_never_goes_on(loop: Loop) -> None:
    begun, may_end = threading.Event(), threading.Event()
    undone: list[str] = []
    closed = threading.Event()

    def slow() -> str:
        begun.set()
        may_end.wait(SOON_SECONDS)
        return 'made'

    def steps() -> Steps[None]:
        try:
            yield Call(loop, slow, seconds=SOON_SECONDS, too_late=undone.append)
        finally:
            closed.set()

    outcome = Outcome(loop, steps())
    # What has not begun never would.
    assert begun.wait(SOON_SECONDS)
    loop.call_soon(outcome.running.cancel)
    assert closed.wait(SOON_SECONDS)
    may_end.set()
    wait_until(lambda: undone == ['made'])
    assert not outcome.ended.is_set()


def test_what_the_pool_has_not_begun_for_a_cancelled_machine_never_begins(loop: Loop) -> None:
    may_end = threading.Event()
    begun: list[int] = []

    def block(number: int) -> None:
        begun.append(number)
        may_end.wait(SOON_SECONDS)

    def steps(number: int) -> Steps[None]:
        yield Call(loop, block, number, seconds=SOON_SECONDS)

    blocking = [Outcome(loop, steps(number)) for number in range(2)]
    wait_until(lambda: len(begun) == 2)
    waiting = Outcome(loop, steps(2))
    wait_until(lambda: waiting.running.waits_for_project)
    cancelled = threading.Event()
    loop.call_soon(waiting.running.cancel)
    loop.call_soon(cancelled.set)
    assert cancelled.wait(SOON_SECONDS)
    last = Outcome(loop, steps(3))
    may_end.set()
    for outcome in (*blocking, last):
        outcome.wait()
    assert sorted(begun) == [0, 1, 3]
