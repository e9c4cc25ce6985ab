"""The reference leaves nothing out, and invents nothing."""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from enum import IntEnum

import pytest
from django.core.management import load_command_class
from django.core.management.base import BaseCommand

from tests.docs.code_blocks import DOCS
from tests.docs.generated import metrics_table
from tests.docs.log_calls import log_calls
from tests.server_process import ROOT
from tests.test_layers import PUBLIC_NAMES
from ws4redis.handlers.routes import DEFAULT_URL
from ws4redis.protocol.client.codes import DisconnectCode, ErrorCode, UnsubscribeCode
from ws4redis.protocol.end_codes import EndCode
from ws4redis.protocol.frames import CloseCode
from ws4redis.servers.process import make_hub
from ws4redis.servers.statistics import statistics_of

REFERENCE = DOCS / 'reference'
PACKAGE = ROOT / 'ws4redis'


def section(page: str, heading: str) -> str:
    """Return the text under a heading, down to the next one of the same level or a higher one."""
    level = heading.partition(' ')[0]
    text = (REFERENCE / page).read_text(encoding='utf-8')
    _, found, rest = text.partition(f'\n{heading}\n')
    assert found, f'{page} has no {heading!r}'
    return re.split(rf'^#{{1,{len(level)}}} ', rest, maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> list[str]:
    """Return the first cell of each row of the tables in a text, without their headers."""
    cells = re.findall(r'^\| (.*?) \|', text, re.MULTILINE)
    return [cell for cell in cells if '`' in cell or cell.isdigit()]


# Python

MODULES = ['control', 'decorators', 'handlers', 'history', 'live', 'middleware', 'presence']
MODULES += ['statistics', 'test', 'tokens', 'view_websocket']


@pytest.mark.parametrize('module', MODULES)
def test_the_page_of_python_has_each_public_name(module: str) -> None:
    page = (REFERENCE / 'python.md').read_text(encoding='utf-8')
    documented = set(re.findall(rf'^\.\. auto\w+:: ws4redis\.{module}\.(\w+)$', page, re.MULTILINE))
    assert set(PUBLIC_NAMES[f'ws4redis.{module}']) <= documented


# Design


def test_the_page_of_design_has_the_layers_that_are_enforced() -> None:
    page = (DOCS / 'explanation' / 'design.md').read_text(encoding='utf-8')
    table = page.partition('## Layers')[2].partition('\n## ')[0]
    rows = re.findall(r'^\| (`.*?) \|', table, re.MULTILINE)
    shown = [set(re.findall(r'`(\w+)/`', row)) for row in rows]
    config = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))
    contracts = config['tool']['importlinter']['contracts']
    (layers,) = (contract['layers'] for contract in contracts if contract['id'] == 'layers')
    packages = [set(re.split(r'[ |:]+', layer)) for layer in layers]
    assert shown == [layer for layer in packages if layer != {'exceptions', 'log_filter'}]


# Log lines

LEVELS = {
    'ERROR': '## Errors',
    'WARNING': '## Warnings',
    'INFO': '## Information',
    'DEBUG': '## For debugging',
}
#: Where a line consists of what an exception says: the texts of ``HandoverNotSupported``.
TEXTS_OF_EXCEPTIONS = {'views/server.py', 'applications/wsgi.py'}
#: Where a complaint is logged that was composed elsewhere.
COMPOSED_ELSEWHERE = {'broker/link.py'}


def documented_lines(level: str) -> set[str]:
    return set(re.findall(r'^\| `(.*?)` \|', section('log-lines.md', LEVELS[level]), re.MULTILINE))


def logged_lines(level: str) -> set[str]:
    return {
        'This server cannot hand over its sockets, so it cannot serve websockets. …'
        if call.text == '…'
        else call.text
        for call in log_calls()
        if call.level == level and not (call.text == '…' and call.path in COMPOSED_ELSEWHERE)
    }


@pytest.mark.parametrize('level', LEVELS)
def test_the_page_of_log_lines_has_each_line_of_the_package_and_no_other(level: str) -> None:
    assert documented_lines(level) == logged_lines(level)


def test_lines_that_differ_as_a_whole_are_known() -> None:
    paths = {call.path for call in log_calls() if call.text == '…'}
    assert paths == TEXTS_OF_EXCEPTIONS | COMPOSED_ELSEWHERE
    assert 'cannot hand over its sockets, so it cannot serve websockets.' in (
        PACKAGE / 'servers' / 'handover.py'
    ).read_text(encoding='utf-8')


# Answers to handshakes


def test_the_page_of_answers_has_each_status_that_the_package_answers_with() -> None:
    answered = {101, 200}
    for path in PACKAGE.rglob('*.py'):
        source = path.read_text(encoding='utf-8')
        found = re.findall(
            r'\b(?:HandshakeError|UpgradeRequiredError|Refusal)\(\s*(\d{3}),', source
        )
        answered |= {int(status) for status in found}
    page = (REFERENCE / 'handshake-answers.md').read_text(encoding='utf-8')
    assert {int(cell) for cell in first_cells(page)} == answered


