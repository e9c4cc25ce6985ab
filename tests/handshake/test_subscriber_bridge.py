"""Between the loop and a subscriber class that overrides what the loop would do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hub.rig import Home, Peer
from tests.timeouts import wait_until
from ws4redis.handshake.subscriber_bridge import Proxy, SubscriberBridge, needs_bridge
from ws4redis.hub.messages import Messages
from ws4redis.hub.options import HubOptions
from ws4redis.hub.websocket import Phase
from ws4redis.protocol.frames import Opcode
from ws4redis.redis_store import RedisMessage
from ws4redis.subscriber import RedisSubscriber, WebSocketProxy

# Whatever the bridge calls may use the database.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def hub() -> Iterator[Home]:
    with Home(options=HubOptions(heartbeat=b'--heartbeat--')) as hub:
        hub.turn(2)
        yield hub


class Recording(RedisSubscriber):
    """Note what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[object] = []
        self.released = 0

    def publish_message(self, message: object, expire: int | None = None) -> None:  # type: ignore[override]  # as in 0.6
        if message == b'fail':
            raise RuntimeError('failed')
        self.published.append(message)

    def release(self) -> None:
        self.released += 1


class WithPipe(Recording):
    def __init__(self) -> None:
        super().__init__()
        self.ends = os.pipe()

    def get_file_descriptor(self) -> int:
        return self.ends[0]

    def parse_response(self) -> Any:
        data = os.read(self.ends[0], 100)
        if data == b'fail':
            raise RuntimeError('failed')
        return None if data == b'nothing' else [b'message', b'pipe', data]

    def release(self) -> None:
        super().release()
        for end in self.ends:
            os.close(end)


class WithHistory(Recording):
    def send_persisted_messages(self, websocket: WebSocketProxy) -> None:
        websocket.send('history')


def bridged(hub: Home, subscriber: RedisSubscriber, **options: Any) -> Peer:
    """Open a websocket as a handshake does."""
    bridge = SubscriberBridge(hub, subscriber)
    peer = hub.peer(receiver=bridge, companion=bridge, attached=False, **options)
    bridge.begin(peer.websocket)
    bridge.take_descriptor()
    if bridge.sends_persisted_messages:
        peer.websocket.hold()
    bridge.prepare(peer.websocket)
    peer.attach()
    hub.turn(2)
    return peer


def test_only_what_the_loop_would_do_by_itself_needs_a_bridge() -> None:
    class AddsChannels(RedisSubscriber):
        def set_pubsub_channels(self, request: Any, channels: Any) -> None:
            pass

    assert not needs_bridge(RedisSubscriber())
    assert not needs_bridge(AddsChannels())
    for subscriber_class in (Recording, WithHistory):
        assert needs_bridge(subscriber_class())
    for name in (
        'send_persisted_messages',
        'send_persited_messages',
        'get_file_descriptor',
        'parse_response',
        'publish_message',
        'release',
    ):
        overriding = type('Overriding', (RedisSubscriber,), {name: lambda self: None})
        assert needs_bridge(overriding()), name


def test_the_proxy_takes_text_and_anything_bytes_like() -> None:
    sent: list[tuple[bytes, Opcode | None]] = []
    proxy = Proxy(lambda payload, opcode: sent.append((payload, opcode)), lambda: False)
    proxy.send('Grüße')
    proxy.send(b'bytes')
    proxy.send(bytearray(b'array'), False)
    proxy.send(memoryview(b'view'), binary=True)
    assert sent == [
        ('Grüße'.encode(), None),
        (b'bytes', None),
        (b'array', Opcode.TEXT),
        (b'view', Opcode.BINARY),
    ]
    assert proxy.sent == [payload for payload, _ in sent]


def test_nothing_is_sent_by_the_proxy_once_it_is_closed() -> None:
    sent: list[bytes] = []
    open_states = [False]
    proxy = Proxy(lambda payload, opcode: sent.append(payload), lambda: open_states[0])
    assert not proxy.closed
    proxy.close(4000, b'enough')
    proxy.close()
    proxy.send('late')
    assert proxy.closed
    assert (proxy.closing, sent) == ((4000, 'enough'), [])
    left = Proxy(lambda payload, opcode: sent.append(payload), lambda: True)
    left.close()
    left.send('late')
    assert left.closed
    assert (left.closing, sent) == (None, [])


def test_what_the_subscriber_sends_comes_first(hub: Home) -> None:
    peer = bridged(hub, WithHistory())
    peer.websocket.deliver(Messages.of([b'live']))
    assert peer.messages() == ['history', 'live']


