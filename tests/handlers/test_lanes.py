"""Lanes and runners by themselves."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tests.timeouts import SOON_SECONDS, wait_until
from ws4redis.exceptions import ConnectionClosed
from ws4redis.handlers.handler import Message, WebSocketHandler
from ws4redis.handlers.lanes import MAX_WAITING_MESSAGES, HandlerLane, Lanes
from ws4redis.handlers.runners import ThreadRunner
from ws4redis.handlers.session import HandlerSession
from ws4redis.hub.statistics import Statistics
from ws4redis.protocol.frames import Opcode


class Recorder(WebSocketHandler):
    """Note what is called; wait, fail or send when told to."""

    def on_connect(self) -> None:
        self.seen: list[Any] = []
        self.gate = threading.Event()
        self.gate.set()

    def on_message(self, message: Message) -> None:
        assert self.gate.wait(SOON_SECONDS)
        self.seen.append(message)
        if message == 'fail':
            raise RuntimeError
        if message == 'send':
            self.send('answer')

    def on_close(self, code: int) -> None:
        self.seen.append(code)


class Lane(HandlerLane):
    """Keep what the handler sends, and count what the lane tells."""

    __slots__ = ('closes', 'sent', 'times_with_room')

    def __init__(self, lanes: Lanes) -> None:
        super().__init__(lanes)
        self.sent: list[bytes] = []
        self.closes: list[int] = []
        self.times_with_room = 0

    def send(self, payload: bytes, opcode: Opcode) -> None:
        self.sent.append(payload)

    def close(self, code: int, reason: str) -> None:
        self.closes.append(code)

    def lane_has_room(self) -> None:
        self.times_with_room += 1


@pytest.fixture
def lanes() -> Any:
    lanes = Lanes(ThreadRunner(4), Statistics())
    yield lanes
    lanes.finish(SOON_SECONDS)


def lane_with_handler(lanes: Lanes) -> tuple[Lane, Recorder]:
    lane = Lane(lanes)
    lane.session = HandlerSession(Recorder, None, {}, lane)  # type: ignore[arg-type]
    lane.session.connect()
    handler = lane.session.handler
    assert isinstance(handler, Recorder)
    return lane, handler


def test_messages_come_in_order_and_the_end_comes_last(lanes: Lanes) -> None:
    lane, handler = lane_with_handler(lanes)
    for number in range(1000):
        lane.put_message(Opcode.TEXT, b'%d' % number)
    lane.put_close(1000, '')
    wait_until(lambda: len(handler.seen) == 1001)
    assert handler.seen == [*map(str, range(1000)), 1000]


def test_a_handler_that_waits_delays_no_other(lanes: Lanes) -> None:
    slow_lane, slow = lane_with_handler(lanes)
    slow.gate.clear()
    slow_lane.put_message(Opcode.TEXT, b'waits')
    lane, handler = lane_with_handler(lanes)
    lane.put_message(Opcode.BINARY, b'quick')
    wait_until(lambda: handler.seen == [b'quick'])
    assert slow.seen == []
    slow.gate.set()
    wait_until(lambda: slow.seen == ['waits'])


def test_a_full_lane_says_so_once_and_tells_when_it_is_empty(lanes: Lanes) -> None:
    lane, handler = lane_with_handler(lanes)
    handler.gate.clear()
    full = [lane.put_message(Opcode.TEXT, b'x') for _ in range(2 * MAX_WAITING_MESSAGES)]
    assert full.count(True) == 1
    assert lanes.statistics.handler_events_waiting >= 2 * MAX_WAITING_MESSAGES - 1
    assert lane.times_with_room == 0
    handler.gate.set()
    wait_until(lambda: lane.times_with_room == 1)
    assert lanes.statistics.handler_events_waiting == 0
    assert lanes.statistics.handler_events == 2 * MAX_WAITING_MESSAGES


def test_after_a_fault_nothing_is_called_but_the_end(
    lanes: Lanes, caplog: pytest.LogCaptureFixture
) -> None:
    lane, handler = lane_with_handler(lanes)
    for message in (b'a', b'fail', b'b'):
        lane.put_message(Opcode.TEXT, message)
    wait_until(lambda: lane.closes == [1011])
    lane.put_close(1011, '')
    wait_until(lambda: handler.seen == ['a', 'fail', 1011])
    assert 'Recorder' in caplog.text


def test_sending_to_a_client_that_left_is_no_fault(
    lanes: Lanes, caplog: pytest.LogCaptureFixture
) -> None:
    lane, handler = lane_with_handler(lanes)
    handler.gate.clear()
    for message in (b'send', b'still seen'):
        lane.put_message(Opcode.TEXT, message)
    lane.put_close(1006, '')
    handler.gate.set()
    wait_until(lambda: handler.seen == ['send', 'still seen', 1006])
    assert lane.closes == []
    assert 'ERROR' not in caplog.text
    with pytest.raises(ConnectionClosed):
        handler.send('too late')


def test_send_takes_text_and_bytes_alone(lanes: Lanes) -> None:
    lane, handler = lane_with_handler(lanes)
    handler.send('ü')
    handler.send(b'\xff')
    handler.send_json({'a': [1, None]})
    assert lane.sent == ['ü'.encode(), b'\xff', b'{"a": [1, null]}']
    with pytest.raises(TypeError, match='send_json'):
        handler.send({'a': 1})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='1005'):
        handler.close(1005)


def test_no_more_threads_run_than_there_may_be_and_idle_ones_are_used_again() -> None:
    runner = ThreadRunner(3)
    running, most = 0, 0
    lock = threading.Lock()
    idents = set()

    def task() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            idents.add(threading.get_ident())
        time.sleep(0.002)
        with lock:
            running -= 1
            done.append(None)

    done: list[None] = []
    for _ in range(30):
        runner.submit(task)
    wait_until(lambda: len(done) == 30)
    assert most == 3
    assert len(idents) == 3
    runner.stop()
