"""``ws4redis-shared.js``: the tabs of a site share one connection where the browser can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from tests.browser.static_pages import StaticPages
from tests.clients.project import SETTINGS
from tests.programs import RedisServer
from tests.serving import Served, served
from tests.timeouts import SOON_SECONDS, wait_until
from ws4redis.applications.wsgi import WebSocketServer
from ws4redis.control import disconnect
from ws4redis.history import get_position
from ws4redis.publisher import RedisPublisher
from ws4redis.servers.process import existing_hub
from ws4redis.tokens import connection_token

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

SHARE = """([port, more, without_workers]) => {
    if (without_workers) {
        window.SharedWorker = undefined;
    }
    window.seen = [];
    const note = name => (...args) => seen.push([name, ...args]);
    window.note = note;
    window.page = WS4Redis.share(Object.assign({
        uri: `ws://127.0.0.1:${port}/connection/websocket`, identity: 'mary',
        connected: note('connected'), disconnected: event => seen.push(['closed', event.code]),
    }, more));
}"""
SUBSCRIBE = """([channel, since]) => {
    window.subscription = page.subscribe(channel, {
        since, received: note('received'), subscribed: note('subscribed'),
        gap: note('gap'), refused: note('refused'),
    });
}"""

Open = Callable[..., 'Page']


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[Served]:
    settings = {**SETTINGS, 'WS4REDIS_ALLOWED_ORIGINS': ['*']}
    with override_settings(**settings), served(WebSocketServer()) as server:
        yield server


@pytest.fixture
def open_tab(browser: Browser, static_pages: StaticPages, server: Served) -> Iterator[Open]:
    """Open another tab of one browser, with a connection that may be shared."""
    with ExitStack() as stack:
        context = browser.new_context()
        stack.callback(context.close)
        context.set_default_timeout(SOON_SECONDS * 1000)

        def open_tab(*, without_workers: bool = False, prepare: str = '', **more: Any) -> Page:
            tab = context.new_page()
            tab.goto(static_pages.url + 'shared/')
            if prepare:
                tab.clock.install()
                tab.evaluate(prepare)
            tab.evaluate(SHARE, [server.port, more, without_workers])
            tab.wait_for_function("seen.some(each => each[0] === 'connected')")
            return tab

        yield open_tab


def wait_for_connections(number: int) -> None:
    hub = existing_hub()
    assert hub is not None
    wait_until(lambda: hub.open_count == number)


def publish(facility: str, *messages: str) -> None:
    publisher = RedisPublisher(facility=facility, broadcast=True)
    for message in messages:
        publisher.publish_message(message)


def subscribe(tab: Page, channel: str, since: str | None = None) -> None:
    tab.evaluate(SUBSCRIBE, [channel, since])
    tab.wait_for_function("seen.some(each => each[0] === 'subscribed')")


def received(tab: Page, count: int) -> Any:
    tab.wait_for_function(
        "count => seen.filter(each => each[0] === 'received').length >= count", arg=count
    )
    return tab.evaluate("seen.filter(each => each[0] === 'received').map(each => each[1])")


def test_two_tabs_share_a_connection_until_the_last_one_closes(open_tab: Open) -> None:
    first, second = open_tab(), open_tab()
    wait_for_connections(1)
    assert first.evaluate('page.is_shared()')
    assert second.evaluate('page.is_shared()')
    subscribe(first, 'chat/1')
    subscribe(second, 'chat/1')
    publish('chat/1', 'for both')
    assert received(first, 1) == received(second, 1) == ['for both']
    first.close()
    publish('chat/1', 'for the rest')
    assert received(second, 2)[1:] == ['for the rest']
    wait_for_connections(1)
    second.evaluate('page.close()')
    second.wait_for_function("seen.some(each => each[0] === 'closed')")
    wait_for_connections(0)


def test_tabs_publish_call_and_are_told_errors_each_for_itself(open_tab: Open) -> None:
    first, second = open_tab(), open_tab()
    subscribe(second, 'chat/1')
    first.evaluate("page.publish('chat/1', {text: 'Hello'})")
    assert received(second, 1) == [{'text': 'Hello'}]
    assert first.evaluate("page.rpc('add', [1, 2])")['sum'] == 3
    error = second.evaluate("page.rpc('poll.vote').catch(error => [error.message, error.code])")
    assert error == ['no such poll', 441]
    first.evaluate(SUBSCRIBE, ['private', None])
    first.wait_for_function("seen.some(each => each[0] === 'refused')")
    assert second.evaluate("seen.some(each => each[0] === 'refused')") is False


def test_a_tab_that_comes_later_gets_what_was_missed_since_its_page_was_made(
    open_tab: Open,
) -> None:
    first = open_tab()
    subscribe(first, 'chat/1')
    publish('chat/1', 'shown on the page')
    since = get_position('chat/1', broadcast=True)
    publish('chat/1', 'one', 'two')
    received(first, 3)
    second = open_tab()
    subscribe(second, 'chat/1', since)
    publish('chat/1', 'three')
    assert received(second, 3) == ['one', 'two', 'three']
    # One without a position begins with the latest message, as any newcomer.
    third = open_tab()
    subscribe(third, 'chat/1')
    publish('chat/1', 'four')
    assert received(third, 2) == ['three', 'four']
    assert received(first, 5)[3:] == ['three', 'four']


def test_a_tab_that_comes_later_is_told_of_a_gap(open_tab: Open) -> None:
    first = open_tab()
    publish('recovery:x', 'long ago')
    since = get_position('recovery:x', broadcast=True)
    subscribe(first, 'recovery:x')
    publish('recovery:x', *map(str, range(20)))
    received(first, 21)
    second = open_tab()
    subscribe(second, 'recovery:x', since)
    second.wait_for_function("seen.some(each => each[0] === 'gap')")
    gap = second.evaluate("seen.find(each => each[0] === 'gap')[1]")
    assert (gap['channel'], gap['offset']) == ('recovery:x', 21)
    assert first.evaluate("seen.some(each => each[0] === 'gap')") is False


def test_who_unsubscribes_takes_nothing_from_the_other_tab(open_tab: Open) -> None:
    first, second = open_tab(), open_tab()
    subscribe(first, 'open')
    subscribe(second, 'open')
    first.evaluate('subscription.unsubscribe()')
    first.evaluate("page.publish('open', 'heard by one')")
    assert received(second, 1) == ['heard by one']
    assert first.evaluate("seen.some(each => each[0] === 'received')") is False


def test_tabs_of_different_users_share_nothing(open_tab: Open) -> None:
    open_tab()
    open_tab(identity='john')
    wait_for_connections(2)


@pytest.mark.parametrize(
    'options',
    [
        {'without_workers': True},
        {'worker': '/missing.js'},
        {'script': '/missing.js'},
    ],
    ids=['no shared workers', 'no worker script', 'no client in the worker'],
)
def test_where_there_is_no_worker_each_tab_has_its_own_connection(
    open_tab: Open, options: dict[str, Any]
) -> None:
    first, second = open_tab(**options), open_tab(**options)
    wait_for_connections(2)
    assert first.evaluate('page.is_shared()') is False
    subscribe(first, 'chat/1')
    subscribe(second, 'chat/1')
    first.evaluate("page.publish('chat/1', 'as ever')")
    assert received(first, 1) == received(second, 1) == ['as ever']
    assert second.evaluate("page.rpc('add', [1, 2])")['sum'] == 3


def test_a_tab_that_is_left_and_come_back_to_goes_on(open_tab: Open) -> None:
    first, second = open_tab(), open_tab()
    subscribe(first, 'chat/1')
    subscribe(second, 'chat/1')
    # As a browser tells a page that it keeps in its back/forward cache.
    first.evaluate("window.dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true}))")
    publish('chat/1', 'unheard')
    received(second, 1)
    first.evaluate("window.dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
    assert received(first, 1) == ['unheard']
    publish('chat/1', 'heard')
    assert received(first, 2) == ['unheard', 'heard']


def test_a_tab_that_is_come_back_to_gets_nothing_twice(open_tab: Open) -> None:
    publish('chat/1', 'shown on the page')
    since = get_position('chat/1', broadcast=True)
    first, second = open_tab(), open_tab()
    subscribe(first, 'chat/1', since)
    subscribe(second, 'chat/1')
    publish('chat/1', 'heard')
    assert received(first, 1) == ['heard']
    first.evaluate("window.dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true}))")
    publish('chat/1', 'unheard')
    first.evaluate("window.dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
    assert received(first, 2) == ['heard', 'unheard']


def kill_worker(tab: Page) -> None:
    browser = tab.context.browser
    assert browser is not None
    session = browser.new_browser_cdp_session()
    targets = session.send('Target.getTargets')['targetInfos']
    (worker,) = (target for target in targets if target['type'] == 'shared_worker')
    session.send('Target.closeTarget', {'targetId': worker['targetId']})
    session.detach()


IS_CUT_OFF = "seen.some(each => each[0] === 'closed' && each[1] === 1006)"
WITHOUT_LOCKS = "Object.defineProperty(navigator, 'locks', {value: undefined});"


@pytest.mark.parametrize('has_locks', [True, False], ids=['locks', 'no locks'])
def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(
    open_tab: Open, has_locks: bool
) -> None:
    prepare = '' if has_locks else WITHOUT_LOCKS
    publish('chat/1', 'shown on the page')
    since = get_position('chat/1', broadcast=True)
    first, second = open_tab(prepare=prepare), open_tab(prepare=prepare)
    subscribe(first, 'chat/1', since)
    subscribe(second, 'chat/1')
    subscribe(first, 'open')
    publish('chat/1', 'before')
    assert received(first, 1) == received(second, 1) == ['before']
    kill_worker(first)
    publish('chat/1', 'meanwhile')
    for tab in (first, second):
        if has_locks:
            tab.wait_for_function(IS_CUT_OFF)
        while not tab.evaluate(IS_CUT_OFF):
            tab.clock.run_for(1000)
        tab.wait_for_function("seen.filter(each => each[0] === 'connected').length === 2")
        assert tab.evaluate('page.is_shared()')
    wait_for_connections(1)
    publish('chat/1', 'after')
    assert received(first, 3) == ['before', 'meanwhile', 'after']
    assert received(second, 3) == ['before', 'meanwhile', 'after']
    first.wait_for_function("seen.filter(each => each[0] === 'subscribed').length === 4")
    first.evaluate("page.publish('open', 'as before')")
    assert received(first, 4)[3:] == ['as before']


def test_what_was_asked_of_a_worker_that_is_killed_fails(open_tab: Open) -> None:
    tab = open_tab()
    tab.evaluate("window.asked = page.rpc('take_long', 1).catch(error => error.message); null")
    kill_worker(tab)
    assert 'closed' in tab.evaluate('asked')
    assert tab.evaluate("page.rpc('add', [1, 2])")['sum'] == 3


HAS_NO_WORKER = """async () => {
    const {held, pending} = await navigator.locks.query();
    return !held.concat(pending).some(lock => lock.name.startsWith('ws4redis-worker-'));
}"""


def test_who_was_told_to_stay_away_does_not_come_back_by_another_worker(open_tab: Open) -> None:
    tab = open_tab(token=connection_token('mary'))
    disconnect(user='mary')
    tab.wait_for_function("seen.some(each => each[0] === 'closed')")
    kill_worker(tab)
    tab.wait_for_function(HAS_NO_WORKER)
    assert 'closed' in tab.evaluate("page.rpc('add', [1, 2]).catch(error => error.message)")
    assert tab.evaluate('seen.map(each => each[0])') == ['connected', 'closed']


def test_an_identity_must_be_named(open_tab: Open) -> None:
    tab = open_tab()
    assert 'identity' in tab.evaluate(
        """() => {
            try { WS4Redis.share({uri: '/ws'}); } catch (error) { return error.message; }
        }"""
    )