def test_messages_are_published_by_the_subscriber_in_order_but_no_heartbeats(hub: Home) -> None:
    subscriber = Recording()
    peer = bridged(hub, subscriber)
    for message in ('a', '--heartbeat--', 'b', 'c'):
        peer.send(message)
    hub.turn(5)
    assert subscriber.published == [b'a', b'b', b'c']
    assert all(isinstance(message, RedisMessage) for message in subscriber.published)


def test_messages_that_arrived_before_the_end_are_published_then_it_is_released_once(
    hub: Home,
) -> None:
    subscriber = Recording()
    peer = bridged(hub, subscriber)
    for number in range(10):
        peer.websocket.receiver.receive_message(peer.websocket, Opcode.TEXT, b'%d' % number)
    peer.websocket.lost()
    hub.turn(20)
    assert subscriber.published == [b'%d' % number for number in range(10)]
    wait_until(lambda: subscriber.released)
    hub.turn(5)
    assert subscriber.released == 1


def test_while_the_subscriber_lags_the_sender_is_not_read(hub: Home) -> None:
    subscriber = Recording()
    peer = bridged(hub, subscriber)
    # The pool is busy: what is submitted does not come back.
    submitted: list[Any] = []
    hub.loop.driver.submit = lambda *args: submitted.append(args)  # type: ignore[method-assign]
    for number in range(100):
        peer.websocket.receiver.receive_message(peer.websocket, Opcode.TEXT, b'%d' % number)
        if peer.websocket.paused:
            break
    assert 10 < number < 30
    del hub.loop.driver.submit
    while submitted:
        hub.loop.driver.submit(*submitted.pop())
        hub.turn(40)
    assert not peer.websocket.paused
    assert len(subscriber.published) == number + 1


def test_an_exception_while_publishing_closes_the_websocket_and_is_logged(
    hub: Home, caplog: pytest.LogCaptureFixture
) -> None:
    subscriber = Recording()
    peer = bridged(hub, subscriber)
    peer.send('fail')
    hub.turn(3)
    [close] = peer.frames()
    assert close.close_code == 1011
    assert 'RuntimeError: failed' in caplog.text


def test_a_class_that_overrides_something_else_publishes_through_the_loop(hub: Home) -> None:
    class WithRelease(RedisSubscriber):
        pass

    subscriber = WithRelease()
    subscriber._publishers = {'x'}
    peer = bridged(hub, subscriber)
    peer.send('hello')
    hub.turn()
    assert [c for c in hub.redis.commands(1) if c[0] == b'PUBLISH'] == [
        [b'PUBLISH', b'x', b'hello']
    ]


def test_messages_of_its_descriptor_are_delivered_and_others_ignored(hub: Home) -> None:
    subscriber = WithPipe()
    peer = bridged(hub, subscriber)
    for data in (b'one', b'nothing', b'two', b'\xff'):
        os.write(subscriber.ends[1], data)
        hub.turn(3)
    assert peer.messages() == ['one', 'two', b'\xff']


def test_the_idle_descriptor_does_not_keep_the_loop_busy(hub: Home) -> None:
    subscriber = WithPipe()
    bridged(hub, subscriber)
    hub.turn(3)
    assert hub.loop.poller.poll(0) == []


def test_an_exception_of_parse_response_closes_the_websocket(
    hub: Home, caplog: pytest.LogCaptureFixture
) -> None:
    subscriber = WithPipe()
    peer = bridged(hub, subscriber)
    os.write(subscriber.ends[1], b'fail')
    hub.turn(3)
    assert [f.close_code for f in peer.frames()] == [1011]
    assert 'RuntimeError: failed' in caplog.text


def descriptors() -> int:
    return len(os.listdir('/proc/self/fd'))


@pytest.mark.parametrize('when', ['open', 'opening'])
def test_the_end_of_the_websocket_closes_the_duplicate_and_releases(hub: Home, when: str) -> None:
    before = descriptors()
    subscriber = WithPipe()
    if when == 'open':
        peer = bridged(hub, subscriber)
        peer.websocket.lost()
    else:
        bridge = SubscriberBridge(hub, subscriber)
        peer = hub.peer(receiver=bridge, companion=bridge, attached=False)
        bridge.begin(peer.websocket)
        bridge.take_descriptor()
        # Closed by a shutdown, say, while the handshake goes on.
        peer.websocket.close(1012)
        bridge.prepare(peer.websocket)
        peer.attach()
        hub.turn(2)
    assert peer.websocket.phase is Phase.CLOSED
    wait_until(lambda: subscriber.released == 1)
    peer.socket.close()
    wait_until(lambda: descriptors() == before)
    assert subscriber.released == 1
