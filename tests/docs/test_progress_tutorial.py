"""The tutorial of the progress bar, followed to the letter: with the wheel, from nothing."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.browser.chromium import chromium
from tests.docs.code_blocks import DOCS, CodeBlock, code_blocks
from tests.docs.tutorials import effort_of, follow, site_of
from tests.programs import RedisServer, RunserverProcess
from tests.requirements import require, require_executable
from tests.timeouts import SERVER_SECONDS, scaled

pytestmark = [pytest.mark.packaging, pytest.mark.browser, pytest.mark.timeout(scaled(600))]

MOST_COMMANDS = 9
MOST_LINES = 30


@pytest.fixture(scope='module')
def tutorial() -> list[CodeBlock]:
    return list(code_blocks(DOCS / 'tutorial-progress.md'))


@pytest.fixture(scope='module')
def site(
    tutorial: list[CodeBlock],
    installed_python: Path,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunserverProcess]:
    project = follow(tutorial, installed_python, tmp_path_factory.mktemp('progress'))
    with site_of(project, installed_python, redis_server) as server:
        yield server


def test_it_takes_few_commands_and_few_lines(tutorial: list[CodeBlock]) -> None:
    typed, lines = effort_of(tutorial)
    assert typed <= MOST_COMMANDS
    assert lines <= MOST_LINES


def test_the_bar_moves_and_is_the_same_in_a_second_window(site: RunserverProcess) -> None:
    require(find_spec('playwright'), 'playwright is not installed')
    with chromium(require_executable('chromium', 'chromium-browser', 'google-chrome')) as browser:
        page, other = browser.new_page(), browser.new_page()
        for window in (page, other):
            window.set_default_timeout(SERVER_SECONDS * 1000)
        page.goto(f'http://localhost:{site.port}/')
        page.get_by_role('button').click()
        page.wait_for_function("document.querySelector('progress')?.value > 0.05")
        other.goto(f'http://localhost:{site.port}/')
        other.wait_for_function("document.querySelector('progress')?.value > 0.05")
        for window in (page, other):
            window.get_by_text('Done').wait_for()
            assert '100' in window.inner_text('ws4redis-progress')
