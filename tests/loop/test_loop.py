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
from ws4redis.loop.loop import Hub


def started_hub() -> Hub:
    driver = StepDriver()
    hub = Hub(driver)
    driver.start(hub)
    return hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = started_hub()
    yield hub
    if hub.running:
        hub.close()


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


def test_a_ready_descriptor_is_given_to_its_handler(hub: Hub) -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        reader = Reader(ours)
        hub.register(ours.fileno(), reader)
        peer.send(b'hello')
        hub.turn(1)
        assert reader.data == [b'hello']
        hub.unregister(ours.fileno())
        peer.send(b'again')
        hub.turn(0)
        assert reader.data == [b'hello']


def test_calls_of_another_thread_are_made_in_order_and_interrupt_the_poll(hub: Hub) -> None:
    done: list[int] = []

    def work() -> None:
        for number in range(1000):
            hub.call_soon(done.append, number)

    thread = threading.Thread(target=work)
    thread.start()
    while len(done) < 1000:
        hub.turn(SOON_SECONDS)
    thread.join()
    assert done == list(range(1000))


def test_a_call_made_by_a_call_waits_for_the_next_turn_which_does_not_wait(hub: Hub) -> None:
    done: list[str] = []

    def first() -> None:
        done.append('first')
        hub.call_soon(done.append, 'second')

    hub.call_soon(first)
    hub.turn(0)
    assert done == ['first']
    assert hub.timeout() == 0
    hub.turn(hub.timeout())
    assert done == ['first', 'second']


def test_the_poll_waits_for_the_next_timer_only(hub: Hub) -> None:
    done: list[str] = []
    assert hub.timeout() is None
    hub.call_later(0.02, done.append, 'timer')
    timeout = hub.timeout()
    assert timeout is not None
    assert 0 < timeout <= 0.02
    while not done:
        hub.turn(hub.timeout())
    assert hub.timeout() is None


def test_work_at_the_turns_end_follows_all_else_and_keeps_the_loop_turning(hub: Hub) -> None:
    done: list[str] = []
    left = 2

    def turn_end() -> bool:
        nonlocal left
        done.append('end')
        left -= 1
        return left > 0

    hub.at_turn_end(turn_end)
    hub.call_later(0, done.append, 'timer')
    hub.call_soon(done.append, 'call')
    hub.turn(0)
    assert done == ['call', 'timer', 'end']
    assert hub.timeout() == 0
    hub.turn(0)
    assert hub.timeout() is None


def test_no_exception_ends_the_loop(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    def fail() -> bool:
        raise RuntimeError('broken callback')

    def end() -> bool:
        done.append('end')
        return False

    hub.call_soon(fail)
    hub.call_soon(done.append, 'call')
    hub.call_later(0, fail)
    hub.call_later(0, done.append, 'timer')
    hub.at_turn_end(fail)
    hub.at_turn_end(end)
    hub.turn(0)
    assert done == ['call', 'timer', 'end']
    assert caplog.text.count('RuntimeError: broken callback') == 3


def test_a_failing_handler_is_not_called_for_ever(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        handler = Failing()
        hub.register(ours.fileno(), handler)
        peer.send(b'x')
        hub.turn(0)
        hub.turn(0)
        assert handler.calls == 1
        assert ours.fileno() not in hub.handlers
        assert 'broken handler' in caplog.text


def test_a_failing_handler_that_can_end_itself_is_told_to(hub: Hub) -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        handler = FailingWithEnd()
        hub.register(ours.fileno(), handler)
        peer.send(b'x')
        hub.turn(0)
        assert (handler.calls, handler.failures) == (1, 1)


def test_a_handler_may_unregister_another_one_of_the_same_turn(hub: Hub) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    fds = [ours.fileno() for ours, _ in pairs]
    calls: list[int] = []

    class Greedy:
        def __init__(self, number: int) -> None:
            self.number = number

        def ready(self, events: int) -> None:
            calls.append(self.number)
            for fd in fds:
                hub.unregister(fd)

    for number, (ours, peer) in enumerate(pairs):
        hub.register(ours.fileno(), Greedy(number))
        peer.send(b'x')
    hub.turn(0)
    assert len(calls) == 1
    for ours, peer in pairs:
        ours.close()
        peer.close()


def test_stopping_from_another_thread_interrupts_the_poll(hub: Hub) -> None:
    thread = threading.Thread(target=hub.stop)
    thread.start()
    while hub.running:
        hub.turn(SOON_SECONDS)
    thread.join()
    hub.close()


def test_closing_runs_the_closers_in_reverse_and_frees_all_descriptors() -> None:
    gc.collect()
    before = descriptors()
    hub = started_hub()
    done: list[int] = []
    hub.at_close(lambda: done.append(1))
    hub.at_close(lambda: 1 / 0)
    hub.at_close(lambda: done.append(2))
    hub.close()
    assert done == [2, 1]
    assert not hub.running
    assert descriptors() == before


def test_a_call_after_the_end_is_harmless() -> None:
    hub = started_hub()
    hub.close()
    hub.call_soon(print)
    hub.stop()
