"""The live page in Chromium: with two processes, by mouse and keyboard, in all its looks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from tests.dashboard.snapshots import snapshot, tell
from tests.programs import RedisServer, UwsgiServer, run_management_command
from tests.settings import INSTALLED_APPS, MIDDLEWARE
from tests.timeouts import wait_until
from tests.websocket_client import RawWebSocket
from ws4redis.publisher import RedisPublisher

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SETTINGS = {
    'INSTALLED_APPS': ['django.contrib.admin', *INSTALLED_APPS],
    'MIDDLEWARE': [*MIDDLEWARE, 'tests.dashboard.csp.strict'],
    'ROOT_URLCONF': 'tests.dashboard.urls',
    'WS4REDIS_SNAPSHOT_INTERVAL': 0.3,
    'WS4REDIS_FACILITIES': {'chat/*': {'HISTORY_SIZE': 50}},
}
MAKE_USERS = """
from django.contrib.auth.models import Permission, User
User.objects.create_superuser('admin', password='secret')
viewer = User.objects.create_user('viewer', password='secret', is_staff=True)
viewer.user_permissions.add(Permission.objects.get(codename='view_live'))
User.objects.create_user('stranger', password='secret', is_staff=True)
"""
PATH = '/admin/ws4redis/'
NewPage = Callable[..., 'Page']


@pytest.fixture(scope='module')
def site(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[UwsgiServer]:
    import json

    database = str(tmp_path_factory.mktemp('admin') / 'admin.sqlite3')
    env = {'WS4REDIS_TEST_DATABASE': database}
    of_commands = {**env, 'WS4REDIS_TEST_SETTINGS': json.dumps(SETTINGS)}
    run_management_command('migrate', '--verbosity=0', env=of_commands)
    run_management_command('shell', '--command', MAKE_USERS, env=of_commands)
    with UwsgiServer(redis_server=redis_server, django_settings=SETTINGS, env=env) as server:
        yield server


@pytest.fixture
def open_page(browser: Browser, site: UwsgiServer) -> Iterator[NewPage]:
    """Open the page as a user; a test fails when it throws or breaks its policy."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_it(username: str, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(15_000)
        context.on('weberror', lambda error: complaints.append(str(error.error)))
        context.on(
            'console',
            lambda message: (
                complaints.append(message.text)
                if 'Content Security Policy' in message.text
                else None
            ),
        )
        page = context.new_page()
        page.goto(site.url + PATH)
        page.fill('#id_username', username)
        page.fill('#id_password', 'secret')
        page.click('[type=submit]')
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert complaints == []


@override_settings(WS4REDIS_FACILITIES=SETTINGS['WS4REDIS_FACILITIES'])
def test_it_shows_what_goes_on(open_page: NewPage, site: UwsgiServer, redis_client: Any) -> None:
    page = open_page('admin')
    publisher = RedisPublisher(facility='chat/7', broadcast=True)
    with RawWebSocket(site.ws_url + '/ws/chat/7?subscribe-broadcast') as websocket:
        # The page has one, too.
        page.locator('[data-total=open]', has_text='2').wait_for()
        assert page.locator('[data-rows=processes] tr').count() == 1

        def is_shown() -> bool:
            publisher.publish_message('<b>hello</b>')
            return bool(page.get_by_role('button', name='chat/7').count())

        wait_until(is_shown)
        page.get_by_role('button', name='chat/7').click()
        page.locator('#live-messages li', has_text='<b>hello</b>').first.wait_for()
        tell(redis_client, snapshot(7, open=4711))
        page.locator('[data-total=open]', has_text='4,713').wait_for()

        page.fill('[name=message]', 'a test')
        page.get_by_role('button', name='Send').click()
        page.locator('#live-answer', has_text='Sent to broadcast:chat/7.').wait_for()
        while websocket.receive() != 'a test':
            pass
    page.goto(site.url + '/admin/')
    page.locator('#recent-actions-module', has_text='broadcast:chat/7').wait_for()


