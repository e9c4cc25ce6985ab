"""When ``ws4redis.js`` connects again, by a clock that the tests turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.scripted_server import ScriptedServer
from tests.browser.static_pages import StaticPages

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser

LONGEST_DELAY_MS = 30_000

# Stands for the browser's WebSocket where a test wants to see hundreds of attempts, or a handshake
# that nobody answers. `sockets` holds all that were made, but those with which the script tries
# again at once, without a subprotocol: they fail as the ones before them did.
STAND_IN = """
    // Nor is there an event stream to take over.
    window.EventSource = undefined;
    window.sockets = [];
    window.failing = false;
    window.WebSocket = function (uri, protocols) {
        this.uri = uri;
        this.readyState = 0;
        this.close_calls = 0;
        this.sent = [];
        if (failing && !protocols) {
            window.second = this;
        } else {
            sockets.push(this);
        }
    };
    WebSocket.prototype = {
        send: function (data) { this.sent.push(data); },
        close: function () {
            this.close_calls += 1;
            this.readyState = Math.max(this.readyState, 2);
        },
        open: function () { this.readyState = 1; this.onopen(new Event('open')); },
        fail: function () {
            this.readyState = 3;
            if (this.onerror) { this.onerror(new Event('error')); }
            failing = true;
            window.second = null;
            this.onclose(new CloseEvent('close', {code: 1006}));
            failing = false;
            if (second !== null) { second.fail(); }
        }
    };
    window.delays = [];
    var set = window.setTimeout;
    window.setTimeout = function (callback, delay) {
        delays.push(delay);
        return set(callback, delay);
    };
    null;
