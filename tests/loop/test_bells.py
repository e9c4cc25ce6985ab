"""Bells: what views wait with, in native threads and in greenlets."""

from __future__ import annotations

import threading
import time

from tests.hub.rig import run_program
from tests.timeouts import SOON_SECONDS
from ws4redis.loop.native import NativeBell


def test_a_bell_that_rang_before_ends_the_next_wait_and_no_other() -> None:
    bell = NativeBell()
    bell.ring()
    bell.ring()
    bell.wait()
    waited = threading.Event()

    def wait() -> None:
        bell.wait(SOON_SECONDS)
        waited.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not waited.wait(0.05)
    bell.ring()
    assert waited.wait(SOON_SECONDS)
    thread.join(SOON_SECONDS)


def test_a_wait_for_a_bell_ends_with_its_time() -> None:
    bell = NativeBell()
    started = time.monotonic()
    bell.wait(0.01)
    bell.wait(-1)
    assert 0.01 <= time.monotonic() - started < SOON_SECONDS


PROGRAM = """
    import time
    import gevent
    from gevent.hub import Hub
    from ws4redis.loop.greenlets import GreenletBells, GreenletEvent
    from ws4redis.loop.native import start_thread, thread_ident

    bells = GreenletBells(gevent.get_hub(), thread_ident())

    # More than are woken in one go, each of them once per ring.
    count = 250
    mine = [bells.bell() for _ in range(count)]
    heard = []
    def listen(number):
        for _ in range(3):
            mine[number].wait()
            heard.append(number)
    listeners = [gevent.spawn(listen, number) for number in range(count)]
    gevent.sleep(0)
    for turn in range(1, 4):
        for bell in mine:
            bell.ring()
        while len(heard) < turn * count:
            gevent.sleep(0)
        assert sorted(heard[-count:]) == list(range(count))
    gevent.joinall(listeners, timeout=SOON, raise_error=True)

    # A native thread may ring; time may pass; a ring before the wait counts.
    bell = bells.bell()
    started = time.monotonic()
    start_thread(bell.ring)
    bell.wait(SOON)
    assert time.monotonic() - started < SOON / 2
    bell.ring()
    bell.wait()
    bell = bells.bell()
    started = time.monotonic()
    bell.wait(0.03)
    assert time.monotonic() - started >= 0.02

    # A greenlet that was interrupted is not woken where it waits next.
    bell = bells.bell()
    steps = []
    def interrupted():
        try:
            with gevent.Timeout(0.01):
                bell.wait()
        except gevent.Timeout:
            steps.append('interrupted')
        bell.ring()
        gevent.sleep(0.05)
        steps.append('slept')
    started = time.monotonic()
    gevent.spawn(interrupted).join(SOON)
    assert steps == ['interrupted', 'slept']
    assert time.monotonic() - started >= 0.05

    # One that dies takes no other with it.
    Hub.print_exception = lambda *args: None
    first, second = bells.bell(), bells.bell()
    def dies():
        first.wait()
        raise RuntimeError('as it should')
    survived = []
    def survives():
        second.wait()
        survived.append(1)
    waiting = [gevent.spawn(dies), gevent.spawn(survives)]
    gevent.sleep(0)
    first.ring()
    second.ring()
    gevent.joinall(waiting, timeout=SOON)
    assert survived == [1]

    # Events are set once, from here or from a native thread, before or during the wait.
    for set_ in (lambda event: event.set(), lambda event: start_thread(event.set)):
        event = GreenletEvent(gevent.get_hub(), thread_ident())
        assert not event.wait(0.01)
        waiter = gevent.spawn(event.wait, SOON)
        gevent.sleep(0)
        started = time.monotonic()
        set_(event)
        waiter.join(SOON)
        assert time.monotonic() - started < SOON / 2
        assert waiter.value is True
        assert event.is_set() and event.wait()
    print('done')
"""


def test_bells_and_events_in_greenlets() -> None:
    assert run_program(PROGRAM.replace('SOON', str(SOON_SECONDS))) == 'done\n'