def test_who_may_only_look_sees_no_form_to_send(open_page: NewPage) -> None:
    page = open_page('viewer')
    page.locator('#live-state', has_text='Now').wait_for()
    assert page.locator('[name=message]').count() == 0
    page.fill('[name=facility]', 'nothing')
    page.keyboard.press('Enter')
    page.locator('#live-answer', has_text='There is no message.').wait_for()


def open_websocket(page: Page) -> None:
    """Open a websocket with the session of the page, and note how it ends."""
    page.evaluate(
        """() => new Promise((opened) => {
            const uri = location.origin.replace('http', 'ws') + '/ws/chat/7?subscribe-user';
            const websocket = new WebSocket(uri);
            websocket.onopen = opened;
            websocket.onclose = (event) => { document.title = 'closed ' + event.code; };
        })"""
    )


def test_it_shows_who_is_connected_and_ends_that(open_page: NewPage) -> None:
    of_viewer = open_page('viewer')
    open_websocket(of_viewer)
    page = open_page('admin')
    page.on('dialog', lambda dialog: dialog.accept())

    def look_up(user: str) -> int:
        page.fill('[name=user]', user)
        page.get_by_role('button', name='Look up').click()
        page.wait_for_timeout(200)
        return int(page.locator('[data-rows=who] tr').count())

    # Two pages, and what one of them has opened beside.
    wait_until(lambda: look_up('') == 3)
    rows = page.locator('[data-rows=who] tr').all_inner_texts()
    assert [row.split()[0] for row in rows] == ['admin', 'viewer', 'viewer']
    assert sum('user:viewer:chat/7' in row for row in rows) == 1
    assert look_up('nobody') == 0
    assert 'No user is connected.' in page.inner_text('#live-who-answer')
    wait_until(lambda: look_up('viewer') == 2)
    page.get_by_role('button', name='Unsubscribe viewer from user:viewer:chat/7').click()
    page.locator('#live-who-answer', has_text='viewer leaves user:viewer:chat/7.').wait_for()

    def has_left() -> bool:
        look_up('viewer')
        return 'user:viewer:chat' not in page.locator('[data-rows=who]').inner_text()

    wait_until(has_left)
    page.get_by_role('button', name='Disconnect viewer').first.click()
    wait_until(lambda: of_viewer.title() == 'closed 3503')
    wait_until(lambda: look_up('viewer') == 0)
    # Who may only look has no such buttons.
    open_websocket(of_viewer)
    of_viewer.get_by_role('button', name='Look up').click()
    of_viewer.locator('[data-rows=who] tr').first.wait_for()
    assert of_viewer.get_by_role('button', name='Disconnect').count() == 0


def count_requests(page: Page) -> list[str]:
    """Return the requests for news that the page makes from now on."""
    found: list[str] = []
    page.on(
        'request', lambda request: found.append(request.url) if 'data/' in request.url else None
    )
    return found


def test_the_processes_tell_it_over_a_websocket(open_page: NewPage, redis_client: Any) -> None:
    page = open_page('viewer')
    page.locator('#live-state', has_text='Now, as told over a websocket').wait_for()
    requests = count_requests(page)
    for number in range(3):
        tell(redis_client, snapshot(7, open=1000 + number))
        page.locator('[data-total=open]', has_text=f'1,00{1 + number}').wait_for()
    assert requests == []


@pytest.mark.parametrize(
    'script',
    ['delete window.WebSocket; delete window.EventSource;', 'delete window.WS4Redis;'],
    ids=['no websockets', 'no script'],
)
def test_without_a_websocket_it_asks(
    open_page: NewPage, redis_client: Any, site: UwsgiServer, script: str
) -> None:
    page = open_page('viewer')
    page.add_init_script(script)
    if 'WS4Redis' in script:
        page.route('**/js/ws4redis.js', lambda route: route.abort())
    page.goto(site.url + PATH)
    page.locator('#live-state', has_text='Now, as asked for').wait_for()
    tell(redis_client, snapshot(7, open=1000))
    page.locator('[data-total=open]', has_text='1,000').wait_for()


def test_when_its_websocket_is_cut_off_it_goes_on(
    open_page: NewPage, site: UwsgiServer, redis_client: Any
) -> None:
    page = open_page('viewer')
    page.locator('#live-state', has_text='told over a websocket').wait_for()
    site.stop()
    page.locator('#live-state', has_text='Not up to date').wait_for(timeout=30_000)
    site.start()
    page.locator('#live-state', has_text='told over a websocket').wait_for(timeout=60_000)


