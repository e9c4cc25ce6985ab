"""What ``ws4redis.js`` does with one websocket, and after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.scripted_server import ScriptedServer
from tests.browser.static_pages import StaticPages

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser


def connect(page: Page, server: ScriptedServer, more: str = '{}') -> Any:
    """Make `ws` on the page, wait until it is open, and return the server's end of it."""
    page.evaluate(f'uri => {{ window.ws = new WS4Redis(options(uri, {more})); }}', server.uri)
    connection = server.next_connection()
    page.wait_for_function('ws.is_connected() && calls.some(call => call[0] === "connected")')
    return connection


def wait_for_call(page: Page, name: str, *, times: int = 1) -> None:
    page.wait_for_function(
        '([name, times]) => calls.filter(call => call[0] === name).length >= times',
        arg=[name, times],
    )


def calls(page: Page) -> list[list[Any]]:
    result: list[list[Any]] = page.evaluate('calls')
    return result


# Options


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ('', 'uri is required'),
        ('null', 'uri is required'),
        ('"ws://localhost/"', 'uri is required'),
        ('{}', 'uri is required'),
        ('{uri: ""}', 'uri is required'),
        ('{uri: 7}', 'uri must be a string'),
        (
            '{uri: "ws://localhost/", receive_message: "alert"}',
            'receive_message must be a function',
        ),
        ('{uri: "ws://localhost/", disconnected: {}}', 'disconnected must be a function'),
        ('{uri: "ws://localhost/", heartbeat_msg: 5}', 'heartbeat_msg must be a string or null'),
    ],
)
def test_a_wrong_option_is_an_error_that_names_it(page: Page, arguments: str, message: str) -> None:
    error = page.evaluate(
        f'() => {{ try {{ new WS4Redis({arguments}); }} catch (error) {{'
        ' return [error instanceof Error, error.message]; } }'
    )
    assert error == [True, f'WS4Redis: option {message}']


def test_a_malformed_uri_is_an_error_at_once_and_leaves_nothing_behind(page: Page) -> None:
    name = page.evaluate("""() => {
        window.timers = 0;
        window.setTimeout = function () { window.timers += 1; };
        try { new WS4Redis(options('ws://host:port/')); } catch (error) { return error.name; }
    }""")
    assert name == 'SyntaxError'
    assert page.evaluate('timers') == 0
    assert calls(page) == []


def test_an_unknown_option_is_only_a_warning(page: Page, server: ScriptedServer) -> None:
    with page.expect_console_message() as message:
        connect(page, server, '{recieve_message: function () {}}')
    assert message.value.type == 'warning'
    assert message.value.text == 'WS4Redis: there is no option recieve_message'


def test_an_url_object_is_an_uri(page: Page, server: ScriptedServer) -> None:
    page.evaluate('uri => { window.ws = new WS4Redis({uri: new URL(uri)}); }', server.uri)
    assert server.next_connection().request_path == '/ws/chat?subscribe-broadcast'


@pytest.mark.parametrize(
    ('origin', 'uri', 'expected'),
    [
        (
            'http://shop.example',
            '/ws/a?subscribe-broadcast',
            'ws://shop.example/ws/a?subscribe-broadcast',
        ),
        ('https://shop.example', '/ws/a', 'wss://shop.example/ws/a'),
        ('https://shop.example:8443', '/ws/a', 'wss://shop.example:8443/ws/a'),
        ('https://shop.example', '//push.example/ws/a', 'wss://push.example/ws/a'),
        ('https://shop.example', 'https://push.example/ws/a', 'wss://push.example/ws/a'),
        ('http://shop.example', 'wss://push.example/ws/a', 'wss://push.example/ws/a'),
    ],
)
def test_an_address_without_a_host_is_that_of_the_page(
    browser_context: BrowserContext, static_pages: StaticPages, origin: str, uri: str, expected: str
) -> None:
    page = browser_context.new_page()
    page.route(
        f'{origin}/**',
        lambda route: route.fulfill(
            response=route.fetch(
                url=static_pages.url + route.request.url.removeprefix(f'{origin}/')
            )
        ),
    )
    page.goto(f'{origin}/')
    # A browser that resolves nothing itself, as they did before 2024.
    opened = page.evaluate(
        """uri => {
            const opened = [];
            window.WebSocket = function (uri) { opened.push(uri); };
            WS4Redis({uri: uri});
            return opened;
        }""",
        uri,
    )
    assert opened == [expected]


