"""What takes over in a browser where websockets are blocked: event streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from tests.browser.blocking_proxy import BlockingProxy
from tests.clients.project import SETTINGS
from tests.programs import RedisServer
from tests.serving import served
from tests.timeouts import SERVER_SECONDS
from ws4redis.applications.wsgi import WebSocketServer
from ws4redis.publisher import RedisPublisher
from ws4redis.servers.process import get_hub

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

CHAT = '/ws/chat/1?subscribe-broadcast&publish-broadcast'
OPEN = """
    uri => { window.ws = new WS4Redis(options(uri, {
        gap: record('gap'),
        disconnected: function (event) { calls.push(['disconnected', event.code, event.reason]); }
    })); }
"""


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[BlockingProxy]:
    settings = {**SETTINGS, 'WS4REDIS_ALLOWED_ORIGINS': ['*'], 'WS4REDIS_DRAIN_SECONDS': 0}
    with override_settings(**settings), served(WebSocketServer()) as server:
        with BlockingProxy(server.port) as proxy:
            yield proxy


def publish(facility: str, *messages: str | bytes) -> None:
    publisher = RedisPublisher(facility=facility, broadcast=True)
    for message in messages:
        publisher.publish_message(message)


def wait_for(page: Page, condition: str) -> None:
    page.wait_for_function(condition, timeout=SERVER_SECONDS * 1000)


def fall_back(page: Page, proxy: BlockingProxy, path: str = CHAT) -> None:
    """Open a page's connection, and wait until it is an event stream."""
    page.evaluate('() => { Math.random = () => 0; }')
    page.evaluate(OPEN, f'ws://127.0.0.1:{proxy.port}{path}')
    wait_for(page, 'ws.is_connected()')
    assert page.evaluate('ws.get_transport()') == 'event-stream'


def received(page: Page) -> list[Any]:
    result: list[Any] = page.evaluate(
        "calls.filter(call => call[0] === 'receive_message').map(call => call[1])"
    )
    return result


def wait_for_messages(page: Page, *messages: str) -> None:
    wait_for(page, f"calls.some(call => call[1] === '{messages[-1]}')")
    assert received(page) == list(messages)


def test_an_event_stream_takes_over_where_websockets_are_blocked(
    page: Page, proxy: BlockingProxy
) -> None:
    fall_back(page, proxy)
    assert page.evaluate('calls.map(call => call[0])') == [
        *(['connecting', 'disconnected'] * 2),
        'connecting',
        'connected',
    ]
    # Each attempt with a subprotocol and without, and once more after a stream had opened.
    assert proxy.refused == 6
    publish('chat/1', 'one', 'two\nlines')
    wait_for(page, "calls.some(call => call[1] === 'two\\nlines')")
    assert received(page) == ['one', 'two\nlines']


def test_bytes_arrive_as_a_blob(page: Page, proxy: BlockingProxy) -> None:
    fall_back(page, proxy)
    publish('chat/1', b'\xff\x00')
    wait_for(page, "calls.some(call => call[0] === 'receive_message')")
    assert page.evaluate("""async () => {
        const blob = calls[calls.length - 1][1];
        return [blob instanceof Blob, Array.from(new Uint8Array(await blob.arrayBuffer()))];
    }""") == [True, [255, 0]]


def test_an_event_stream_says_that_it_cannot_send(page: Page, proxy: BlockingProxy) -> None:
    fall_back(page, proxy)
    error = page.evaluate("""() => {
        try { ws.send_message('x'); } catch (error) { return [error.name, error.message]; }
    }""")
    assert error == [
        'NotSupportedError',
        'WS4Redis: not sent, an event stream cannot send, and websockets are blocked',
    ]


@pytest.mark.parametrize('begin', [['one'], []], ids=['after a message', 'before any message'])
def test_what_was_missed_comes_after_a_cut(
    page: Page, proxy: BlockingProxy, begin: list[str]
) -> None:
    fall_back(page, proxy)
    for message in begin:
        publish('chat/1', message)
        wait_for_messages(page, message)
    refused = proxy.refused
    cut_and_publish(page, proxy, 'missed', 'missed too')
    wait_for_messages(page, *begin, 'missed', 'missed too')
    publish('chat/1', 'live')
    wait_for_messages(page, *begin, 'missed', 'missed too', 'live')
    assert page.evaluate("calls.some(call => call[0] === 'gap')") is False
    # It goes on as a stream, without a try at a websocket.
    assert proxy.refused == refused


def cut_and_publish(page: Page, proxy: BlockingProxy, *messages: str) -> None:
    page.evaluate('() => { calls = calls.filter(call => call[0] === "receive_message"); }')
    proxy.hold()
    proxy.cut()
    wait_for(page, "calls.some(call => call[0] === 'disconnected')")
    publish('chat/1', *messages)
    proxy.let_in()


