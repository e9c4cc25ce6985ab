"""What is missing is skipped on a laptop and fails under CI; a failure shows the servers' logs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server_process import ROOT
from tests.timeouts import SERVER_SECONDS

pytestmark = pytest.mark.slow

REQUIRING = """
from tests.requirements import require, require_executable
def test_that_needs_something(): require(False, 'the thing is missing')
def test_that_needs_a_program(): require_executable('no-such-program')
def test_that_has_it(): require(True, 'not shown')
"""
NOT_APPLICABLE = """
from tests.requirements import not_applicable
def test_on_another_planet(): not_applicable('this is the earth')
"""
SKIPPING = """
import pytest
@pytest.mark.skip(reason='no mood')
def test_skipped(): pass
"""
SKIPPING_MODULE = """
import pytest
pytest.importorskip('no_such_module')
def test_never_collected(): pass
"""
FAILING = """
def test_with_redis(redis_server): assert False
"""


def outcome(tmp_path: Path, source: str, *, under_ci: bool) -> tuple[int, str]:
    """Run pytest with the rules of tests/conftest.py; return its exit status and output."""
    path = tmp_path / 'test_inner.py'
    path.write_text(source)
    environment = {name: value for name, value in os.environ.items() if name != 'CI'}
    if under_ci:
        environment['CI'] = 'true'
    command = [sys.executable, '-m', 'pytest', '-p', 'tests.conftest', '-p', 'no:cacheprovider']
    done = subprocess.run(
        [*command, '-c', ROOT / 'pyproject.toml', '--rootdir', ROOT, path],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SERVER_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout


def test_what_is_missing_is_skipped_with_its_reason_on_a_laptop(tmp_path: Path) -> None:
    status, output = outcome(tmp_path, REQUIRING, under_ci=False)
    assert status == 0
    assert '1 passed, 2 skipped' in output
    assert 'the thing is missing' in output
    assert 'no-such-program is not installed' in output


def test_what_is_missing_fails_under_ci(tmp_path: Path) -> None:
    status, output = outcome(tmp_path, REQUIRING, under_ci=True)
    assert status == 1
    assert '2 failed, 1 passed' in output
    assert 'required under CI: the thing is missing' in output


@pytest.mark.parametrize('source', [SKIPPING, SKIPPING_MODULE])
def test_any_other_skipping_fails_under_ci_too(tmp_path: Path, source: str) -> None:
    assert outcome(tmp_path, source, under_ci=False)[0] in {0, 5}
    status, output = outcome(tmp_path, source, under_ci=True)
    assert status in {1, 2}
    assert 'skipped under CI' in output


def test_what_cannot_apply_is_skipped_under_ci_too(tmp_path: Path) -> None:
    status, output = outcome(tmp_path, NOT_APPLICABLE, under_ci=True)
    assert status == 0
    assert 'this is the earth' in output


def test_a_failure_shows_the_logs_of_the_servers(tmp_path: Path) -> None:
    status, output = outcome(tmp_path, FAILING, under_ci=False)
    assert status == 1
    assert 'log of redis-server' in output
    assert 'eady to accept connections' in output