def test_callbacks_may_be_left_out(page: Page, server: ScriptedServer) -> None:
    page.evaluate('uri => { window.ws = new WS4Redis({uri: uri}); }', server.uri)
    connection = server.next_connection()
    connection.send('nobody listens')
    page.wait_for_function('ws.is_connected()')
    page.evaluate('ws.close()')
    assert connection.wait_for_end() == 1000
    page.wait_for_function('ws.is_closed()')


@pytest.mark.parametrize('path', ['', 'jquery/'])
@pytest.mark.parametrize('new', ['new ', ''])
def test_it_works_with_or_without_new_and_jquery(
    browser_context: BrowserContext,
    static_pages: StaticPages,
    server: ScriptedServer,
    path: str,
    new: str,
) -> None:
    page = browser_context.new_page()
    page.goto(static_pages.url + path)
    argument = ', jQuery' if path else ''
    page.evaluate(
        f'uri => {{ window.ws = {new}WS4Redis(options(uri){argument}); }}',
        server.uri,
    )
    connection = server.next_connection()
    wait_for_call(page, 'connected')
    assert page.evaluate('ws instanceof WS4Redis')
    assert page.evaluate('typeof jQuery') == ('function' if path else 'undefined')
    page.evaluate('ws.send_message("up")')
    assert connection.receive() == 'up'


def test_code_written_for_jquery_works(
    browser_context: BrowserContext, static_pages: StaticPages, server: ScriptedServer
) -> None:
    page = browser_context.new_page()
    page.goto(static_pages.url + 'jquery/')
    page.evaluate(
        """uri => jQuery(document).ready(function ($) {
            var defaults = {heartbeat_msg: null, connected: on_connected};
            window.ws = WS4Redis($.extend(defaults, {
                uri: uri,
                receive_message: $.proxy(on_message, {prefix: 'got '}),
            }), $);
            function on_connected() { ws.send_message('ready'); }
            function on_message(text) { $('p').text(this.prefix + text); }
        })""",
        server.uri,
    )
    connection = server.next_connection()
    assert connection.receive() == 'ready'
    connection.send('<b>it</b>')
    page.get_by_text('got <b>it</b>', exact=True).wait_for()


# States


def test_the_states_follow_the_websocket(page: Page, server: ScriptedServer) -> None:
    states = """({
        state: ws.get_state(),
        is: ['connecting', 'connected', 'closing', 'closed'].filter(name => ws['is_' + name]())
    })"""
    assert page.evaluate(
        f'uri => {{ window.ws = new WS4Redis(options(uri)); return {states}; }}', server.uri
    ) == {
        'state': 0,
        'is': ['connecting'],
    }
    server.next_connection()
    wait_for_call(page, 'connected')
    assert page.evaluate(states) == {'state': 1, 'is': ['connected']}
    assert page.evaluate(f'() => {{ ws.close(); return {states}; }}') == {
        'state': 2,
        'is': ['closing'],
    }
    wait_for_call(page, 'disconnected')
    assert page.evaluate(states) == {'state': 3, 'is': ['closed']}


def test_callbacks_are_called_in_order(page: Page, server: ScriptedServer) -> None:
    connection = connect(page, server)
    connection.send('one')
    connection.send('two')
    wait_for_call(page, 'receive_message', times=2)
    connection.close(1012, 'reload')
    wait_for_call(page, 'disconnected')
    server.next_connection()
    wait_for_call(page, 'connected', times=2)
    assert calls(page) == [
        ['connecting'],
        ['connected'],
        ['receive_message', 'one'],
        ['receive_message', 'two'],
        ['disconnected', 'close', 1012, True],
        ['connecting'],
        ['connected'],
    ]


def test_the_websocket_is_connecting_when_connecting_is_called(
    page: Page, server: ScriptedServer
) -> None:
    page.evaluate(
        """uri => {
            window.seen = [];
            window.ws = new WS4Redis(options(uri, {
                connecting: function () { if (window.ws) { seen.push(ws.get_state()); } },
                disconnected: function () { seen.push(ws.get_state()); }
            }));
        }""",
        server.uri,
    )
    server.next_connection().drop()
    server.next_connection()
    page.wait_for_function('ws.is_connected()')
    assert page.evaluate('seen') == [3, 0]


def test_callbacks_are_methods_of_the_options(page: Page, server: ScriptedServer) -> None:
    page.evaluate(
        """uri => { window.ws = new WS4Redis({
            uri: uri,
            connected: function () { this.greet(); },
            get greet() { return function () { ws.send_message('from ' + this.uri); }; }
        }); }""",
        server.uri,
    )
    assert server.next_connection().receive() == f'from {server.uri}'


