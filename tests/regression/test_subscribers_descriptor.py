"""Descriptors that a subscriber brings: their other end may hang up at any moment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.hub.rig import Home, Peer
from tests.timeouts import wait_until
from ws4redis.handshake.subscriber_bridge import SubscriberBridge
from ws4redis.subscriber import RedisSubscriber

# Whatever the bridge calls may use the database.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def hub() -> Iterator[Home]:
    with Home() as hub:
        hub.turn(2)
        yield hub


class WithPipe(RedisSubscriber):
    def __init__(self) -> None:
        super().__init__()
        self.read_end, self.write_end = os.pipe()
        self.released = 0

    def get_file_descriptor(self) -> int:
        return self.read_end

    def parse_response(self) -> Any:
        data = os.read(self.read_end, 100)
        if not data:
            raise EOFError
        return data.decode()

    def release(self) -> None:
        self.released += 1


class Submitted:
    """Keep what is submitted until the test runs it, as a busy pool does."""

    def __init__(self, hub: Home) -> None:
        self.tasks: list[tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]] = []
        self._run = hub.loop.driver.submit
        hub.loop.driver.submit = self._submit  # type: ignore[method-assign]

    def _submit(self, done: Callable[..., Any], function: Callable[..., Any], *args: Any) -> None:
        self.tasks.append((done, function, args))

    def run(self) -> None:
        tasks, self.tasks = self.tasks, []
        for done, function, args in tasks:
            self._run(done, function, *args)


def bridged(hub: Home, subscriber: RedisSubscriber) -> Peer:
    bridge = SubscriberBridge(hub, subscriber)
    peer = hub.peer(receiver=bridge, companion=bridge, attached=False)
    bridge.begin(peer.websocket)
    bridge.take_descriptor()
    bridge.prepare(peer.websocket)
    peer.attach()
    hub.turn(2)
    return peer


def test_a_hang_up_is_parsed_once_and_does_not_keep_the_loop_busy(hub: Home) -> None:
    subscriber = WithPipe()
    submitted = Submitted(hub)
    peer = bridged(hub, subscriber)
    os.close(subscriber.write_end)
    hub.turn(5)
    assert len(submitted.tasks) == 1
    assert hub.loop.poller.poll(0) == []
    peer.websocket.lost()
    submitted.run()
    hub.turn(3)
    wait_until(lambda: subscriber.released == 1)
    os.close(subscriber.read_end)


def test_a_delivery_that_ends_the_websocket_releases_and_raises_nothing(
    hub: Home, caplog: pytest.LogCaptureFixture
) -> None:
    class Messages(WithPipe):
        def parse_response(self) -> Any:
            return [b'message', b'pipe', os.read(self.read_end, 100)]

    subscriber = Messages()
    submitted = Submitted(hub)
    peer = bridged(hub, subscriber)
    os.write(subscriber.write_end, b'message')
    hub.turn(2)
    peer.socket.close()
    # The peer has gone, and sending is what finds out.
    [(done, function, args)] = submitted.tasks
    hub.loop.call_soon(done, function(*args), None)
    hub.loop._run_calls()
    wait_until(lambda: subscriber.released == 1)
    assert 'failed' not in caplog.text
    os.close(subscriber.read_end)
    os.close(subscriber.write_end)
