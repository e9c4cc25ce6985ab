"""The heap of timers."""

from __future__ import annotations

from tests.hub.rig import Clock
from ws4redis.loop.timers import Timer, Timers


def run_due(timers: Timers) -> None:
    """Run what is due, as the loop does."""
    for timer in timers.due():
        if timer.function is not None:
            function, timer.function = timer.function, None
            function(*timer.args)


def test_a_timer_is_due_at_its_moment_and_not_before() -> None:
    clock = Clock()
    timers = Timers(clock)
    done: list[str] = []
    timers.call_later(2, done.append, 'x')
    assert timers.next_deadline() == clock.now + 2
    clock.advance(1.9)
    run_due(timers)
    assert done == []
    clock.advance(0.1)
    run_due(timers)
    run_due(timers)
    assert done == ['x']
    assert timers.next_deadline() is None


def test_timers_run_in_the_order_of_their_moments_then_of_their_making() -> None:
    clock = Clock()
    timers = Timers(clock)
    done: list[str] = []
    for seconds, name in ((3, 'c'), (1, 'a'), (2, 'b1'), (2, 'b2'), (2, 'b3')):
        timers.call_later(seconds, done.append, name)
    clock.advance(10)
    run_due(timers)
    assert done == ['a', 'b1', 'b2', 'b3', 'c']


def test_a_cancelled_timer_does_not_run_and_does_not_wake_the_loop() -> None:
    clock = Clock()
    timers = Timers(clock)
    done: list[str] = []
    first = timers.call_later(1, done.append, 'first')
    timers.call_later(2, done.append, 'second')
    timers.cancel(first)
    timers.cancel(first)
    assert len(timers) == 1
    assert timers.next_deadline() == clock.now + 2
    clock.advance(5)
    run_due(timers)
    assert done == ['second']
    assert len(timers) == 0


def test_a_timer_may_cancel_one_that_is_due_with_it() -> None:
    clock = Clock()
    timers = Timers(clock)
    done: list[str] = []
    victims: list[Timer] = []
    timers.call_later(1, lambda: timers.cancel(victims[0]))
    victims.append(timers.call_later(1, done.append, 'cancelled'))
    clock.advance(1)
    run_due(timers)
    assert done == []
    assert len(timers) == 0
    timers.call_later(1, done.append, 'later')
    assert len(timers) == 1


def test_a_timer_that_has_run_can_be_cancelled_without_effect() -> None:
    clock = Clock()
    timers = Timers(clock)
    timer = timers.call_later(0, lambda: None)
    run_due(timers)
    timers.cancel(timer)
    timers.call_later(1, lambda: None)
    assert len(timers) == 1


def test_cancelled_timers_do_not_pile_up() -> None:
    clock = Clock()
    timers = Timers(clock)
    kept = [timers.call_later(60, lambda: None) for _ in range(10)]
    for _ in range(10_000):
        timers.cancel(timers.call_later(60, lambda: None))
    assert len(timers) == len(kept)
    assert len(timers._heap) < 2000


def test_a_cancelled_timer_lets_go_of_its_arguments() -> None:
    timers = Timers(Clock())
    timer = timers.call_later(60, print, 'large')
    timers.cancel(timer)
    assert timer.args == ()