# Messages


@pytest.mark.parametrize('text', ['plain', 'ünïcödé ☃ 😀', '{"json": true}', 'x' * 100_000, ''])
def test_text_goes_up_and_down_unchanged(page: Page, server: ScriptedServer, text: str) -> None:
    connection = connect(page, server)
    page.evaluate('text => ws.send_message(text)', text)
    assert connection.receive() == text
    connection.send(text)
    wait_for_call(page, 'receive_message')
    assert calls(page)[-1] == ['receive_message', text]


def test_binary_goes_up_and_down_unchanged(page: Page, server: ScriptedServer) -> None:
    payload = bytes(range(256))
    connection = connect(
        page,
        server,
        '{receive_message: async data => { calls.push(["receive_message",'
        ' data.constructor.name, Array.from(new Uint8Array(await data.arrayBuffer()))]); }}',
    )
    page.evaluate('values => ws.send_message(new Uint8Array(values))', list(payload))
    assert connection.receive() == payload
    connection.send(payload)
    wait_for_call(page, 'receive_message')
    assert calls(page)[-1] == ['receive_message', 'Blob', list(payload)]


def test_sending_works_when_the_method_is_passed_around(page: Page, server: ScriptedServer) -> None:
    connection = connect(page, server)
    page.evaluate('["one", "two"].forEach(text => (0, ws.send_message)(text))')
    assert [connection.receive(), connection.receive()] == ['one', 'two']


def send_error(page: Page) -> list[str]:
    error: list[str] = page.evaluate("""() => {
        try { ws.send_message('lost?'); } catch (error) { return [error.name, error.message]; }
    }""")
    return error


def test_sending_while_not_connected_is_an_error(page: Page, server: ScriptedServer) -> None:
    errors = page.evaluate(
        """uri => {
            var errors = [];
            function attempt() {
                try { ws.send_message('lost?'); } catch (error) { errors.push(error.message); }
            }
            window.ws = new WS4Redis(options(uri));
            attempt();
            ws.close();
            attempt();
            return errors;
        }""",
        server.uri,
    )
    assert errors == [
        'WS4Redis: not sent, the websocket is connecting',
        'WS4Redis: not sent, the websocket is closing',
    ]
    wait_for_call(page, 'disconnected')
    assert send_error(page) == ['InvalidStateError', 'WS4Redis: not sent, the websocket is closed']


def test_sending_during_the_delay_before_a_reconnection_is_an_error(
    page: Page, server: ScriptedServer
) -> None:
    page.clock.install()
    connection = connect(page, server)
    page.clock.pause_at(page.evaluate('Date.now()') + 1000)
    connection.drop()
    wait_for_call(page, 'disconnected')
    assert page.evaluate('ws.is_closed()')
    assert send_error(page) == ['InvalidStateError', 'WS4Redis: not sent, the websocket is closed']


# Exceptions in callbacks


def test_exceptions_in_callbacks_are_reported_and_change_nothing(
    page: Page, server: ScriptedServer
) -> None:
    errors: list[str] = []
    page.on('pageerror', lambda error: errors.append(error.message))
    page.evaluate(
        """uri => {
            function failing(name) {
                return function () { calls.push([name]); throw new Error(name + ' failed'); };
            }
            var callbacks = {};
            ['connecting', 'connected', 'receive_message', 'disconnected'].forEach(name => {
                callbacks[name] = failing(name);
            });
            window.ws = new WS4Redis(options(uri, callbacks));
        }""",
        server.uri,
    )
    connection = server.next_connection()
    connection.send('one')
    connection.send('two')
    wait_for_call(page, 'receive_message', times=2)
    connection.drop()
    server.next_connection().send('three')
    wait_for_call(page, 'receive_message', times=3)
    names = [call[0] for call in calls(page)]
    assert names == [
        'connecting', 'connected', 'receive_message', 'receive_message', 'disconnected',
        'connecting', 'connected', 'receive_message',
    ]  # fmt: skip
    assert errors == [f'{name} failed' for name in names]


# Closing


def test_after_close_it_does_not_reconnect(page: Page, server: ScriptedServer) -> None:
    page.clock.install()
    connection = connect(page, server)
    page.evaluate('ws.close()')
    assert connection.wait_for_end() == 1000
    wait_for_call(page, 'disconnected')
    page.clock.run_for(120_000)
    assert not server.has_new_connection()
    assert [call[0] for call in calls(page)] == ['connecting', 'connected', 'disconnected']


