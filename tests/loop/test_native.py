"""Native threads and events, with and without gevent's monkey patching."""

from __future__ import annotations

import threading

from tests.hub.rig import run_program
from tests.timeouts import SOON_SECONDS
from ws4redis.loop.native import NativeEvent, original, start_thread, thread_ident


def test_without_monkey_patching_the_original_is_what_the_module_has() -> None:
    assert original('threading', 'Thread') is threading.Thread


def test_what_a_module_lacks_is_none() -> None:
    assert original('select', 'no_such_poll') is None


def test_a_thread_runs_beside_its_starter() -> None:
    event = NativeEvent()
    idents: list[int] = []

    def run(number: int) -> None:
        idents.append(thread_ident())
        idents.append(number)
        event.set()

    start_thread(run, 7)
    assert event.wait(SOON_SECONDS)
    assert idents[0] != thread_ident()
    assert idents[1] == 7


def test_an_event_that_is_not_set_times_out() -> None:
    event = NativeEvent()
    assert not event.wait(0.01)
    assert not event.is_set()


def test_an_event_that_was_set_is_not_waited_for() -> None:
    event = NativeEvent()
    event.set()
    event.set()
    assert event.is_set()
    assert event.wait()
    assert event.wait(0)


def test_an_event_wakes_all_who_wait() -> None:
    event = NativeEvent()
    woken: list[bool] = []
    threads = [
        threading.Thread(target=lambda: woken.append(event.wait(SOON_SECONDS))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    event.set()
    for thread in threads:
        thread.join(SOON_SECONDS)
    assert woken == [True] * 3


def test_a_waiting_thread_does_not_keep_the_process_alive() -> None:
    # The program comes to its end.
    run_program("""
        from ws4redis.loop.native import NativeEvent, start_thread
        begun = NativeEvent()
        def wait_for_ever():
            begun.set()
            NativeEvent().wait()
        start_thread(wait_for_ever)
        assert begun.wait(10)
    """)


def test_under_monkey_patching_threads_locks_and_polls_are_native() -> None:
    run_program("""
        from gevent import monkey
        monkey.patch_all()
        import select, threading, time
        import gevent
        from ws4redis.loop.native import NativeEvent, original, start_thread, thread_ident

        assert not hasattr(select, 'epoll') and original('select', 'epoll') is not None
        event, idents = NativeEvent(), []
        def run():
            idents.append(thread_ident())
            original('time', 'sleep')(0.05)
            event.set()
        # Had it become a greenlet, it would run only once we let go, which a native wait does not.
        start_thread(run)
        assert event.wait(10)
        assert idents[0] != thread_ident()
        greenlet = gevent.spawn(thread_ident)
        assert greenlet.get() == thread_ident()
    """)


def test_a_thread_gets_no_signal_that_is_meant_for_the_process() -> None:
    program = """
        import os, signal, threading, time
        from ws4redis.loop.native import NativeEvent, start_thread, thread_ident

        started, idents = NativeEvent(), []
        signal.signal(signal.SIGINT, lambda *args: idents.append(thread_ident()))

        def sleep_in_the_kernel():
            idents.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
            started.set()

        start_thread(sleep_in_the_kernel)
        started.wait()
        assert {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} <= idents[0], idents
        assert signal.SIGSEGV not in idents[0]
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
        print('done')
    """
    assert run_program(program) == 'done\n'
