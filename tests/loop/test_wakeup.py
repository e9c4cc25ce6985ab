"""The wake-up pipe."""

from __future__ import annotations

import os
import select
import signal
import threading

from tests.timeouts import SOON_SECONDS
from ws4redis.loop.wakeup import WakeUp


def is_readable(wakeup: WakeUp) -> bool:
    return bool(select.select([wakeup.fileno()], [], [], 0)[0])


def test_a_wake_up_makes_the_pipe_readable_until_it_was_taken() -> None:
    wakeup = WakeUp()
    assert not is_readable(wakeup)
    wakeup.wake()
    assert is_readable(wakeup)
    wakeup.ready(1)
    assert not is_readable(wakeup)
    wakeup.close()


def test_many_wake_ups_write_one_byte() -> None:
    wakeup = WakeUp()
    for _ in range(100_000):
        wakeup.wake()
    assert os.read(wakeup.fileno(), 4096) == b'\0'
    wakeup.close()


def test_after_it_was_taken_the_next_wake_up_gets_through() -> None:
    wakeup = WakeUp()
    for _ in range(3):
        wakeup.wake()
        assert is_readable(wakeup)
        wakeup.ready(1)
    wakeup.close()


def test_taking_an_empty_pipe_does_not_block() -> None:
    wakeup = WakeUp()
    wakeup.ready(1)
    wakeup.close()


def test_a_thread_interrupts_a_poll() -> None:
    wakeup = WakeUp()
    thread = threading.Thread(target=wakeup.wake)
    thread.start()
    assert select.select([wakeup.fileno()], [], [], SOON_SECONDS)[0]
    thread.join()
    wakeup.close()


def test_a_signal_handler_may_wake() -> None:
    wakeup = WakeUp()
    previous = signal.signal(signal.SIGUSR1, lambda *_: wakeup.wake())
    try:
        signal.raise_signal(signal.SIGUSR1)
        assert is_readable(wakeup)
    finally:
        signal.signal(signal.SIGUSR1, previous)
        wakeup.close()


def test_no_wake_up_is_lost_between_many_threads_and_the_loop() -> None:
    wakeup = WakeUp()
    queue: list[int] = []

    def work() -> None:
        for _ in range(2000):
            queue.append(1)
            wakeup.wake()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    taken = 0
    while taken < 8000:
        assert select.select([wakeup.fileno()], [], [], SOON_SECONDS)[0], f'{taken} of 8000'
        wakeup.ready(1)
        while queue:
            queue.pop()
            taken += 1
    for thread in threads:
        thread.join()
    wakeup.close()


def test_a_wake_up_after_the_end_writes_into_nobodys_file() -> None:
    wakeup = WakeUp()
    wakeup.close()
    # The next pipe gets the numbers that were just given back.
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    wakeup.wake()
    os.close(write_fd)
    assert os.read(read_fd, 1) == b''
    os.close(read_fd)