# Codes


def used_members(enumeration: type[IntEnum]) -> set[int]:
    """Return the values of the members that the package uses."""
    defined_in = sys.modules[enumeration.__module__].__file__
    sources = (path for path in PACKAGE.rglob('*.py') if str(path) != defined_in)
    named = {
        name
        for path in sources
        for name in re.findall(rf'\b{enumeration.__name__}\.([A-Z_]+)\b', path.read_text())
    }
    return {enumeration[name].value for name in named}


def documented_codes(page: str, heading: str) -> set[int]:
    """Return the numbers in the first column of the tables under a heading."""
    return {int(cell) for cell in first_cells(section(page, heading)) if cell.isdigit()}


def test_the_page_of_close_codes_has_each_that_the_server_sends_and_no_other() -> None:
    sent = used_members(CloseCode) | set(EndCode) | {DisconnectCode.INSUFFICIENT_STATE}
    # Code of the project may choose these.
    left_to_projects = {CloseCode.UNSUPPORTED_DATA, CloseCode.POLICY_VIOLATION}
    counted = documented_codes('close-codes.md', '## What is only counted')
    assert counted == {CloseCode.NO_STATUS_RECEIVED, CloseCode.ABNORMAL_CLOSURE}
    assert documented_codes('close-codes.md', '## What the server sends') == (
        (sent - counted) | left_to_projects
    )


def test_the_page_of_the_client_protocol_has_each_error_and_code_and_no_other() -> None:
    expected = (
        used_members(ErrorCode) | used_members(DisconnectCode) | used_members(UnsubscribeCode)
    )
    assert documented_codes('client-protocol.md', '## Errors and codes') == expected


# Metrics


def test_the_page_of_metrics_has_each_as_the_code_declares_it() -> None:
    page = (REFERENCE / 'metrics.md').read_text(encoding='utf-8')
    rows = set(re.findall(r'^\| `.*\|$', page, re.MULTILINE))
    declared = {row for row in metrics_table().splitlines() if row.startswith('| `')}
    assert rows == declared, 'paste what `python -m tests.docs.generated` prints'


def test_metrics_have_the_names_that_prometheus_reads() -> None:
    exposition = pytest.importorskip('ws4redis.dashboard.metrics').exposition
    families = re.findall(r'^# TYPE (\w+)', exposition([]).decode(), re.MULTILINE)
    page = (REFERENCE / 'metrics.md').read_text(encoding='utf-8')
    assert set(re.findall(r'^\| `(\w+)`', page, re.MULTILINE)) == set(families)


# Statistics


def test_the_page_of_statistics_has_each_number_and_no_other() -> None:
    hub = make_hub()
    try:
        numbers = statistics_of(hub)
    finally:
        hub.loop.close()
    page = (REFERENCE / 'statistics.md').read_text(encoding='utf-8')
    assert {cell.strip('`') for cell in first_cells(page)} == numbers.keys()


def test_each_number_is_declared_as_a_metric() -> None:
    hub = make_hub()
    try:
        numbers = statistics_of(hub)
    finally:
        hub.loop.close()
    import ws4redis.hub.metrics  # noqa: F401 - declares them
    from ws4redis.loop.metrics import declarations

    assert numbers.keys() - {'pid'} <= declarations.keys()


# Management commands

COMMANDS = sorted(
    path.stem
    for path in (PACKAGE / 'management' / 'commands').glob('*.py')
    if path.stem != '__init__'
)


def own_actions(name: str) -> list[argparse.Action]:
    """Return the arguments of a command that not every command has."""
    parser = load_command_class('ws4redis', name).create_parser('manage.py', name)
    stock = BaseCommand().create_parser('manage.py', name)
    common = {option for action in stock._actions for option in action.option_strings}
    return [a for a in parser._actions if not common.intersection(a.option_strings)]


@pytest.mark.parametrize('name', COMMANDS)
def test_the_page_of_commands_has_all_their_options_and_no_other(name: str) -> None:
    documented = set(
        re.findall(r'^\| `(--[\w-]+)', section('commands.md', f'## `{name}`'), re.MULTILINE)
    )
    assert documented == {o for action in own_actions(name) for o in action.option_strings}


@pytest.mark.parametrize('name', COMMANDS)
def test_the_page_of_commands_has_the_right_defaults(name: str) -> None:
    text = section('commands.md', f'## `{name}`')
    stated = dict(re.findall(r'^\| `?(--[\w-]+|address)[^|]*\| ([^|]*) \|', text, re.MULTILINE))
    for action in own_actions(name):
        default = stated[action.option_strings[0] if action.option_strings else action.dest]
        if isinstance(action.default, str | int) and not isinstance(action.default, bool):
            expected = 'yes' if action.const == action.default else f'`{action.default}`'
            if action.const is None or action.const == action.default:
                assert default == expected, action.dest
        elif action.nargs != 0 and default.startswith('`'):
            # What is not given here is decided later.
            assert action.dest == 'websocket_url'
            assert default == f'`{DEFAULT_URL}`'
