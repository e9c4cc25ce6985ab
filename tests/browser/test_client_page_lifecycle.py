"""What ``ws4redis.js`` does when the user leaves its page, and comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.scripted_server import ScriptedServer
from tests.browser.static_pages import StaticPages

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

LEAVE = 'dispatchEvent(new PageTransitionEvent("pagehide", {persisted: true}))'
COME_BACK = 'dispatchEvent(new PageTransitionEvent("pageshow", {persisted: true}))'


def connect(page: Page, server: ScriptedServer) -> None:
    page.evaluate(
        """uri => {
            window.ws = new WS4Redis(options(uri, {heartbeat_msg: '--heartbeat--'}));
        }""",
        server.uri,
    )


def test_leaving_the_page_closes_the_websocket(page: Page, server: ScriptedServer) -> None:
    connect(page, server)
    connection = server.next_connection()
    page.wait_for_function('ws.is_connected()')
    page.evaluate(LEAVE)
    connection.wait_for_end()
    assert page.evaluate('ws.is_closed()')


def test_a_left_page_neither_reconnects_nor_beats(page: Page, server: ScriptedServer) -> None:
    page.clock.install()
    connect(page, server)
    connection = server.next_connection()
    page.wait_for_function('ws.is_connected()')
    page.evaluate(LEAVE)
    connection.wait_for_end()
    page.clock.run_for(120_000)
    page.evaluate('dispatchEvent(new Event("online"))')
    page.clock.run_for(120_000)
    assert not server.has_new_connection()
    assert connection.received.empty()


def test_coming_back_connects_at_once(page: Page, server: ScriptedServer) -> None:
    page.clock.install()
    connect(page, server)
    server.next_connection()
    page.wait_for_function('ws.is_connected()')
    page.clock.pause_at(page.evaluate('Date.now()') + 1000)
    page.evaluate(f'{LEAVE}; {COME_BACK}')
    server.next_connection()
    page.wait_for_function('ws.is_connected()')
    assert page.evaluate('calls') == [
        ['connecting'],
        ['connected'],
        ['disconnected', 'close', 1006, False],
        ['connecting'],
        ['connected'],
    ]


def test_coming_back_during_a_delay_connects_at_once(page: Page, server: ScriptedServer) -> None:
    page.clock.install()
    connect(page, server)
    connection = server.next_connection()
    page.wait_for_function('ws.is_connected()')
    page.clock.pause_at(page.evaluate('Date.now()') + 1000)
    connection.drop()
    page.wait_for_function('ws.is_closed()')
    page.evaluate(f'{LEAVE}; {COME_BACK}')
    server.next_connection()
    page.wait_for_function('ws.is_connected()')
    assert page.evaluate('calls.filter(call => call[0] === "disconnected").length') == 1
    page.clock.run_for(4_000)
    assert not server.has_new_connection()


def test_a_websocket_closed_for_good_stays_closed_when_the_user_comes_back(
    page: Page, server: ScriptedServer
) -> None:
    page.clock.install()
    connect(page, server)
    connection = server.next_connection()
    page.wait_for_function('ws.is_connected()')
    page.evaluate('ws.close()')
    connection.wait_for_end()
    page.evaluate(f'{LEAVE}; {COME_BACK}')
    page.clock.run_for(120_000)
    assert not server.has_new_connection()


def test_the_event_that_ends_the_page_s_loading_changes_nothing(
    page: Page, server: ScriptedServer
) -> None:
    connect(page, server)
    page.evaluate('dispatchEvent(new PageTransitionEvent("pageshow", {persisted: false}))')
    server.next_connection()
    page.wait_for_function('ws.is_connected()')
    assert page.evaluate('calls') == [['connecting'], ['connected']]
    assert not server.has_new_connection()


def test_a_page_comes_out_of_the_back_forward_cache_connected(
    page: Page, server: ScriptedServer, static_pages: StaticPages
) -> None:
    connect(page, server)
    first = server.next_connection()
    page.wait_for_function('ws.is_connected()')
    page.goto(static_pages.url + 'elsewhere/')
    first.wait_for_end()
    # A page from the cache is not loaded again.
    page.go_back(wait_until='commit')
    server.next_connection()
    page.wait_for_function('ws.is_connected()')
    # Only a page that was kept, not loaded anew, remembers its first connection.
    assert page.evaluate('calls.map(call => call[0])') == [
        'connecting', 'connected', 'disconnected', 'connecting', 'connected',
    ]  # fmt: skip
