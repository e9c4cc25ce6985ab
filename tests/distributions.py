"""The wheel and the sdist, built once for all tests that want what users install."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

from tests.server_process import ROOT
from tests.timeouts import scaled

BUILD_SECONDS = scaled(300)
# A checkout on the path would be used in place of what was installed; and building and installing
# end with a warning of some tool now and then.
_NOT_PASSED_ON = {'PYTHONPATH', 'PYTHONWARNINGS', 'DJANGO_SETTINGS_MODULE'}


def run(*command: str | Path, cwd: Path, stdin: str | None = None) -> str:
    """Run a command apart from the checkout, and return its output; fail with it."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={name: os.environ[name] for name in os.environ if name not in _NOT_PASSED_ON},
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f'{command}:\n{done.stdout}'
    return done.stdout


def made_once(directory: Path, make: Callable[[Path], None]) -> Path:
    """Return ``directory``, filled by ``make`` by the first of pytest's processes that wants it.

    The others wait. Where that process failed, the next one tries.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    done = directory.with_name(f'{directory.name}.done')
    with directory.with_name(f'{directory.name}.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            directory.mkdir(exist_ok=True)
            make(directory)
            done.touch()
    return directory


def build_distributions(directory: Path) -> None:
    """Build the sdist, and from it the wheel, of the files that git knows.

    From a clean copy, as a build directory of the checkout could bring in files that are gone.
    """
    source = directory.with_name(f'{directory.name}-source')
    for name in filter(None, run('git', 'ls-files', '-z', cwd=ROOT).split('\0')):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            target.write_bytes((ROOT / name).read_bytes())
    run(sys.executable, '-m', 'build', '--outdir', directory, source, cwd=directory)


def install_alone(wheel: Path, directory: Path) -> None:
    """Make a virtual environment with the wheel, what it needs, and nothing else."""
    venv.create(directory, with_pip=True)
    run(python_of(directory), '-m', 'pip', 'install', '-q', wheel, cwd=directory)


def python_of(environment: Path) -> Path:
    """Return the interpreter of a virtual environment."""
    return environment / 'bin' / 'python'
