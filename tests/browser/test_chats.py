"""The three chats of the example in Chromium, under uWSGI and with Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from tests.browser.chat_page import PLAIN_WEBSOCKETS, ChatPage, NewContext
from tests.browser.example_server import ExampleServer
from tests.programs import RedisServer
from tests.timeouts import SOON_SECONDS, scaled, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, WebSocket

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# The longest delay before the first reconnection is 2 seconds, and that doubles at each attempt.
RECONNECTION_MS = scaled(40) * 1000


def open_chat(context: BrowserContext, example: ExampleServer, path: str) -> ChatPage:
    return ChatPage(context.new_page(), example.url + path).open()


# Audiences


def test_two_guests_chat_with_each_other(new_context: NewContext, example: ExampleServer) -> None:
    ann = open_chat(new_context(), example, '/chat/')
    bob = open_chat(new_context(), example, '/chat/')
    ann.page.fill('#guest_name', 'Ann')
    ann.write('Is anybody here?')
    bob.wait_for_text('Is anybody here?')
    bob.write('I am')
    ann.wait_for_text('I am')
    assert ann.texts() == bob.texts() == ['Is anybody here?', 'I am']
    assert ann.own_texts() == ['Is anybody here?']
    assert bob.own_texts() == ['I am']
    assert bob.senders()[0] == 'Ann'
    assert bob.senders()[1].startswith('Guest ')


def test_a_guest_keeps_the_chosen_name(new_context: NewContext, example: ExampleServer) -> None:
    chat = open_chat(new_context(), example, '/chat/')
    chat.page.fill('#guest_name', 'Ann')
    chat.page.press('#guest_name', 'Tab')
    assert chat.open().page.input_value('#guest_name') == 'Ann'


def test_users_log_in_through_the_admin_and_chat_one_to_one(
    new_context: NewContext, example: ExampleServer
) -> None:
    john, mary, admin = (
        open_chat(new_context(name, path='/admin/login/?next=/'), example, '/userchat/')
        for name in ('john', 'mary', 'admin')
    )
    john.choose('mary')
    john.write('Psst')
    mary.wait_for_text('Psst')
    mary.choose('john')
    mary.write('What is it?')
    john.wait_for_text('What is it?')
    admin.choose('john')
    admin.write('Back to work')
    john.wait_for_text('Back to work')
    assert john.texts() == ['Psst', 'What is it?', 'Back to work']
    assert john.own_texts() == ['Psst']
    assert mary.texts() == ['Psst', 'What is it?']
    assert admin.texts() == ['Back to work']


def test_a_user_reads_along_in_all_windows(new_context: NewContext, example: ExampleServer) -> None:
    context = new_context('john')
    one, other = (open_chat(context, example, '/userchat/') for _window in range(2))
    one.choose('mary')
    one.write('Psst')
    other.wait_for_text('Psst')
    assert other.own_texts() == ['Psst']


def test_members_of_a_group_chat_and_others_do_not_hear_it(
    new_context: NewContext, example: ExampleServer, redis_client: redis.Redis
) -> None:
    john, mary, admin = (
        open_chat(new_context(name), example, '/groupchat/') for name in ('john', 'mary', 'admin')
    )
    john.write('Lunch?')
    mary.wait_for_text('Lunch?')
    john.wait_for_text('Lunch?')
    assert admin.page.is_disabled('#send_message')
    # The last chance for the message to arrive: one that is sent later.
    everyone = open_chat(admin.page.context, example, '/chat/')
    redis_client.publish('broadcast:foobar', 'later')
    everyone.wait_for_text('later')
    assert admin.texts() == []


def test_what_redis_cli_publishes_is_seen_in_both_browsers(
    new_context: NewContext, example: ExampleServer, redis_client: redis.Redis
) -> None:
    chats = [open_chat(new_context(), example, '/chat/') for _browser in range(2)]
    assert redis_client.publish('broadcast:foobar', 'Hello from the terminal') == 1
    redis_client.publish('broadcast:foobar', '{"no": "chat message"}')
    redis_client.publish('broadcast:foobar', b'\xff\xfe')
    for chat in chats:
        chat.wait_for_text('A binary message of 2 bytes')
        assert chat.texts()[:2] == ['Hello from the terminal', '{"no": "chat message"}']
        assert chat.senders()[0] == 'redis'


# Messages


def test_messages_are_text_and_never_html(
    new_context: NewContext, example: ExampleServer, redis_client: redis.Redis
) -> None:
    attack = '<img src=x onerror=alert(1)><script>alert(2)</script>'
    chat = open_chat(new_context(), example, '/chat/')
    chat.page.fill('#guest_name', '<b>Ann</b>')
    chat.write(attack)
    chat.wait_for_text(attack)
    redis_client.publish('broadcast:foobar', f'{attack}!')
    chat.wait_for_text(f'{attack}!')
    assert chat.senders()[0] == '<b>Ann</b>'
    # Rendered by the server this time, since Redis keeps it.
    later = open_chat(new_context(), example, '/chat/')
    later.wait_for_text(attack)
    for page in (chat.page, later.page):
        assert page.locator('#message-list').locator('img, script, b b').count() == 0


def test_the_kept_message_is_shown_once_also_after_a_reconnection(
    new_context: NewContext, example: ExampleServer
) -> None:
    ann = open_chat(new_context(), example, '/chat/')
    ann.write('Kept')
    ann.wait_for_text('Kept')
    late = open_chat(new_context(), example, '/chat/')
    late.wait_for_text('Kept')
    ann.write('And another')
    late.wait_for_text('And another')
    assert late.texts() == ['Kept', 'And another']


def test_everything_works_without_javascript_except_news(
    new_context: NewContext, example: ExampleServer
) -> None:
    reader = open_chat(new_context(), example, '/chat/')
    page = new_context(java_script_enabled=False).new_page()
    page.goto(f'{example.url}/chat/')
    page.fill('#guest_name', 'Lynx')
    page.fill('#text_message', 'Plain HTML')
    page.click('#send_message')
    reader.wait_for_text('Plain HTML')
    page.wait_for_selector('#message-list .text')
    assert page.text_content('#message-list .text') == 'Plain HTML'
    assert 'only with JavaScript' in page.inner_text('#messages')


def test_a_user_who_was_logged_out_meanwhile_is_told(
    new_context: NewContext, example: ExampleServer
) -> None:
    context = new_context('john')
    chat = open_chat(context, example, '/userchat/')
    context.clear_cookies(name='sessionid')
    chat.choose('mary')
    chat.write('Psst')
    chat.wait_for_error('Please log in')
    assert chat.page.input_value('#text_message') == 'Psst'


# Faults


def test_chats_reconnect_after_the_server_was_killed(
    new_context: NewContext, example: ExampleServer
) -> None:
    ann, bob = (open_chat(new_context(), example, '/chat/') for _browser in range(2))
    example.kill()
    for chat in (ann, bob):
        chat.wait_until_not_connected()
    ann.write('Nobody hears this')
    ann.wait_for_error('was not sent')
    assert ann.page.input_value('#text_message') == 'Nobody hears this'
    example.start()
    for chat in (ann, bob):
        chat.wait_for_state('connected', timeout_ms=RECONNECTION_MS)
    # What the error said is not true any more.
    wait_until(lambda: ann.page.inner_text('#error') == '')
    ann.write('Hello again')
    bob.wait_for_text('Hello again')
    bob.write('Hello Ann')
    ann.wait_for_text('Hello Ann')


def test_a_stopped_server_takes_its_leave_and_chats_come_back(
    new_context: NewContext, example: ExampleServer
) -> None:
    chat = open_chat(new_context(), example, '/chat/')
    example.stop()
    chat.wait_for_state('closed')
    example.start()
    chat.wait_for_state('connected', timeout_ms=RECONNECTION_MS)
    chat.write('Hello again')
    chat.wait_for_text('Hello again')


def test_missed_heartbeats_end_the_connection_and_it_comes_back(
    new_context: NewContext, example: ExampleServer
) -> None:
    """A stopped process keeps its sockets open: only heartbeats tell that it is not there."""
    page = new_context().new_page()
    page.add_init_script(PLAIN_WEBSOCKETS)
    page.clock.install()
    chat = ChatPage(page, f'{example.url}/chat/').open()
    page.clock.pause_at(page.evaluate('Date.now()') + 1000)
    example.pause()
    try:
        page.clock.run_for(15_000)
        assert page.get_attribute('#connection', 'data-state') == 'connected'
        page.clock.run_for(10_500)
        chat.wait_until_not_connected()
    finally:
        example.resume()

    def is_connected() -> bool:
        state = page.get_attribute('#connection', 'data-state')
        if state == 'closed':
            # By the page's clock the next attempt comes at once.
            page.clock.run_for(2_000)
        return state == 'connected'

    wait_until(is_connected, message='the chat did not reconnect')
    chat.write('Hello again')
    chat.wait_for_text('Hello again')


def test_heartbeats_keep_a_silent_chat_connected_and_are_never_shown(
    new_context: NewContext, example: ExampleServer
) -> None:
    page = new_context().new_page()
    # The client protocol has pings of its own.
    page.add_init_script(PLAIN_WEBSOCKETS)
    sent: list[str | bytes] = []
    received: list[str | bytes] = []

    def watch(websocket: WebSocket) -> None:
        websocket.on('framesent', lambda payload: sent.append(payload))
        websocket.on('framereceived', lambda payload: received.append(payload))

    page.on('websocket', watch)
    chat = ChatPage(page, f'{example.url}/chat/').open()
    other = open_chat(new_context(), example, '/chat/')

    def has_beaten_twice() -> bool:
        # Playwright's events come while one of its methods waits.
        page.wait_for_timeout(50)
        return len(sent) >= 2 and '--heartbeat--' in received

    wait_until(has_beaten_twice, timeout=SOON_SECONDS * 2, message='no heartbeat')
    assert set(sent) == {'--heartbeat--'}
    assert page.get_attribute('#connection', 'data-state') == 'connected'
    assert chat.texts() == other.texts() == []


def test_while_redis_is_away_the_sender_is_told(
    new_context: NewContext, example: ExampleServer, redis_server: RedisServer
) -> None:
    chat = open_chat(new_context('john'), example, '/userchat/')
    chat.choose('mary')
    redis_server.stop()
    try:
        chat.write('Psst')
        chat.wait_for_error('Redis cannot be reached')
    finally:
        redis_server.start()
    assert chat.page.input_value('#text_message') == 'Psst'


# The client library against the real server

MAKE_CLIENT = """([new_, jquery]) => {
    const make = new Function('options', 'jQuery',
        'return ' + new_ + 'WS4Redis(options' + (jquery ? ', jQuery' : '') + ');');
    window.seen = [];
    window.client = make({
        uri: document.getElementById('content').dataset.websocketUri,
        heartbeat_msg: '--heartbeat--',
        connected: function () { seen.push('connected'); },
        receive_message: function (data) { seen.push(data); },
        disconnected: function (event) { seen.push('disconnected ' + event.code); }
    }, window.jQuery);
}"""


@pytest.mark.parametrize('jquery', [True, False])
@pytest.mark.parametrize('new', ['new ', ''])
def test_the_client_works_with_and_without_jquery(
    new_context: NewContext,
    example: ExampleServer,
    redis_client: redis.Redis,
    new: str,
    *,
    jquery: bool,
) -> None:
    # `new Function` is forbidden by the policy of the chats; the client needs nothing of the kind.
    page = new_context(bypass_csp=True).new_page()
    page.goto(f'{example.url}/chat/')
    if jquery:
        page.add_script_tag(url='/static/admin/js/vendor/jquery/jquery.min.js')
    assert page.evaluate('typeof window.jQuery') == ('function' if jquery else 'undefined')
    page.evaluate(MAKE_CLIENT, [new, jquery])
    page.wait_for_function('client.is_connected()')
    redis_client.publish('broadcast:foobar', 'down')
    page.wait_for_function('seen.includes("down")')
    page.evaluate('client.send_message("up")')
    page.wait_for_function('seen.includes("up")')
    page.evaluate('client.close()')
    wait_until(lambda: page.evaluate('client.is_closed()'))
    assert page.evaluate('seen') == ['connected', 'down', 'up', 'disconnected 1000']


def test_a_closed_client_stays_closed_and_the_server_forgets_it(
    new_context: NewContext, example: ExampleServer, redis_client: redis.Redis
) -> None:
    page = new_context().new_page()
    page.clock.install()
    page.goto(f'{example.url}/login/')
    page.add_script_tag(url='/static/js/ws4redis.js')
    uri = f'{example.ws_url}/ws/of-its-own?subscribe-broadcast'
    page.evaluate('uri => { window.client = new WS4Redis({uri: uri}); }', uri)
    # Not by the page itself: what polls there is a string, which the page's policy forbids to run.
    wait_until(lambda: page.evaluate('client.is_connected()'))
    assert redis_client.pubsub_channels('*of-its-own') == [b'broadcast:of-its-own']
    page.evaluate('client.close()')
    wait_until(lambda: page.evaluate('client.is_closed()'))
    wait_until(lambda: redis_client.pubsub_channels('*of-its-own') == [])
    page.clock.run_for(120_000)
    assert page.evaluate('client.is_closed()')
    assert redis_client.pubsub_channels('*of-its-own') == []
