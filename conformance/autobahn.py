"""The Autobahn test suite: its environment, and one run of its fuzzing client.

It needs Python 2.7. The environment is built once, in the user's cache directory.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

VERSION = '25.10.1'

#: The last version that makes environments for Python 2.7.
VIRTUALENV_VERSION = '20.21.1'

BUILD_SECONDS = 600

#: Names the server under test in Autobahn's files.
AGENT = 'ws4redis'

LOG_NAME = 'wstest.log'
_LOG_LINES_SHOWN = 15


class Unavailable(Exception):
    """Tell why the test suite cannot run on this machine."""


class SuiteFailed(Exception):
    """Tell that the test suite itself failed."""


def cache_directory() -> Path:
    """Return where the environment is kept."""
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base) / 'ws4redis'


def find_python27() -> str:
    """Return the path of a Python 2.7: ``PYTHON27``, else from ``PATH``, else pyenv's.

    Raises ``Unavailable`` where there is none.
    """
    candidates = [os.environ.get('PYTHON27'), shutil.which('python2.7')]
    pyenv = Path(os.environ.get('PYENV_ROOT') or Path.home() / '.pyenv') / 'versions'
    candidates += [str(path) for path in sorted(pyenv.glob('2.7*/bin/python2.7'), reverse=True)]
    for candidate in candidates:
        if candidate and _is_python27(candidate):
            return candidate
    raise Unavailable(
        f'autobahntestsuite {VERSION} runs on Python 2.7 only, and there is none: neither in the '
        'variable PYTHON27, nor on PATH, nor in pyenv'
    )


def _is_python27(executable: str) -> bool:
    # pyenv's shim for python2.7 is there even if no such version is: it has to be tried.
    try:
        done = subprocess.run(
            [executable, '-c', 'import sys; print(sys.version_info[:2])'],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except OSError:
        return False
    return done.stdout.strip() == '(2, 7)'


def prepare() -> Path:
    """Return the environment's directory, built before if need be.

    Raises ``Unavailable`` without a Python 2.7, ``SuiteFailed`` if the building fails.
    """
    cache = cache_directory()
    environment = cache / 'autobahn'
    finished = environment / f'autobahntestsuite-{VERSION}'
    if finished.exists():
        return environment
    python = find_python27()
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / 'autobahn.lock'):
        if not finished.exists():
            _build(python, environment, cache / 'virtualenv')
            finished.touch()
    return environment


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other runs from building at the same time."""
    with path.open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(python: str, environment: Path, tool: Path) -> None:
    print(f'Installing autobahntestsuite {VERSION} into {environment} …', flush=True)
    shutil.rmtree(environment, ignore_errors=True)
    venv.create(tool, with_pip=True, clear=True)
    pip = [str(tool / 'bin' / 'pip'), 'install', '--quiet', '--disable-pip-version-check']
    _run([*pip, f'virtualenv=={VIRTUALENV_VERSION}'])
    _run([str(tool / 'bin' / 'virtualenv'), '--quiet', '-p', python, str(environment)])
    _run([str(environment / 'bin' / 'pip'), 'install', f'autobahntestsuite=={VERSION}'])


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise SuiteFailed(f'{" ".join(command)} took more than {BUILD_SECONDS} s') from exc
    if done.returncode:
        raise SuiteFailed(f'{" ".join(command)} failed:\n{done.stdout}')


_LIST_CASES = """
import json, sys
from autobahntestsuite.case import (
    CaseBasename, CaseCategories, Cases, CaseSetname, CaseSubCategories)
from autobahntestsuite.caseset import CaseSet
known = CaseSet(CaseSetname, CaseBasename, Cases, CaseCategories, CaseSubCategories)
spec = json.load(sys.stdin)
print(json.dumps([case for case in known.parseSpecCases(spec) if case in known.CasesById]))
"""


def planned_cases(environment: Path, cases: Sequence[str], excluded: Sequence[str]) -> list[str]:
    """Return the names of all cases that the patterns select, in order."""
    done = subprocess.run(
        [str(environment / 'bin' / 'python'), '-W', 'ignore', '-c', _LIST_CASES],
        input=json.dumps(_selection(cases, excluded)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise SuiteFailed(f'listing the cases failed:\n{done.stderr}')
    planned: list[str] = json.loads(done.stdout.splitlines()[-1])
    return planned


def _selection(cases: Sequence[str], excluded: Sequence[str]) -> dict[str, list[str]]:
    return {'cases': list(cases), 'exclude-cases': list(excluded)}


def run_fuzzing_client(
    environment: Path, url: str, planned: Sequence[str], output: Path, *, timeout: float
) -> None:
    """Run the cases against the server at ``url``; results are left in ``output``.

    The exit status of ``wstest`` tells nothing: it is 0 also when the server dies half-way. A run
    that takes more than ``timeout`` seconds is ended, with the results that there are.
    """
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    specification = output / 'fuzzingclient.json'
    specification.write_text(
        json.dumps(
            {
                'outdir': str(output),
                'servers': [{'agent': AGENT, 'url': url}],
                'exclude-agent-cases': {},
                **_selection(planned, []),
            }
        ),
        encoding='utf-8',
    )
    command = [str(environment / 'bin' / 'wstest'), '-m', 'fuzzingclient', '-s', str(specification)]
    log = output / LOG_NAME
    with log.open('w', encoding='utf-8') as stream:
        try:
            subprocess.run(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=output,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            message = f'wstest was stopped after {timeout:.0f} s: it was not done'
            print(message, file=sys.stderr)
            stream.write(message + '\n')


def end_of_log(output: Path) -> str:
    """Return the last lines that ``wstest`` wrote."""
    log = output / LOG_NAME
    if not log.exists():
        return '(there is none)'
    lines = log.read_text(encoding='utf-8', errors='replace').splitlines()
    return '\n'.join(lines[-_LOG_LINES_SHOWN:])
