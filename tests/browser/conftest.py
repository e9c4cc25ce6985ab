from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.chat_page import NewContext, log_in
from tests.browser.chromium import chromium
from tests.browser.elements import FACILITIES, Open
from tests.browser.example_server import ExampleServer
from tests.browser.scripted_server import ScriptedServer
from tests.browser.static_pages import StaticPages
from tests.npm import installed_packages
from tests.programs import RedisServer, UwsgiServer, run_management_command
from tests.requirements import require, require_executable
from tests.timeouts import SOON_SECONDS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page


# Not for the session: as long as Playwright runs, its event loop runs in this thread, where Django
# then refuses the tests of other folders their database.
@pytest.fixture(scope='package')
def browser() -> Iterator[Browser]:
    """Chromium, started once for all tests of this folder."""
    require(find_spec('playwright'), 'playwright is not installed')
    executable = require_executable('chromium', 'chromium-browser', 'google-chrome')
    with chromium(executable) as running:
        yield running


@pytest.fixture(scope='module')
def example(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ExampleServer]:
    """The example project under uWSGI, one for each file of tests."""
    server = ExampleServer(redis_server, tmp_path_factory.mktemp('example'))
    server.make_database()
    with server:
        yield server


@pytest.fixture
def new_context(browser: Browser, example: ExampleServer) -> Iterator[NewContext]:
    """Make browser contexts; each stands for one person's browser.

    A test fails when a page throws, or breaks the Content-Security-Policy.
    """
    if not example.is_running:
        example.kill()
        example.start()
    complaints: list[str] = []
    with ExitStack() as cleanup:

        def make(
            username: str | None = None, *, path: str = '/login/', **options: object
        ) -> object:
            context = browser.new_context(**options)  # type: ignore[arg-type]
            cleanup.callback(context.close)
            context.set_default_timeout(SOON_SECONDS * 1000)
            context.on('weberror', lambda error: complaints.append(str(error.error)))
            context.on(
                'console',
                lambda message: (
                    complaints.append(message.text)
                    if 'Content Security Policy' in message.text
                    else None
                ),
            )
            context.on('dialog', lambda dialog: complaints.append(dialog.message))
            if username is not None:
                log_in(context, example.url, username, path=path)
            return context

        yield make  # type: ignore[misc]
    assert complaints == []


@pytest.fixture
def browser_context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser profile of its own: no cookies, nothing cached."""
    context = browser.new_context()
    context.set_default_timeout(SOON_SECONDS * 1000)
    yield context
    context.close()


@pytest.fixture(scope='session')
def static_pages() -> Iterator[StaticPages]:
    with StaticPages() as pages:
        yield pages


@pytest.fixture
def page(browser_context: BrowserContext, static_pages: StaticPages) -> Page:
    """A page with ``ws4redis.js`` and nothing else."""
    page = browser_context.new_page()
    page.goto(static_pages.url)
    return page


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture(scope='session')
def node_modules() -> Path:
    """Packages of npm that check our scripts."""
    return installed_packages()


@pytest.fixture(scope='module')
def site(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[UwsgiServer]:
    database = tmp_path_factory.mktemp('live') / 'live.sqlite3'
    env = {'WS4REDIS_TEST_DATABASE': str(database)}
    run_management_command('migrate', '--verbosity=0', env=env)
    settings = {
        'ROOT_URLCONF': 'tests.browser.live_urls',
        'WS4REDIS_HEARTBEAT': '--heartbeat--',
        'WS4REDIS_FACILITIES': FACILITIES,
    }
    with UwsgiServer(redis_server=redis_server, django_settings=settings, env=env) as server:
        yield server


@pytest.fixture
def open_page(browser_context: BrowserContext, site: UwsgiServer) -> Iterator[Open]:
    """Open a page with some elements, and wait until they are connected.

    A test fails when a page throws, or breaks its Content-Security-Policy.
    """
    if not site.is_running:
        site.kill()
        site.start()
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if 'Content Security Policy' in message.text:
            complaints.append(message.text)

    browser_context.on('weberror', lambda error: complaints.append(str(error.error)))
    browser_context.on('console', note)
    browser_context.on('dialog', lambda dialog: complaints.append(dialog.message))

    def open_it(html: str = '', *, path: str = 'elements/') -> Page:
        page = browser_context.new_page()
        page.goto(f'{site.url}/page/{path}')
        if html:
            page.evaluate('html => { document.querySelector("main").innerHTML = html; }', html)
            page.locator('main > [data-connection=connected]').first.wait_for(state='attached')
        return page

    yield open_it
    assert complaints == []
