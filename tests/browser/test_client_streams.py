"""``WS4Redis.connect()`` in a browser where websockets are blocked: ``ws4redis-streams.js``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from tests.browser.blocking_proxy import BlockingProxy
from tests.browser.static_pages import StaticPages
from tests.clients.project import SETTINGS
from tests.programs import RedisServer
from tests.serving import served
from tests.timeouts import SERVER_SECONDS
from ws4redis.applications.wsgi import WebSocketServer
from ws4redis.control import disconnect
from ws4redis.publisher import RedisPublisher
from ws4redis.tokens import connection_token

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

CONNECT = """([uri, settings]) => {
    window.calls = [];
    const record = name => (...values) => { calls.push([name, ...values]); };
    // The shortest delay before each attempt.
    Math.random = () => 0;
    window.ws = WS4Redis.connect({
        uri,
        connected: () => { calls.push(['connected', ws.get_transport()]); },
        disconnected: event => { calls.push(['disconnected', event.code]); },
        ...settings,
    });
    window.chat = ws.subscribe('chat/1', {
        received: record('received'), subscribed: record('subscribed'), gap: record('gap'),
    });
}"""


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[BlockingProxy]:
    settings = {**SETTINGS, 'WS4REDIS_ALLOWED_ORIGINS': ['*'], 'WS4REDIS_DRAIN_SECONDS': 0}
    with override_settings(**settings), served(WebSocketServer()) as server:
        with BlockingProxy(server.port) as proxy:
            yield proxy


@pytest.fixture
def page(browser: Browser, static_pages: StaticPages) -> Iterator[Page]:
    with browser.new_context() as context:
        context.set_default_timeout(SERVER_SECONDS * 1000)
        page = context.new_page()
        page.goto(f'{static_pages.url}streams/')
        yield page


def publish(*messages: str) -> None:
    for message in messages:
        RedisPublisher(facility='chat/1', broadcast=True).publish_message(message)


def connect(page: Page, proxy: BlockingProxy, **settings: Any) -> None:
    uri = f'ws://127.0.0.1:{proxy.port}/connection/websocket'
    page.evaluate(CONNECT, [uri, settings])
    page.wait_for_function("calls.some(call => call[0] === 'subscribed')")


def cut(page: Page, proxy: BlockingProxy) -> None:
    """Let the page lose its connection, and find none before ``proxy.let_in()``."""
    ends = len(calls_of(page, 'disconnected'))
    proxy.hold()
    proxy.cut()
    wait_for_calls(page, 'disconnected', ends + 1)


def calls_of(page: Page, name: str) -> list[Any]:
    result: list[Any] = page.evaluate(
        'name => calls.filter(call => call[0] === name).map(call => call[1])', name
    )
    return result


def wait_for_calls(page: Page, name: str, count: int) -> None:
    page.wait_for_function(
        '([name, count]) => calls.filter(call => call[0] === name).length >= count',
        arg=[name, count],
    )


def test_a_page_falls_back_after_two_attempts_and_says_by_which_transport_it_is_connected(
    page: Page, proxy: BlockingProxy
) -> None:
    connect(page, proxy)
    assert calls_of(page, 'connected') == ['event-stream']
    assert page.evaluate('ws.get_transport()') == 'event-stream'
    # The third is the one after a stream could be opened.
    assert calls_of(page, 'disconnected') == [1006] * 3
    assert proxy.refused == 3


def test_over_a_stream_it_receives_publishes_and_calls(page: Page, proxy: BlockingProxy) -> None:
    connect(page, proxy)
    publish('from the server')
    wait_for_calls(page, 'received', 1)
    page.evaluate('Promise.all([1, 2, 3].map(number => chat.publish({number})))')
    wait_for_calls(page, 'received', 4)
    assert calls_of(page, 'received') == ['from the server', *({'number': n} for n in (1, 2, 3))]
    assert page.evaluate("ws.rpc('add', [1, 2])")['sum'] == 3


def test_what_was_missed_comes_once_after_a_cut(page: Page, proxy: BlockingProxy) -> None:
    connect(page, proxy)
    publish('one')
    wait_for_calls(page, 'received', 1)
    cut(page, proxy)
    publish('missed', 'missed too')
    # What is said meanwhile waits for the next connection.
    page.evaluate("() => { window.said = chat.publish('said meanwhile'); }")
    proxy.let_in()
    page.evaluate('said')
    publish('live')
    wait_for_calls(page, 'received', 5)
    received = ['one', 'missed', 'missed too', 'said meanwhile', 'live']
    assert calls_of(page, 'received') == received
    assert calls_of(page, 'gap') == []
    assert page.evaluate('ws.get_transport()') == 'event-stream'


def test_a_page_over_a_stream_learns_that_it_is_thrown_out(
    page: Page, proxy: BlockingProxy
) -> None:
    connect(page, proxy, token=connection_token('mary'))
    ends = len(calls_of(page, 'disconnected'))
    disconnect(user='mary')
    wait_for_calls(page, 'disconnected', ends + 1)
    assert calls_of(page, 'disconnected')[ends:] == [3503]
    page.wait_for_function('ws.get_state() === 3')
