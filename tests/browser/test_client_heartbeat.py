"""Heartbeats of ``ws4redis.js``, by a clock that the tests turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.scripted_server import ScriptedConnection, ScriptedServer
from tests.browser.static_pages import StaticPages

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser

HEARTBEAT = '--heartbeat--'
INTERVAL_MS = 5000


@pytest.fixture
def page(browser_context: BrowserContext, static_pages: StaticPages) -> Page:
    page = browser_context.new_page()
    page.clock.install()
    page.goto(static_pages.url)
    page.clock.pause_at(page.evaluate('Date.now()') + 1000)
    return page


def connect(page: Page, server: ScriptedServer, heartbeat: str | None) -> ScriptedConnection:
    page.evaluate(
        """([uri, heartbeat]) => {
            window.ws = new WS4Redis(options(uri, {heartbeat_msg: heartbeat}));
        }""",
        [server.uri, heartbeat],
    )
    connection = server.next_connection()
    page.wait_for_function('ws.is_connected()')
    return connection


def answer(page: Page, connection: ScriptedConnection, message: str) -> None:
    """Send a message and wait until the browser has it."""
    page.evaluate("""() => {
        window.arrived = new Promise(resolve => {
            const native = window.native_socket;
            native.addEventListener('message', resolve, {once: true});
        });
    }""")
    connection.send(message)
    page.evaluate('arrived.then(() => null)')


@pytest.fixture
def answering_page(page: Page) -> Page:
    """A page on which `native_socket` is the newest WebSocket."""
    page.evaluate("""() => {
        const Native = window.WebSocket;
        window.WebSocket = class extends Native {
            constructor(uri) { super(uri); window.native_socket = this; }
        };
    }""")
    return page


def test_the_heartbeat_is_sent_every_five_seconds(
    answering_page: Page, server: ScriptedServer
) -> None:
    page = answering_page
    connection = connect(page, server, HEARTBEAT)
    page.clock.run_for(INTERVAL_MS - 100)
    assert connection.received.empty()
    page.clock.run_for(200)
    assert connection.receive() == HEARTBEAT
    for _beat in range(10):
        answer(page, connection, HEARTBEAT)
        page.clock.run_for(INTERVAL_MS)
        assert connection.receive() == HEARTBEAT
    assert connection.received.empty()
    assert page.evaluate('ws.is_connected()')


def test_the_server_s_heartbeat_is_no_message(answering_page: Page, server: ScriptedServer) -> None:
    connection = connect(answering_page, server, HEARTBEAT)
    answer(answering_page, connection, HEARTBEAT)
    answer(answering_page, connection, f'{HEARTBEAT} and more')
    assert answering_page.evaluate('calls') == [
        ['connecting'],
        ['connected'],
        ['receive_message', f'{HEARTBEAT} and more'],
    ]


@pytest.mark.parametrize('heartbeat', [None, ''])
def test_without_a_heartbeat_none_is_sent_and_every_message_is_one(
    answering_page: Page, server: ScriptedServer, heartbeat: str | None
) -> None:
    page = answering_page
    connection = connect(page, server, heartbeat)
    answer(page, connection, HEARTBEAT)
    answer(page, connection, '')
    page.clock.run_for(INTERVAL_MS * 20)
    page.evaluate('ws.send_message("still here")')
    assert connection.receive() == 'still here'
    assert page.evaluate('calls.slice(2)') == [
        ['receive_message', HEARTBEAT],
        ['receive_message', ''],
    ]


def test_more_than_three_unanswered_heartbeats_end_the_websocket_and_it_reconnects(
    page: Page, server: ScriptedServer
) -> None:
    connection = connect(page, server, HEARTBEAT)
    page.clock.run_for(INTERVAL_MS * 3)
    assert [connection.receive() for _beat in range(3)] == [HEARTBEAT] * 3
    assert page.evaluate('ws.is_connected()')
    page.clock.run_for(INTERVAL_MS * 2)
    assert connection.receive() == HEARTBEAT
    assert connection.received.empty()
    assert page.evaluate('calls.slice(2)') == [['disconnected', 'close', 1006, False]]
    assert page.evaluate('ws.is_closed()')
    connection.wait_for_end()
    page.clock.run_for(2_000)
    again = server.next_connection()
    page.wait_for_function('ws.is_connected()')
    page.clock.run_for(INTERVAL_MS)
    assert again.receive() == HEARTBEAT


def test_a_server_that_does_not_even_answer_the_close_frame_delays_nothing(
    page: Page, server: ScriptedServer
) -> None:
    """Browsers wait for seconds, some for minutes, for the closing handshake of a dead peer."""
    page.evaluate("""() => {
        window.WebSocket = class {
            constructor() {
                this.readyState = 0;
                window.dead = this;
                Promise.resolve().then(() => { this.readyState = 1; this.onopen({}); });
            }
            send() {}
            close() { this.readyState = 2; }
        };
    }""")
    page.evaluate(
        """heartbeat => {
            window.ws = new WS4Redis(options('ws://localhost/', {heartbeat_msg: heartbeat}));
        }""",
        HEARTBEAT,
    )
    page.wait_for_function('ws.is_connected()')
    page.clock.run_for(INTERVAL_MS * 5)
    page.clock.run_for(2_000)
    assert page.evaluate('calls.map(call => call[0])') == [
        'connecting', 'connected', 'disconnected', 'connecting', 'connected',
    ]  # fmt: skip


@pytest.mark.parametrize('message', [HEARTBEAT, 'anything'])
def test_whatever_the_server_sends_answers_the_heartbeats(
    answering_page: Page, server: ScriptedServer, message: str
) -> None:
    """The server's heartbeat goes to idle websockets only."""
    page = answering_page
    connection = connect(page, server, HEARTBEAT)
    for _round in range(4):
        page.clock.run_for(INTERVAL_MS * 3)
        answer(page, connection, message)
    assert page.evaluate('ws.is_connected()')
    assert not server.has_new_connection()


def test_no_heartbeat_is_sent_after_close(page: Page, server: ScriptedServer) -> None:
    connection = connect(page, server, HEARTBEAT)
    page.evaluate('ws.close()')
    assert connection.wait_for_end() == 1000
    page.clock.run_for(INTERVAL_MS * 10)
    assert connection.received.empty()
    assert not server.has_new_connection()
