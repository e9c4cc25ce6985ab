"""Where the loop runs and how others wait for it: in a native thread, and under gevent."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tests.hub.rig import run_program
from tests.timeouts import SOON_SECONDS
from ws4redis.loop import drivers
from ws4redis.loop.drivers import GeventDriver, ThreadDriver, choose_driver, runs_under_gevent
from ws4redis.loop.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    driver = ThreadDriver(pool_size=2)
    loop = Loop(driver)
    driver.start(loop)
    yield loop
    loop.stop()
    assert driver.wait_stopped(SOON_SECONDS)


def test_the_loop_runs_in_a_thread_of_its_own(loop: Loop) -> None:
    event = loop.driver.event()
    found: list[object] = []

    def look() -> None:
        found.extend((threading.get_ident(), loop.driver.in_loop()))
        event.set()

    loop.call_soon(look)
    assert event.wait(SOON_SECONDS)
    assert found == [found[0], True]
    assert found[0] != threading.get_ident()
    assert not loop.driver.in_loop()


def test_calls_of_many_threads_reach_the_loop_each_in_its_order(loop: Loop) -> None:
    done: list[tuple[int, int]] = []

    def work(thread: int) -> None:
        for number in range(500):
            loop.call_soon(done.append, (thread, number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    event = loop.driver.event()
    loop.call_soon(event.set)
    assert event.wait(SOON_SECONDS)
    for number in range(4):
        assert [n for t, n in done if t == number] == list(range(500))


def test_a_call_made_in_the_loop_is_made_in_its_next_turn(loop: Loop) -> None:
    event = loop.driver.event()
    loop.call_soon(lambda: loop.call_soon(lambda: loop.call_soon(event.set)))
    assert event.wait(SOON_SECONDS)


def test_a_timer_fires_though_nothing_else_happens(loop: Loop) -> None:
    event = loop.driver.event()
    started = time.monotonic()
    loop.call_soon(lambda: loop.call_later(0.05, event.set))
    assert event.wait(SOON_SECONDS)
    assert time.monotonic() - started >= 0.045


def test_blocking_work_of_a_request_runs_in_its_own_thread(loop: Loop) -> None:
    assert loop.driver.run_blocking(threading.get_ident) == threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        loop.driver.run_blocking(lambda: 1 / 0)


def test_work_that_the_loop_submits_runs_beside_it_and_is_reported_in_it(loop: Loop) -> None:
    event = loop.driver.event()
    outcomes: list[tuple[object, BaseException | None, bool]] = []

    def done(result: object, exc: BaseException | None) -> None:
        outcomes.append((result, exc, loop.driver.in_loop()))
        if len(outcomes) == 2:
            event.set()

    def fail() -> None:
        raise RuntimeError('failed')

    loop.call_soon(loop.driver.submit, done, loop.driver.in_loop)
    assert not event.wait(0.05)
    loop.call_soon(loop.driver.submit, done, fail)
    assert event.wait(SOON_SECONDS)
    first, (result, exc, in_loop) = outcomes
    assert first == (False, None, True)
    assert (result, in_loop) == (None, True)
    assert isinstance(exc, RuntimeError)


def test_a_stopped_loop_has_closed_its_hub() -> None:
    driver = ThreadDriver(pool_size=1)
    loop = Loop(driver)
    closed: list[bool] = []
    loop.at_close(lambda: closed.append(driver.in_loop()))
    driver.start(loop)
    assert not driver.wait_stopped(0.02)
    loop.stop()
    assert driver.wait_stopped(SOON_SECONDS)
    assert closed == [True]
    # Too late, but harmless.
    loop.call_soon(print)


def test_outside_gevent_it_is_a_thread() -> None:
    assert not runs_under_gevent()
    driver = choose_driver(pool_size=3)
    assert isinstance(driver, ThreadDriver)
    assert driver.workers.size == 3


@pytest.mark.parametrize(
    ('options', 'under_gevent'),
    [({'gevent': b'100'}, True), ({'threads': b'4'}, False), ({'enable-threads': True}, False)],
)
def test_under_uwsgi_its_options_decide(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, object], under_gevent: bool
) -> None:
    monkeypatch.setitem(sys.modules, 'uwsgi', SimpleNamespace(opt=options))
    assert drivers.runs_under_gevent() is under_gevent
    assert isinstance(choose_driver(pool_size=1), GeventDriver if under_gevent else ThreadDriver)


GEVENT_PROGRAM = """
    {patch}
    import threading, time
    import gevent
    from ws4redis.loop.drivers import GeventDriver, choose_driver
    from ws4redis.loop.loop import Loop
    from ws4redis.loop.native import original, start_thread, thread_ident

    driver = {driver}
    assert isinstance(driver, GeventDriver)
    loop = Loop(driver)
    closed = []
    loop.at_close(lambda: closed.append(driver.in_loop()))
    driver.start(loop)
    here = thread_ident()

    def in_loop(function):
        event, results = driver.event(), []
        def call():
            results.append(function())
            event.set()
        loop.call_soon(call)
        assert event.wait(10)
        return results[0]

    # The loop is a greenlet of this thread.
    assert in_loop(driver.in_loop) is True
    assert not driver.in_loop()
    assert in_loop(thread_ident) == here

    # A greenlet that waits for the loop lets others run.
    ticks = []
    def tick():
        while True:
            ticks.append(1)
            gevent.sleep(0.005)
    ticker = gevent.spawn(tick)
    def block():
        original('time', 'sleep')(0.1)
        return thread_ident()
    before = len(ticks)
    assert driver.run_blocking(block) != here
    assert len(ticks) - before > 5, 'nobody else ran meanwhile'
    try:
        driver.run_blocking(lambda: 1 / 0)
    except ZeroDivisionError:
        pass
    else:
        raise AssertionError('the exception got lost')

    # Calls of native threads and of greenlets interrupt the wait.
    for spawn in (start_thread, gevent.spawn):
        event = driver.event()
        spawn(loop.call_soon, event.set)
        assert event.wait(10)

    # Calls from the loop itself, and timers, with nothing else going on.
    event = driver.event()
    loop.call_soon(lambda: loop.call_soon(lambda: loop.call_later(0.02, event.set)))
    ticker.kill()
    started = time.monotonic()
    assert event.wait(10)
    assert 0.015 < time.monotonic() - started < 5
    # An earlier timer overtakes a later one; a cancelled one does not fire.
    fired = []
    event = driver.event()
    def timers():
        loop.call_later(60, fired.append, 'much later')
        loop.timers.cancel(loop.call_later(0.01, fired.append, 'cancelled'))
        loop.call_later(0.03, event.set)
        loop.call_later(0.02, fired.append, 'soon')
    loop.call_soon(timers)
    assert event.wait(10)
    assert fired == ['soon'], fired

    # Descriptors wake the loop.
    import _socket
    ours, peer = original('socket', 'socketpair')()
    ours.setblocking(False)
    event = driver.event()
    class Handler:
        def ready(self, events):
            assert ours.recv(10) == b'hello'
            loop.unregister(ours.fileno())
            event.set()
    loop.call_soon(loop.register, ours.fileno(), Handler())
    gevent.sleep(0.02)
    peer.send(b'hello')
    assert event.wait(10)
    ours.close(), peer.close()

    # Work that keeps the loop turning leaves room for others.
    turns, others = [], []
    loop.at_turn_end(lambda: turns.append(1) is None and len(turns) < 200)
    other = gevent.spawn(lambda: [others.append(len(turns)) or gevent.sleep(0) for _ in range(20)])
    loop.call_soon(lambda: None)
    other.join(10)
    assert len(others) == 20

    # Idle, it costs nothing.
    gevent.sleep(0.02)
    before = len(turns)
    gevent.sleep(0.1)
    assert len(turns) - before <= 1, 'the idle loop turns'

    loop.stop()
    assert driver.wait_stopped(10)
    assert closed == [True]
    # What comes too late is run at once: it may hold a socket, which has to be closed.
    late = []
    loop.call_soon(late.append, 1)
    assert late == [1]
    print('done')
