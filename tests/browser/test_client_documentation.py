"""The reference page of ``ws4redis.js`` says what the file does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.scripted_server import ScriptedServer
from tests.browser.static_pages import CLIENT
from tests.requirements import require_executable
from tests.timeouts import SOON_SECONDS

if TYPE_CHECKING:
    from playwright.sync_api import Page

PAGE = Path(__file__).resolve().parent.parent.parent / 'docs/reference/javascript.md'


def documentation() -> str:
    return PAGE.read_text(encoding='utf-8')


def first_column(heading: str) -> list[str]:
    """Return the names in the table below a heading."""
    section = re.split(r'^## ', documentation(), flags=re.MULTILINE)
    (text,) = (part for part in section if part.startswith(heading))
    return re.findall(r'^\| `(\w+)', text, flags=re.MULTILINE)


def constant(name: str) -> float:
    """Return a number that the client's source defines."""
    source = CLIENT.read_text(encoding='utf-8')
    match = re.search(rf'const {name} = ([\d.]+);', source)
    assert match is not None, name
    return float(match[1])


def code_blocks(language: str) -> list[str]:
    return re.findall(
        rf'^```{language}\n(.*?)^```', documentation(), flags=re.MULTILINE | re.DOTALL
    )


def in_one_line(text: str) -> str:
    return re.sub(r'\s+', ' ', text)


@pytest.mark.browser
def test_the_options_are_those_that_the_client_knows(page: Page, server: ScriptedServer) -> None:
    documented = first_column('`WS4Redis(options')
    warnings: list[str] = []
    page.on(
        'console',
        lambda message: warnings.append(message.text) if message.type == 'warning' else None,
    )
    page.evaluate(
        """([uri, names]) => {
            const seen = new Set();
            const values = {uri: uri, heartbeat_msg: '--heartbeat--'};
            // Whatever the client looks at, it looks up by name.
            const options = new Proxy(values, {get: (target, name) => {
                seen.add(name);
                return target[name];
            }});
            names.forEach(name => { values[name] = values[name] || function () {}; });
            window.ws = new WS4Redis(options);
            window.seen = Array.from(seen);
        }""",
        [server.uri, documented],
    )
    assert set(page.evaluate('seen')) == set(documented)
    assert warnings == []


@pytest.mark.browser
def test_the_methods_are_those_that_the_client_has(page: Page, server: ScriptedServer) -> None:
    methods = page.evaluate(
        'uri => { window.ws = new WS4Redis({uri: uri}); return Object.keys(ws); }', server.uri
    )
    assert sorted(first_column('Methods')) == sorted(methods)


def test_the_numbers_are_those_of_the_client() -> None:
    text = in_one_line(documentation())
    first, part = constant('FIRST_DELAY_MS') / 1000, constant('SHORTEST_PART_OF_DELAY')
    longest = constant('LONGEST_DELAY_MS') / 1000
    interval = constant('HEARTBEAT_INTERVAL_MS') / 1000
    unanswered = constant('MAX_UNANSWERED_HEARTBEATS')
    assert first * part == 0.5
    for sentence in (
        f'a random delay of half a second to {first:g} seconds',
        f'a random time between {longest * part:g} and {longest:g} seconds',
        f'a connection that lasted for {constant("STABLE_AFTER_MS") / 1000:g} seconds',
        f'not answered within {constant("CONNECT_TIMEOUT_MS") / 1000:g} seconds',
        f'sends that string every {interval:g} seconds',
        f'more than {unanswered:g} unanswered heartbeats',
        f'{interval * (unanswered + 1):g} to {interval * (unanswered + 2):g} seconds after',
    ):
        assert sentence in text


@pytest.mark.browser
def test_the_first_example_runs(page: Page, server: ScriptedServer) -> None:
    example = code_blocks('js')[0]
    page.evaluate(
        """([example, uri]) => {
            new Function(example.replace(/'.ws.[^']*'/, JSON.stringify(uri)))();
        }""",
        [example, server.uri],
    )
    connection = server.next_connection()
    assert connection.receive() == 'Hello'
    connection.send('<b>to you</b>')
    page.get_by_text('<b>to you</b>').wait_for()


def test_all_examples_are_javascript() -> None:
    node = require_executable('node')
    blocks = code_blocks('js')
    assert len(blocks) >= 2
    for block in blocks:
        subprocess.run(
            [node, '--check', '-'], input=block, text=True, timeout=SOON_SECONDS, check=True
        )