def test_close_may_be_called_again_and_again(page: Page, server: ScriptedServer) -> None:
    connection = connect(page, server)
    page.evaluate('() => { ws.close(); ws.close(); }')
    assert connection.wait_for_end() == 1000
    wait_for_call(page, 'disconnected')
    page.evaluate('() => { ws.close(); ws.close(); }')
    assert page.evaluate('ws.is_closed()')
    assert [call[0] for call in calls(page)].count('disconnected') == 1


def test_close_before_the_first_connection_is_open_ends_it(
    page: Page, server: ScriptedServer
) -> None:
    page.clock.install()
    page.evaluate('uri => { window.ws = new WS4Redis(options(uri)); ws.close(); }', server.uri)
    wait_for_call(page, 'disconnected')
    page.clock.run_for(120_000)
    assert page.evaluate('ws.is_closed()')
    assert [call[0] for call in calls(page)] == ['connecting', 'disconnected']


def test_close_during_the_delay_before_a_reconnection_ends_it(
    page: Page, server: ScriptedServer
) -> None:
    page.clock.install()
    connection = connect(page, server)
    page.clock.pause_at(page.evaluate('Date.now()') + 1000)
    connection.drop()
    wait_for_call(page, 'disconnected')
    page.evaluate('ws.close()')
    page.clock.run_for(120_000)
    assert not server.has_new_connection()
    assert [call[0] for call in calls(page)] == ['connecting', 'connected', 'disconnected']


@pytest.mark.parametrize('callback', ['connecting', 'connected', 'disconnected'])
def test_close_works_inside_a_callback(page: Page, server: ScriptedServer, callback: str) -> None:
    page.clock.install()
    page.evaluate(
        """([uri, name]) => {
            var attempts = 0;
            window.ws = new WS4Redis(options(uri, {[name]: function () {
                calls.push([name]);
                attempts += 1;
                // The first call of `connecting` comes before there is a `ws`.
                if (attempts === 2) { ws.close(); }
            }}));
        }""",
        [server.uri, callback],
    )
    first = server.next_connection()
    page.wait_for_function('ws.is_connected()')
    page.clock.pause_at(page.evaluate('Date.now()') + 1000)
    first.drop()
    wait_for_call(page, 'disconnected')
    page.clock.run_for(2_000)
    if callback == 'disconnected':
        second = server.next_connection()
        page.wait_for_function('ws.is_connected()')
        second.drop()
    wait_for_call(page, 'disconnected', times=2)
    page.clock.run_for(120_000)
    assert page.evaluate('ws.is_closed()')
    names = [call[0] for call in calls(page)]
    assert names.count('connecting') == 2
    assert names.count('disconnected') == 2


def test_no_timer_and_no_event_listener_is_left_after_close(
    browser_context: BrowserContext, static_pages: StaticPages, server: ScriptedServer
) -> None:
    page = browser_context.new_page()
    page.add_init_script("""
        window.active = new Set();
        const set = window.setTimeout, clear = window.clearTimeout;
        window.setTimeout = function (callback, delay) {
            const id = set(function () { active.delete(id); callback(); }, delay);
            active.add(id);
            return id;
        };
        window.setInterval = function () { throw new Error('not counted here'); };
        window.clearTimeout = function (id) { active.delete(id); clear(id); };
        window.listeners = [];
        const add = window.addEventListener, remove = window.removeEventListener;
        window.addEventListener = function (name) {
            // Playwright has its own listeners for other events.
            if (['pagehide', 'pageshow', 'online'].includes(name)) { listeners.push(name); }
            add.apply(window, arguments);
        };
        window.removeEventListener = function (name) {
            window.listeners = listeners.filter(other => other !== name);
            remove.apply(window, arguments);
        };
    """)
    page.goto(static_pages.url)
    page.evaluate(
        'uri => { window.ws = new WS4Redis(options(uri, {heartbeat_msg: "--heartbeat--"})); }',
        server.uri,
    )
    assert page.evaluate('active.size') == 1
    server.next_connection()
    wait_for_call(page, 'connected')
    assert page.evaluate('active.size') == 1
    assert sorted(page.evaluate('listeners')) == ['online', 'pagehide', 'pageshow']
    page.evaluate('ws.close()')
    assert page.evaluate('active.size') == 0
    wait_for_call(page, 'disconnected')
    assert page.evaluate('active.size') == 0
    assert page.evaluate('listeners') == []