"""


def test_under_gevent_without_monkey_patching() -> None:
    program = GEVENT_PROGRAM.format(patch='', driver='GeventDriver(pool_size=2)')
    assert run_program(program) == 'done\n'


def test_under_gevent_with_monkey_patching() -> None:
    patch = 'from gevent import monkey; monkey.patch_all()'
    program = GEVENT_PROGRAM.format(patch=patch, driver='choose_driver(pool_size=2)')
    assert run_program(program) == 'done\n'


@pytest.mark.parametrize('driver', ['GeventDriver', 'ThreadDriver'])
def test_attempts_to_connect_leave_no_descriptor_behind_under_monkey_patching(driver: str) -> None:
    output = run_program(f"""
        from gevent import monkey; monkey.patch_all()
        import os, socket
        from ws4redis.loop.drivers import {driver}
        from ws4redis.loop.loop import Loop

        def attempt():
            # Whatever waits in a native thread gets a loop of gevent's there.
            ours, theirs = socket.socketpair()
            with ours, theirs:
                ours.settimeout(0.001)
                try:
                    ours.recv(1)
                except TimeoutError:
                    pass

        driver = {driver}(pool_size=2)
        loop = Loop(driver)
        driver.start(loop)
        counts = []
        for _ in range(30):
            done = driver.event()
            driver.submit_apart(lambda result, exc: done.set(), attempt)
            assert done.wait(10)
            counts.append(len(os.listdir('/proc/self/fd')))
        # A thread may be on its way to sleep when the next attempt comes.
        assert counts[-1] <= counts[0] + 4, counts
        loop.stop()
        assert driver.wait_stopped(10)
        print('done')
    """)
    assert output == 'done\n'


def test_a_loop_that_was_turned_to_its_end_by_hand_is_not_turned_again_by_its_greenlet() -> None:
    output = run_program("""
        import gevent
        from ws4redis.loop.drivers import GeventDriver
        from ws4redis.loop.loop import Loop

        for is_busy in (False, True):
            driver = GeventDriver(pool_size=1)
            loop = Loop(driver)
            loop.at_turn_end(lambda: is_busy)
            driver.start(loop)
            gevent.sleep(0.01)
            # Awake, but not yet on: as a worker of uWSGI may be when it is told to end.
            loop.call_soon(loop.stop)
            assert driver.finish(5)
            assert driver.wait_stopped(5)
        print('done')
    """)
    assert output == 'done\n'