"""


@pytest.fixture
def stopped_page(browser_context: BrowserContext, static_pages: StaticPages) -> Page:
    """A page whose clock moves only when the test turns it, with the stand-in for WebSocket."""
    page = browser_context.new_page()
    page.clock.install(time=1_000_000)
    page.goto(static_pages.url)
    page.clock.pause_at(2_000_000)
    page.evaluate(STAND_IN)
    return page


def delays_of_failed_attempts(page: Page, *, chance: str, attempts: int) -> list[float]:
    """Let attempt after attempt fail and return the delays in milliseconds between them."""
    delays: list[float] = page.evaluate(
        """([chance, attempts]) => {
            Math.random = new Function('return ' + chance);
            window.ws = new WS4Redis(options('ws://localhost/ws/chat'));
            const seen = [];
            const run_timer = window.setTimeout;
            // The attempt runs at once: only the delay that was asked for counts here.
            window.setTimeout = function (callback, delay) {
                const is_timeout_of_handshake = delay === 30000;
                if (sockets[sockets.length - 1].readyState === 3 && !is_timeout_of_handshake) {
                    seen.push(delay);
                    if (seen.length < attempts) { Promise.resolve().then(callback); }
                }
                return run_timer(function () {}, delay);
            };
            return (async function () {
                for (let count = 0; count < attempts; count++) {
                    sockets[sockets.length - 1].fail();
                    await null; await null;
                }
                ws.close();
                return seen;
            }());
        }""",
        [chance, attempts],
    )
    assert len(delays) == attempts
    return delays


@pytest.mark.parametrize('chance', ['0', '0.5', '0.999999'])
def test_delays_grow_up_to_thirty_seconds(stopped_page: Page, chance: str) -> None:
    delays = delays_of_failed_attempts(stopped_page, chance=chance, attempts=40)
    assert delays == sorted(delays)
    assert delays[0] < delays[1] < delays[2]
    assert delays[0] <= 2000
    assert delays[0] >= 250
    assert delays[-1] <= LONGEST_DELAY_MS
    if chance == '0.999999':
        assert delays[-1] > LONGEST_DELAY_MS - 1


def test_delays_are_random_from_the_first_one_on(stopped_page: Page) -> None:
    """A thousand browsers that lose one server must not come back to it at the same moment."""
    first_delays = stopped_page.evaluate("""() => {
        const many = [];
        for (let count = 0; count < 1000; count++) {
            many.push(new WS4Redis({uri: 'ws://localhost/ws/chat'}));
        }
        sockets.forEach(socket => socket.open());
        delays.length = 0;
        sockets.slice().forEach(socket => socket.fail());
        many.forEach(ws => ws.close());
        return delays;
    }""")
    assert len(first_delays) == 1000
    assert max(first_delays) <= 2000
    per_tenth_of_a_second: dict[int, int] = {}
    for delay in first_delays:
        tenth = int(delay // 100)
        per_tenth_of_a_second[tenth] = per_tenth_of_a_second.get(tenth, 0) + 1
    assert len(per_tenth_of_a_second) >= 14
    assert max(per_tenth_of_a_second.values()) < 150


FAIL_AND_RETURN_DELAY = """() => {
    sockets[sockets.length - 1].fail();
    return delays[delays.length - 1];
}"""


def open_and_lose(page: Page, *, after_ms: int) -> float:
    """Open the newest socket, lose it after this time, and return the delay that follows."""
    page.evaluate('sockets[sockets.length - 1].open()')
    page.clock.run_for(after_ms)
    delay: float = page.evaluate(FAIL_AND_RETURN_DELAY)
    page.clock.run_for(LONGEST_DELAY_MS)
    return delay


def test_delays_start_again_after_a_connection_that_lasted(stopped_page: Page) -> None:
    stopped_page.evaluate('() => { Math.random = () => 0.5; }')
    stopped_page.evaluate('() => { window.ws = new WS4Redis(options("ws://localhost/")); }')
    for _attempt in range(5):
        stopped_page.evaluate('sockets[sockets.length - 1].fail()')
        stopped_page.clock.run_for(LONGEST_DELAY_MS)
    assert open_and_lose(stopped_page, after_ms=60_000) < 2000


def test_delays_start_again_when_the_user_comes_back_to_the_page(stopped_page: Page) -> None:
    stopped_page.evaluate('() => { Math.random = () => 0.5; }')
    stopped_page.evaluate('() => { window.ws = new WS4Redis(options("ws://localhost/")); }')
    for _attempt in range(5):
        stopped_page.evaluate(FAIL_AND_RETURN_DELAY)
        stopped_page.clock.run_for(LONGEST_DELAY_MS)
    stopped_page.evaluate(
        '["pagehide", "pageshow"].forEach(name => dispatchEvent(new Event(name)))'
    )
    assert stopped_page.evaluate(FAIL_AND_RETURN_DELAY) < 2000


def test_delays_grow_after_a_connection_that_lasted_as_well(stopped_page: Page) -> None:
    stopped_page.evaluate('() => { Math.random = () => 0.5; }')
    stopped_page.evaluate('() => { window.ws = new WS4Redis(options("ws://localhost/")); }')
    delays = [open_and_lose(stopped_page, after_ms=60_000)]
    for _attempt in range(4):
        delays.append(stopped_page.evaluate(FAIL_AND_RETURN_DELAY))
        stopped_page.clock.run_for(LONGEST_DELAY_MS)
    assert delays == sorted(delays)
    assert delays[-1] > 15_000


def test_a_server_that_closes_each_websocket_at_once_is_not_hammered(stopped_page: Page) -> None:
    stopped_page.evaluate('() => { Math.random = () => 0.5; }')
    stopped_page.evaluate('() => { window.ws = new WS4Redis(options("ws://localhost/")); }')
    delays = [open_and_lose(stopped_page, after_ms=100) for _attempt in range(6)]
    assert delays == sorted(delays)
    assert delays[-1] > 15_000


def test_a_handshake_that_nobody_answers_is_given_up(stopped_page: Page) -> None:
    stopped_page.evaluate('() => { window.ws = new WS4Redis(options("ws://localhost/")); }')
    stopped_page.clock.run_for(29_000)
    assert stopped_page.evaluate('[sockets.length, calls.length]') == [1, 1]
    stopped_page.clock.run_for(1_000 + 2_000)
    assert stopped_page.evaluate('sockets[0].close_calls') == 1
    assert stopped_page.evaluate('calls') == [
        ['connecting'],
        ['disconnected', 'close', 1006, False],
        ['connecting'],
    ]
    assert stopped_page.evaluate('sockets.length') == 2


def test_an_exception_of_the_browser_does_not_end_the_reconnecting(stopped_page: Page) -> None:
    errors: list[str] = []
    stopped_page.on('pageerror', lambda error: errors.append(error.message))
    stopped_page.evaluate("""() => {
        window.ws = new WS4Redis(options('ws://localhost/'));
        window.usable = window.WebSocket;
        window.WebSocket = function () { throw new Error('not now'); };
        sockets[0].fail();
    }""")
    stopped_page.clock.run_for(2_000)
    assert stopped_page.evaluate('calls[calls.length - 1]') == [
        'disconnected',
        'close',
        1006,
        False,
    ]
    stopped_page.evaluate('() => { window.WebSocket = usable; }')
    stopped_page.clock.run_for(LONGEST_DELAY_MS)
    assert stopped_page.evaluate('sockets.length') == 2
    assert errors[0] == 'not now'


def test_a_network_that_is_back_cuts_a_long_delay_short(stopped_page: Page) -> None:
    stopped_page.evaluate("""() => {
        Math.random = () => 0.999999;
        window.ws = new WS4Redis(options('ws://localhost/'));
    }""")
    for _attempt in range(6):
        stopped_page.evaluate('sockets[sockets.length - 1].fail()')
        stopped_page.clock.run_for(LONGEST_DELAY_MS)
    stopped_page.evaluate('sockets[sockets.length - 1].fail()')
    attempts = stopped_page.evaluate('sockets.length')
    stopped_page.evaluate('dispatchEvent(new Event("online"))')
    stopped_page.clock.run_for(2_000)
    assert stopped_page.evaluate('sockets.length') == attempts + 1
    # Connecting or connected, it is none of its business.
    stopped_page.evaluate('dispatchEvent(new Event("online"))')
    stopped_page.clock.run_for(2_000)
    assert stopped_page.evaluate('sockets.length') == attempts + 1


@pytest.mark.parametrize('subprotocol', [None, 'centrifuge-json'])
@pytest.mark.parametrize('code', [3500, 3503, 3999, 4500, 4501, 4999])
def test_it_stays_away_after_a_code_that_says_so_and_tells_why(
    page: Page, code: int, subprotocol: str | None
) -> None:
    page.clock.install()
    with ScriptedServer(subprotocol=subprotocol) as server:
        close_with(page, server, code)
        assert page.evaluate('why') == [code, 'because', True]
        page.clock.run_for(10 * LONGEST_DELAY_MS)
        assert page.evaluate('ws.is_closed()')
        assert page.evaluate("calls.filter(call => call[0] === 'connecting').length") == 1
        assert not server.has_new_connection()


@pytest.mark.parametrize('subprotocol', [None, 'centrifuge-json'])
@pytest.mark.parametrize('code', [1000, 1001, 1008, 1011, 1013, 3005, 3010, 3499, 4000, 4001, 4499])
def test_it_comes_back_after_any_other_code(page: Page, code: int, subprotocol: str | None) -> None:
    page.clock.install()
    with ScriptedServer(subprotocol=subprotocol) as server:
        close_with(page, server, code)
        assert page.evaluate('why') == [code, 'because', True]
        page.clock.run_for(LONGEST_DELAY_MS)
        server.next_connection()


def close_with(page: Page, server: ScriptedServer, code: int) -> None:
    """Connect a page, close its websocket, and wait until it was told."""
    page.evaluate(
        """uri => { window.ws = new WS4Redis(options(uri, {disconnected: function (event) {
            window.why = [event.code, event.reason, event.wasClean];
        }})); }""",
        server.uri,
    )
    connection = server.next_connection()
    if server.subprotocol is not None:
        connection.receive()
        connection.send('{"id": 1, "connect": {"client": "x", "ping": 25, "pong": true}}')
    page.wait_for_function('ws.is_connected()')
    connection.close(code, 'because')
    page.wait_for_function('window.why')


def test_it_connects_once_the_server_is_there(
    browser_context: BrowserContext, static_pages: StaticPages, server: ScriptedServer
) -> None:
    """The first attempt fails as well as any other."""
    server.stop()
    page = browser_context.new_page()
    page.clock.install()
    page.goto(static_pages.url)
    page.clock.pause_at(page.evaluate('Date.now()') + 1000)
    page.evaluate('uri => { window.ws = new WS4Redis(options(uri)); }', server.uri)
    for failed in range(1, 4):
        page.wait_for_function(
            'failed => calls.filter(call => call[0] === "disconnected").length === failed',
            arg=failed,
        )
        if failed == 3:
            server.start()
        page.clock.run_for(LONGEST_DELAY_MS)
    server.next_connection()
    page.wait_for_function('ws.is_connected()')
    assert page.evaluate('calls.map(call => call[0])') == [
        *(['connecting', 'disconnected'] * 3),
        'connecting',
        'connected',
    ]


def test_it_survives_a_restart_of_the_server_in_real_time(
    page: Page, server: ScriptedServer
) -> None:
    page.evaluate('uri => { window.ws = new WS4Redis(options(uri)); }', server.uri)
    server.next_connection()
    page.wait_for_function('ws.is_connected()')
    server.stop()
    page.wait_for_function('ws.is_closed()')
    server.start()
    server.next_connection().send('again')
    page.wait_for_function('calls[calls.length - 1][1] === "again"')