def test_a_gap_is_told(page: Page, proxy: BlockingProxy) -> None:
    fall_back(page, proxy, '/ws/chat/1?subscribe-broadcast&since=nonsense')
    wait_for(page, "calls.some(call => call[0] === 'gap')")
    assert page.evaluate("calls.find(call => call[0] === 'gap')[1]") == {'cause': 'epoch'}


def test_a_websocket_goes_on_where_the_stream_was(page: Page, proxy: BlockingProxy) -> None:
    fall_back(page, proxy)
    publish('chat/1', 'one')
    wait_for_messages(page, 'one')
    proxy.blocks = False
    # A stream that cannot be opened either says that something has changed.
    page.evaluate("""() => {
        const usable = window.EventSource;
        window.EventSource = function () { window.EventSource = usable; throw new Error('off'); };
    }""")
    cut_and_publish(page, proxy, 'missed', 'missed too')
    wait_for_messages(page, 'one', 'missed', 'missed too')
    assert page.evaluate('ws.get_transport()') == 'websocket'
    page.evaluate("ws.send_message('sent')")


def test_a_server_that_was_away_gets_its_websockets(page: Page, proxy: BlockingProxy) -> None:
    page.evaluate('() => { Math.random = () => 0; }')
    proxy.hold()
    page.evaluate(OPEN, f'ws://127.0.0.1:{proxy.port}{CHAT}')
    for times in (1, 2):
        wait_for(page, "calls[calls.length - 1][0] === 'connecting'")
        proxy.let_in()
        wait_for(page, f"calls.filter(call => call[0] === 'disconnected').length === {times}")
    # What follows is a stream, which opens as a websocket would now.
    proxy.blocks = False
    wait_for(page, 'ws.is_connected()')
    assert page.evaluate('ws.get_transport()') == 'websocket'
    assert any(b'text/event-stream' in head for head in proxy.heads)


@pytest.mark.parametrize(('code', 'comes_back'), [(4501, False), (1012, True)])
def test_a_stream_that_the_server_closes_tells_why(
    page: Page, proxy: BlockingProxy, code: int, *, comes_back: bool
) -> None:
    fall_back(page, proxy)
    page.evaluate('() => { calls = []; }')
    hub = get_hub()

    def close_all() -> None:
        for websocket in list(hub):
            websocket.close(code, 'because')

    hub.loop.call_soon(close_all)
    wait_for(page, "calls.some(call => call[0] === 'disconnected')")
    assert page.evaluate('calls[0]') == ['disconnected', code, 'because']
    if comes_back:
        wait_for(page, 'ws.is_connected()')
    else:
        # The longest first delay is 2 seconds.
        page.wait_for_timeout(2_100)
        assert page.evaluate('calls.length') == 1


def test_a_stream_goes_on_when_the_user_comes_back_to_the_page(
    page: Page, proxy: BlockingProxy
) -> None:
    fall_back(page, proxy)
    publish('chat/1', 'one')
    wait_for_messages(page, 'one')
    page.evaluate("dispatchEvent(new Event('pagehide'))")
    publish('chat/1', 'missed', 'missed too')
    assert page.evaluate('ws.is_closed()')
    page.evaluate("dispatchEvent(new Event('pageshow'))")
    wait_for_messages(page, 'one', 'missed', 'missed too')
    assert page.evaluate('ws.get_transport()') == 'event-stream'


def test_close_ends_a_stream_for_good(page: Page, proxy: BlockingProxy) -> None:
    fall_back(page, proxy)
    page.evaluate('() => { calls = []; ws.close(); }')
    wait_for(page, 'ws.is_closed()')
    assert page.evaluate('calls') == [['disconnected', 1000, '']]


def test_a_browser_takes_up_an_event_stream_by_itself(page: Page, proxy: BlockingProxy) -> None:
    page.evaluate(
        """url => {
            window.data = [];
            window.errors = 0;
            window.opened = 0;
            window.stream = new EventSource(url);
            stream.onmessage = event => data.push(event.data);
            stream.onerror = () => { errors += 1; };
            stream.onopen = () => { opened += 1; };
        }""",
        f'http://127.0.0.1:{proxy.port}{CHAT}',
    )
    wait_for(page, 'opened === 1')
    publish('chat/1', 'one')
    wait_for(page, 'data.length === 1')
    proxy.hold()
    proxy.cut()
    wait_for(page, 'errors === 1')
    publish('chat/1', 'missed', 'missed too')
    proxy.let_in()
    wait_for(page, 'data.length === 3')
    publish('chat/1', 'live')
    wait_for(page, 'data.length === 4')
    assert page.evaluate('data') == ['one', 'missed', 'missed too', 'live']
    first, second = proxy.heads
    assert b'last-event-id' not in first.lower()
    assert b'last-event-id' in second.lower()
