"""The Autobahn test suite on the real loop: what is quick of it. All: ``make conformance``."""

from __future__ import annotations

from pathlib import Path

import pytest

import conformance.__main__ as command
from conformance import autobahn
from tests.requirements import require
from tests.timeouts import scaled

#: Building the environment of the test suite, the first time, included.
RUN_SECONDS = scaled(900)


def require_autobahn() -> None:
    try:
        autobahn.prepare()
    except autobahn.Unavailable as reason:
        require(False, str(reason))


@pytest.mark.slow
@pytest.mark.timeout(RUN_SECONDS)
@pytest.mark.parametrize('target', ['uwsgi', 'runserver', 'view'])
def test_each_echo_passes_the_core_and_some_compression_cases(
    target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    require_autobahn()
    status = command.main(['--target', target, '--cases', 'core', 'compression-sample'])
    output = capsys.readouterr().out
    assert status == 0, output
    assert '267 passed, 0 failed' in output
    remarks = output.split('Not plainly OK:\n')[1].split('\n\n')[0]
    if target == 'view':
        # A view answers in its own time: what it has not answered when the client breaks the
        # protocol, in the same read perhaps, it cannot answer any more. The suite permits that.
        remarks = '\n'.join(line for line in remarks.splitlines() if 'NON-STRICT' not in line)
    # Three cases only inform of what happened; there is nothing else to remark.
    assert [line.split()[0] for line in remarks.splitlines()] == ['7.1.6:', '7.13.1:', '7.13.2:']
    assert ';' not in remarks


@pytest.mark.slow
@pytest.mark.timeout(RUN_SECONDS)
def test_a_server_that_is_not_there_fails_every_case(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    require_autobahn()
    arguments = ['--url', 'ws://127.0.0.1:1', '--cases', '1.1.*', '--output', str(tmp_path)]
    assert command.main(arguments) == 1
    output = capsys.readouterr().out
    assert '1.1.8: not run' in output
    assert output.splitlines()[-1] == '0 passed, 8 failed'


@pytest.fixture
def _no_python27(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare() -> None:
        raise autobahn.Unavailable('there is no Python 2.7')

    monkeypatch.setattr(command, 'prepare', prepare)


@pytest.mark.usefixtures('_no_python27')
def test_without_python27_the_suite_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv('CI', raising=False)
    assert command.main([]) == 0
    assert capsys.readouterr().out == 'Skipped: there is no Python 2.7.\n'


@pytest.mark.usefixtures('_no_python27')
def test_under_ci_the_suite_must_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv('CI', 'true')
    assert command.main([]) == 1
    assert 'there is no Python 2.7' in capsys.readouterr().err


def test_what_is_no_python27_is_not_taken_for_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv('PYTHON27', 'python3')
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setenv('PYENV_ROOT', str(tmp_path))
    with pytest.raises(autobahn.Unavailable, match='PYTHON27'):
        autobahn.find_python27()
