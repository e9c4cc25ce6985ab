"""The loop: ready descriptors, calls of other threads, timers, and the ends of turns."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.rig import StepDriver
from tests.timeouts import SOON_SECONDS
from ws4redis.loop.loop import Loop


def started_hub() -> Loop:
    driver = StepDriver()
    loop = Loop(driver)
    driver.start(loop)
    return loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = started_hub()
    yield loop
    if loop.running:
        loop.close()


class Reader:
    """Read what is ready."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data: list[bytes] = []

    def ready(self, events: int) -> None:
        self.data.append(self.sock.recv(100))


class Failing:
    def __init__(self) -> None:
        self.calls = 0

    def ready(self, events: int) -> None:
        self.calls += 1
        raise RuntimeError('broken handler')


class FailingWithEnd(Failing):
    def __init__(self) -> None:
        super().__init__()
        self.failures = 0

    def failed(self) -> None:
        self.failures += 1


def descriptors() -> int:
    return len(list(Path('/proc/self/fd').iterdir()))


def test_a_ready_descriptor_is_given_to_its_handler(loop: Loop) -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        reader = Reader(ours)
        loop.register(ours.fileno(), reader)
        peer.send(b'hello')
        loop.turn(1)
        assert reader.data == [b'hello']
        loop.unregister(ours.fileno())
        peer.send(b'again')
        loop.turn(0)
        assert reader.data == [b'hello']


def test_calls_of_another_thread_are_made_in_order_and_interrupt_the_poll(loop: Loop) -> None:
    done: list[int] = []

    def work() -> None:
        for number in range(1000):
            loop.call_soon(done.append, number)

    thread = threading.Thread(target=work)
    thread.start()
    while len(done) < 1000:
        loop.turn(SOON_SECONDS)
    thread.join()
    assert done == list(range(1000))


def test_a_call_made_by_a_call_waits_for_the_next_turn_which_does_not_wait(loop: Loop) -> None:
    done: list[str] = []

    def first() -> None:
        done.append('first')
        loop.call_soon(done.append, 'second')

    loop.call_soon(first)
    loop.turn(0)
    assert done == ['first']
    assert loop.timeout() == 0
    loop.turn(loop.timeout())
    assert done == ['first', 'second']


def test_the_poll_waits_for_the_next_timer_only(loop: Loop) -> None:
    done: list[str] = []
    assert loop.timeout() is None
    loop.call_later(0.02, done.append, 'timer')
    timeout = loop.timeout()
    assert timeout is not None
    assert 0 < timeout <= 0.02
    while not done:
        loop.turn(loop.timeout())
    assert loop.timeout() is None


def test_work_at_the_turns_end_follows_all_else_and_keeps_the_loop_turning(loop: Loop) -> None:
    done: list[str] = []
    left = 2

    def turn_end() -> bool:
        nonlocal left
        done.append('end')
        left -= 1
        return left > 0

    loop.at_turn_end(turn_end)
    loop.call_later(0, done.append, 'timer')
    loop.call_soon(done.append, 'call')
    loop.turn(0)
    assert done == ['call', 'timer', 'end']
    assert loop.timeout() == 0
    loop.turn(0)
    assert loop.timeout() is None


def test_no_exception_ends_the_loop(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    def fail() -> bool:
        raise RuntimeError('broken callback')

    def end() -> bool:
        done.append('end')
        return False

    loop.call_soon(fail)
    loop.call_soon(done.append, 'call')
    loop.call_later(0, fail)
    loop.call_later(0, done.append, 'timer')
    loop.at_turn_end(fail)
    loop.at_turn_end(end)
    loop.turn(0)
    assert done == ['call', 'timer', 'end']
    assert caplog.text.count('RuntimeError: broken callback') == 3


def test_a_failing_handler_is_not_called_for_ever(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        handler = Failing()
        loop.register(ours.fileno(), handler)
        peer.send(b'x')
        loop.turn(0)
        loop.turn(0)
        assert handler.calls == 1
        assert ours.fileno() not in loop.handlers
        assert 'broken handler' in caplog.text


def test_a_failing_handler_that_can_end_itself_is_told_to(loop: Loop) -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        handler = FailingWithEnd()
        loop.register(ours.fileno(), handler)
        peer.send(b'x')
        loop.turn(0)
        assert (handler.calls, handler.failures) == (1, 1)


def test_a_handler_may_unregister_another_one_of_the_same_turn(loop: Loop) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    fds = [ours.fileno() for ours, _ in pairs]
    calls: list[int] = []

    class Greedy:
        def __init__(self, number: int) -> None:
            self.number = number

        def ready(self, events: int) -> None:
            calls.append(self.number)
            for fd in fds:
                loop.unregister(fd)

    for number, (ours, peer) in enumerate(pairs):
        loop.register(ours.fileno(), Greedy(number))
        peer.send(b'x')
    loop.turn(0)
    assert len(calls) == 1
    for ours, peer in pairs:
        ours.close()
        peer.close()


def test_stopping_from_another_thread_interrupts_the_poll(loop: Loop) -> None:
    thread = threading.Thread(target=loop.stop)
    thread.start()
    while loop.running:
        loop.turn(SOON_SECONDS)
    thread.join()
    loop.close()


def test_closing_runs_the_closers_in_reverse_and_frees_all_descriptors() -> None:
    gc.collect()
    before = descriptors()
    loop = started_hub()
    done: list[int] = []
    loop.at_close(lambda: done.append(1))
    loop.at_close(lambda: 1 / 0)
    loop.at_close(lambda: done.append(2))
    loop.close()
    assert done == [2, 1]
    assert not loop.running
    assert descriptors() == before


def test_a_call_after_the_end_is_harmless() -> None:
    loop = started_hub()
    loop.close()
    loop.call_soon(print)
    loop.stop()
