"""Locks that native threads share in a process that gevent has patched."""

from __future__ import annotations

import pytest

from tests.hub.rig import run_program

PREPARE = """
    from gevent import monkey; monkey.patch_all()
    import gevent, sys, threading, time
    from tests.timeouts import SOON_SECONDS as SOON
    from ws4redis.loop.drivers import GeventDriver, ThreadDriver
    from ws4redis.loop.loop import Loop
    from ws4redis.loop.native import NativeEvent, original, start_thread
    from ws4redis.loop.thread_hubs import Sleep, end_hub
    from ws4redis.loop.workers import Workers

    native_sleep = original('time', 'sleep')

    def start(driver):
        loop = Loop(driver)
        driver.start(loop)
        return loop
"""

BUSY_HUB = """
    loop = start(DRIVER(pool_size=2))
    workers = Workers(2)
    for make_lock in (threading.Lock, threading.RLock):
        lock = make_lock()
        held, waits, taken, was_taken = (NativeEvent() for _ in range(4))

        def holds():
            gevent.sleep(0)  # so its thread has a hub
            with lock:
                held.set()
                assert waits.wait(SOON)
                native_sleep(0.05)
            # Its hub does not turn meanwhile.
            if taken.wait(SOON):
                was_taken.set()

        def takes():
            assert held.wait(SOON)
            PREPARE_HUB
            waits.set()
            with lock:
                taken.set()

        tasks = [workers.submit(holds), workers.submit(takes)]
        deadline = time.monotonic() + 3 * SOON
        while not all(task.has_ended for task in tasks) and time.monotonic() < deadline:
            native_sleep(0.001)
        assert was_taken.is_set()
    loop.stop()
    assert loop.driver.wait_stopped(SOON)
    print('done')
"""


@pytest.mark.parametrize('driver', ['GeventDriver', 'ThreadDriver'])
@pytest.mark.parametrize('prepare_hub', ['pass', 'gevent.sleep(0)'])
def test_a_lock_goes_to_who_waits_though_the_thread_that_had_it_is_busy(
    driver: str, prepare_hub: str
) -> None:
    program = BUSY_HUB.replace('DRIVER', driver).replace('PREPARE_HUB', prepare_hub)
    assert run_program(PREPARE + program).endswith('done\n')


CONTENTION = """
    loop = start(GeventDriver(pool_size=2))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    class Round:
        def __init__(self, functions, hubs):
            self.lock = threading.Lock()
            self.inside = 0
            self.begin = NativeEvent()
            self.done = [NativeEvent() for _ in functions]
            self.ended = [NativeEvent() for _ in functions]
            self.sleeps = {}
            for number, function in enumerate(functions):
                start_thread(self.run_in_thread, number, function, number < hubs)

        def run_in_thread(self, number, function, has_hub):
            if has_hub:
                gevent.sleep(0)
            assert self.begin.wait(SOON)
            function(self)
            sleep = self.sleeps[number] = Sleep()
            self.done[number].set()
            # As in a pool: its hub turns.
            sleep.wait(SOON)
            sleep.close()
            end_hub()
            self.ended[number].set()

        def use_lock(self, timeouts=(-1,)):
            for number in range(50):
                if self.lock.acquire(timeout=timeouts[number % len(timeouts)]):
                    self.inside += 1
                    assert self.inside == 1
                    self.inside -= 1
                    self.lock.release()

        def use_lock_for_a_while(self):
            self.use_lock(timeouts=(0.0001, -1, -1))

        def use_lock_until_interrupted(self):
            with gevent.Timeout(0.001, False):
                self.use_lock()

        def use_lock_in_greenlets(self):
            functions = [self.use_lock, self.use_lock_until_interrupted, self.use_lock]
            gevent.joinall([gevent.spawn(function) for function in functions], raise_error=True)

    def wait_for(events, *what):
        deadline = time.monotonic() + SOON
        assert all(event.wait(max(0, deadline - time.monotonic())) for event in events), what

    for functions, hubs in [
        ([Round.use_lock] * 4, 4),
        ([Round.use_lock] * 6, 2),
        ([Round.use_lock_in_greenlets, Round.use_lock_for_a_while] * 2, 2),
    ] * 4:
        each = Round(functions, hubs)
        native_sleep(0.01)
        each.begin.set()
        # Nobody else uses the lock, and so wakes by chance those who wait in vain.
        wait_for(each.done, each.lock)
        assert not each.lock.locked()
        for sleep in each.sleeps.values():
            sleep.end()
        wait_for(each.ended)
    sys.setswitchinterval(interval)
    loop.stop()
    assert loop.driver.wait_stopped(SOON)
    print('done')
"""


def test_nobody_waits_for_a_lock_that_is_free() -> None:
    assert run_program(PREPARE + CONTENTION).endswith('done\n')


GREENLETS = """
    loop = start(GeventDriver(pool_size=2))
    lock = threading.Lock()

    # In the order in which they came; who gives up stands in nobody's way.
    order = []
    def take(number):
        with lock:
            order.append(number)
    def take_in_time():
        order.append(lock.acquire(timeout=0.01))
    def take_until_interrupted():
        with gevent.Timeout(0.01, False):
            lock.acquire()
        order.append('interrupted')
    assert lock.acquire()
    giving_up = [gevent.spawn(take_in_time), gevent.spawn(take_until_interrupted)]
    waiting = [gevent.spawn(take, number) for number in range(3)]
    killed = gevent.spawn(take, 'killed')
    waiting += [gevent.spawn(take, number) for number in range(3, 6)]
    gevent.joinall(giving_up, timeout=SOON, raise_error=True)
    killed.kill()
    assert sorted(order, key=str) == [False, 'interrupted'], order
    lock.release()
    gevent.joinall(waiting, timeout=SOON, raise_error=True)
    assert order[2:] == [0, 1, 2, 3, 4, 5], order

    # One who is called and killed before it runs leaves the lock to the next.
    lock.acquire()
    killed, other = gevent.spawn(take, 'killed'), gevent.spawn(take, 'other')
    gevent.sleep(0)
    lock.release()
    killed.kill()
    other.join(SOON)
    assert order[8:] == ['other'] or order[8:] == ['killed', 'other']

    # What else a lock does.
    assert lock.acquire(False)
    assert not lock.acquire(False)
    assert not lock.acquire(timeout=0)
    lock.release()
    for wrong in (lambda: lock.acquire(timeout=-2), lambda: lock.acquire(False, 1)):
        try:
            wrong()
        except ValueError:
            pass
        else:
            raise AssertionError
    try:
        lock.release()
    except RuntimeError:
        pass
    else:
        raise AssertionError
    condition = threading.Condition()
    def notify():
        with condition:
            condition.notify()
    with condition:
        start_thread(notify)
        assert condition.wait(SOON)
    loop.stop()
    assert loop.driver.wait_stopped(SOON)
    print('done')
"""


def test_greenlets_share_locks_as_before() -> None:
    assert run_program(PREPARE + GREENLETS).endswith('done\n')
