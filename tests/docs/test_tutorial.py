"""The tutorial, followed to the letter: with the wheel, in an empty virtual environment."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis

from tests.browser.chromium import chromium
from tests.distributions import run
from tests.docs.code_blocks import DOCS, CodeBlock, code_blocks
from tests.docs.tutorials import effort_of, follow, site_of
from tests.programs import RedisServer, RunserverProcess
from tests.requirements import require, require_executable
from tests.timeouts import SERVER_SECONDS, SOON_SECONDS, scaled
from ws4redis.test import WebSocketClient

pytestmark = [pytest.mark.packaging, pytest.mark.browser, pytest.mark.timeout(scaled(600))]

#: Of the first part, which ends when a message is in the browser.
MOST_COMMANDS = 8
MOST_LINES = 25
LAST_OF_FIRST_PART = 'in the shell'


@pytest.fixture(scope='module')
def tutorial() -> list[CodeBlock]:
    return list(code_blocks(DOCS / 'tutorial.md'))


@pytest.fixture(scope='module')
def project(
    tutorial: list[CodeBlock], installed_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The directory of the project as the tutorial makes it."""
    return follow(tutorial, installed_python, tmp_path_factory.mktemp('tutorial'))


@pytest.fixture(scope='module')
def site(
    project: Path, installed_python: Path, redis_server: RedisServer
) -> Iterator[RunserverProcess]:
    with site_of(project, installed_python, redis_server) as server:
        yield server


def in_the_shell(tutorial: list[CodeBlock], caption: str = 'in the shell') -> str:
    (shell,) = (block.text for block in tutorial if block.caption == caption)
    return shell


def test_the_first_message_takes_few_commands_and_few_lines(tutorial: list[CodeBlock]) -> None:
    captions = [block.caption for block in tutorial]
    part = tutorial[: captions.index(LAST_OF_FIRST_PART) + 1]
    typed, lines = effort_of(part)
    assert typed <= MOST_COMMANDS
    assert lines <= MOST_LINES


def test_its_message_reaches_the_browser(
    tutorial: list[CodeBlock], site: RunserverProcess, project: Path, installed_python: Path
) -> None:
    require(find_spec('playwright'), 'playwright is not installed')
    shell = in_the_shell(tutorial)
    with chromium(require_executable('chromium', 'chromium-browser', 'google-chrome')) as browser:
        page = browser.new_page()
        page.set_default_timeout(SOON_SECONDS * 1000)
        with page.expect_websocket():
            page.goto(f'http://localhost:{site.port}/')
        run(installed_python, 'manage.py', 'shell', cwd=project, stdin=shell)
        page.get_by_text('Hello from Django').wait_for()
        # The kept message is there at once in another window.
        another = browser.new_page()
        another.set_default_timeout(SOON_SECONDS * 1000)
        another.goto(f'http://localhost:{site.port}/')
        another.get_by_text('Hello from Django').wait_for()


def test_its_visitors_cannot_publish(site: RunserverProcess, redis_client: redis.Redis) -> None:
    with WebSocketClient(
        f'ws://localhost:{site.port}/ws/news?subscribe-broadcast&publish-broadcast&echo',
        headers={'Origin': f'http://localhost:{site.port}'},
        timeout=SOON_SECONDS,
    ) as client:
        client.send('forged')
        client.receive_nothing(seconds=scaled(0.2))
        redis_client.publish('broadcast:news', 'genuine')
        assert client.receive() == 'genuine'


def test_its_chat_loses_nothing_while_the_server_is_away(
    tutorial: list[CodeBlock], site: RunserverProcess, project: Path, installed_python: Path
) -> None:
    require(find_spec('playwright'), 'playwright is not installed')
    shell = in_the_shell(tutorial, 'in the shell, while the server is away')
    with chromium(require_executable('chromium', 'chromium-browser', 'google-chrome')) as browser:
        pages = [browser.new_page(), browser.new_page()]
        for page in pages:
            page.set_default_timeout(SERVER_SECONDS * 1000)
            page.goto(f'http://localhost:{site.port}/chat/')
            page.get_by_text('Connected').wait_for()
        first, second = pages

        def say(text: str) -> None:
            first.locator('input').fill(text)
            first.get_by_role('button').click()

        say('Hello')
        second.get_by_text('Hello').wait_for()
        site.stop()
        for page in pages:
            page.get_by_text('Away').wait_for()
        say('Are you there?')
        run(installed_python, 'manage.py', 'shell', cwd=project, stdin=shell)
        site.start()
        for page in pages:
            page.get_by_text('Are you there?').wait_for()
            said = page.locator('#messages li').all_text_contents()
            assert said == ['Hello', 'While you were away', 'Are you there?']
        second.reload()
        assert second.locator('#messages li').all_text_contents() == said