def test_it_can_be_used_by_the_keyboard_while_it_changes(
    open_page: NewPage, redis_client: Any
) -> None:
    page = open_page('admin')
    tell(redis_client, snapshot(7))
    page.get_by_role('button', name='chat/7').focus()
    before = page.inner_text('#live-time')
    page.wait_for_function(
        "before => document.getElementById('live-time').innerText !== before", arg=before
    )
    assert page.evaluate('document.activeElement.textContent') == 'chat/7'
    page.keyboard.press('Enter')
    page.locator('#live-answer', has_text='There is no message.').wait_for()
    assert page.input_value('[name=facility]') == 'chat/7'


def test_strangers_see_nothing(open_page: NewPage, site: UwsgiServer) -> None:
    page = open_page('stranger')
    page.get_by_text('403 Forbidden').wait_for()
    statuses = page.evaluate(
        """paths => Promise.all(paths.map(
            ([method, path]) => fetch(path, {method: method}).then(answer => answer.status)))""",
        [
            ['GET', 'data/'],
            ['GET', 'channel/?facility=x'],
            ['GET', 'who/'],
            ['GET', 'answers/?question=1-0'],
            ['POST', 'publish/'],
            ['POST', 'end/'],
        ],
    )
    assert statuses == [403] * 6


def test_it_says_when_it_is_not_up_to_date_and_comes_back(
    open_page: NewPage, redis_server: RedisServer
) -> None:
    page = open_page('admin')
    page.locator('#live-state', has_text='Now').wait_for()
    redis_server.kill()
    page.locator('#live-state', has_text='Redis does not answer.').wait_for()
    redis_server.start()
    page.locator('#live-state', has_text='Now').wait_for()


LOOKS = {
    'desktop-light': {'viewport': {'width': 1280, 'height': 1100}, 'color_scheme': 'light'},
    'desktop-dark': {'viewport': {'width': 1280, 'height': 1100}, 'color_scheme': 'dark'},
    'phone-light': {'viewport': {'width': 390, 'height': 844}, 'color_scheme': 'light'},
    'phone-dark': {'viewport': {'width': 390, 'height': 844}, 'color_scheme': 'dark'},
}


@pytest.mark.parametrize('look', LOOKS)
def test_it_can_be_used_by_everybody_in_every_look(
    open_page: NewPage, redis_client: Any, node_modules: Path, look: str
) -> None:
    busy = snapshot(7, open=48_210, queued_bytes=5_300_000)
    busy['rates'] = {
        'load': 0.91,
        'lag_p50': 0.0004,
        'lag_p99': 0.12,
        'redis_seconds': 0.0003,
        'sent_per_second': 81_234.5,
        'received_per_second': 120,
    }
    busy['past'] = [
        [40_000 + 90 * n, 80_000 + (n * 37) % 900, 5, 0.01 * (n % 9)] for n in range(90)
    ]
    busy['facilities'] = [['chat/a-room-with-quite-a-long-name', 42.5, 4_000], ['news', 1, 48_000]]
    tell(redis_client, busy)
    page = open_page('admin', **LOOKS[look])
    page.locator('[data-rows=processes] tr').nth(1).wait_for()
    open_websocket(page)
    page.get_by_role('button', name='Look up').click()
    page.locator('[data-rows=who] tr').first.wait_for()
    page.evaluate((node_modules / 'axe-core' / 'axe.min.js').read_text(encoding='utf-8'))
    result = page.evaluate('axe.run("#live")')
    violations = {
        violation['id']: [node['html'] for node in violation['nodes']]
        for violation in result['violations']
    }
    assert violations == {}
    width = page.evaluate('document.documentElement.scrollWidth')
    assert width <= LOOKS[look]['viewport']['width']  # type: ignore[index]
    if directory := os.environ.get('WS4REDIS_TEST_SCREENSHOTS'):
        page.screenshot(path=Path(directory) / f'live-{look}.png', full_page=True)
