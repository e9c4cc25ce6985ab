"""An event stream as a peer of the hub."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from tests.event_stream_client import EventStreamParser, StreamEvent
from tests.hub.history_rig import home, publish
from tests.hub.rig import Home, bus_link_of
from tests.programs import RedisServer
from ws4redis.broker.history import Position
from ws4redis.broker.tokens import PositionsToken
from ws4redis.hub.event_stream import EventStream, OwnStreamWire, shared_wire
from ws4redis.hub.hub import PublishingReceiver
from ws4redis.hub.joining import Joining
from ws4redis.hub.options import HubOptions
from ws4redis.hub.websocket import Phase
from ws4redis.protocol.event_stream import EventStreamWire
from ws4redis.protocol.frames import CloseCode

CHAT, OTHER, PLAIN = 'broadcast:chat', 'broadcast:chat2', 'broadcast:news'


class Seen(dict[str, Position]):
    """What a client has seen."""

    def position_on(self, channel: str) -> Position | None:
        return self.get(channel)


Browse = Callable[..., 'Browser']


class Browser:
    """An open stream, and what has arrived of it."""

    def __init__(
        self,
        hub: Home,
        *names: str,
        since: dict[str, Position] | None = None,
        wire: EventStreamWire | None = None,
    ) -> None:
        self._hub = hub
        self.parser = EventStreamParser()
        self.events: list[StreamEvent] = []
        self.is_joined = False
        ours, self.socket = socket.socketpair()
        self.socket.settimeout(0)
        ours.settimeout(0)
        self.stream = EventStream(
            hub,
            wire or shared_wire(),
            PublishingReceiver(hub),
            heeds_gaps=since is not None,
        )
        joining = Joining(self.stream, None if since is None else Seen(since), done=self._joined)
        hub.join_all(self.stream, names, joining)
        hub.turn_until(lambda: self.is_joined)
        self.stream.attach(ours)

    def _joined(self) -> None:
        self.is_joined = True

    def read(self) -> list[StreamEvent]:
        try:
            while data := self.socket.recv(65536):
                self.events += self.parser.feed(data)
        except BlockingIOError:
            pass
        return self.events

    def expect(self, *data: str) -> None:
        self._hub.turn_until(lambda: len(self.read()) >= len(data))
        assert [event.data for event in self.events] == list(data)

    def seen(self, name: str) -> Position | None:
        return PositionsToken(self.parser.last_event_id).position_on(name)


@pytest.fixture
def hub(redis_server: RedisServer) -> Iterator[Home]:
    with home(max_queue_bytes=30_000) as hub:
        hub.turn_until(lambda: bus_link_of(hub).is_connected)
        yield hub


@pytest.fixture
def browse(hub: Home) -> Iterator[Browse]:
    opened: list[Browser] = []

    def browse(*names: str, **options: Any) -> Browser:
        browser = Browser(hub, *names, **options)
        opened.append(browser)
        return browser

    yield browse
    for browser in opened:
        browser.socket.close()


def test_messages_of_its_channels_arrive_without_positions_where_there_is_no_history(
    hub: Home, browse: Browse, redis_client: redis.Redis
) -> None:
    browser = browse(PLAIN)
    redis_client.publish(PLAIN, 'one\ntwo')
    browser.expect('one\ntwo')
    assert browser.parser.last_event_id == ''
    assert browser.parser.retry is not None


def test_the_kept_message_comes_first(hub: Home, browse: Browse, redis_client: redis.Redis) -> None:
    redis_client.set(PLAIN, 'kept')
    browse(PLAIN).expect('kept')


def test_a_stream_goes_on_after_the_last_event_that_was_seen(
    hub: Home, browse: Browse, redis_client: redis.Redis
) -> None:
    browser = browse(CHAT)
    # Where it begins is said, though nothing was published yet.
    hub.turn_until(lambda: browser.read() or browser.seen(CHAT))
    begin = browser.seen(CHAT)
    assert begin is not None
    position = publish(redis_client, b'1', b'2')
    browser.expect('1', '2')
    assert browser.seen(CHAT) == position
    browser.socket.close()
    hub.turn_until(lambda: browser.stream.phase is Phase.CLOSED)
    last = publish(redis_client, b'3', b'4')
    again = browse(CHAT, since={CHAT: position})
    again.expect('3', '4')
    assert again.seen(CHAT) == last
    browse(CHAT, since={CHAT: begin}).expect('1', '2', '3', '4')


def test_an_event_names_the_positions_on_all_channels(
    hub: Home, browse: Browse, redis_client: redis.Redis
) -> None:
    browser = browse(CHAT, OTHER, wire=OwnStreamWire({}))
    first = publish(redis_client, b'a', name=CHAT)
    second = publish(redis_client, b'b', name=OTHER)
    hub.turn_until(lambda: len(browser.read()) == 2)
    assert (browser.seen(CHAT), browser.seen(OTHER)) == (first, second)
    publish(redis_client, b'c', name=CHAT)
    since = {CHAT: first, OTHER: second}
    again = browse(CHAT, OTHER, since=since, wire=OwnStreamWire(since))
    again.expect('c')
    assert again.seen(OTHER) == second


def test_a_gap_is_told(hub: Home, browse: Browse, redis_client: redis.Redis) -> None:
    publish(redis_client, b'1')
    browser = browse(CHAT, since={CHAT: Position('another', 7)})
    hub.turn_until(lambda: browser.read())
    assert browser.events[0].name == 'gap'
    assert browser.seen(CHAT) is not None
    publish(redis_client, b'2')
    hub.turn_until(lambda: browser.read()[-1] == StreamEvent('2'))


def test_who_cannot_keep_up_is_told_and_gets_whole_events(
    hub: Home, browse: Browse, redis_client: redis.Redis
) -> None:
    browser = browse(PLAIN)
    for number in range(3000):
        redis_client.publish(PLAIN, f'{number:04}' + 'x' * 996)
    hub.turn_until(lambda: browser.stream.phase is not Phase.OPEN)
    hub.turn_until(lambda: browser.read() and browser.events[-1].name == 'close')
    *messages, close = browser.events
    assert '"code": 1013' in close.data
    assert [int(event.data[:4]) for event in messages] == list(range(len(messages)))


def test_a_close_is_told_and_ends_the_stream(hub: Home, browse: Browse) -> None:
    browser = browse(PLAIN)
    browser.stream.close(CloseCode.SERVICE_RESTART, 'the server restarts')
    hub.turn_until(lambda: browser.read() and browser.events[-1].name == 'close')
    browser.socket.close()
    hub.turn_until(lambda: browser.stream.phase is Phase.CLOSED)
    assert hub.open_count == 0
    assert hub.statistics.handshakes[200] == 1


def test_what_a_client_sends_is_passed_over(
    hub: Home, browse: Browse, redis_client: redis.Redis
) -> None:
    browser = browse(PLAIN)
    browser.socket.sendall(b'GET / HTTP/1.1\r\n\r\n')
    hub.turn(3)
    redis_client.publish(PLAIN, 'x')
    browser.expect('x')


def test_a_quiet_stream_gets_comments_and_stays_open() -> None:
    with Home(options=HubOptions(ping_interval_seconds=0.05, ping_timeout_seconds=0.05)) as quiet:
        ours, theirs = socket.socketpair()
        theirs.settimeout(0)
        ours.settimeout(0)
        stream = EventStream(quiet, shared_wire(), PublishingReceiver(quiet))
        stream.attach(ours)
        parser = EventStreamParser()

        def read() -> int:
            try:
                parser.feed(theirs.recv(65536))
            except BlockingIOError:
                pass
            return parser.comments

        quiet.turn_until(lambda: read() >= 4)
        assert stream.phase is Phase.OPEN
        theirs.close()
