"""Packages of npm that tests use."""

from __future__ import annotations

import fcntl
import json
import subprocess
from pathlib import Path

from tests.requirements import require, require_executable
from tests.timeouts import scaled

NPM_OPTIONS = (
    '--no-audit',
    '--no-fund',
    '--no-package-lock',
    # Without a network, a test is skipped soon.
    '--fetch-retries=1',
    '--fetch-timeout=20000',
)


def installed_packages() -> Path:
    """Return the folder of the packages; once installed, they stay for the next run."""
    require_executable('node')
    npm = require_executable('npm')
    directory = Path(__file__).parent / 'browser' / 'npm'
    with (directory / 'package.json').open() as lock:
        # Other processes of this run may want to install at the same time.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_installed(directory):
            installation = subprocess.run(
                [npm, 'install', *NPM_OPTIONS],
                cwd=directory,
                capture_output=True,
                text=True,
                timeout=scaled(100),
                check=False,
            )
            require(installation.returncode == 0, f'npm cannot install: {installation.stderr}')
    return directory / 'node_modules'


def _is_installed(directory: Path) -> bool:
    """Tell whether npm installed what package.json asks for now."""
    record = directory / 'node_modules' / '.package-lock.json'
    if not record.exists():
        return False
    installed = json.loads(record.read_text(encoding='utf-8'))['packages']
    wanted = json.loads((directory / 'package.json').read_text(encoding='utf-8'))['dependencies']
    return all(
        installed.get(f'node_modules/{name}', {}).get('version') == version
        for name, version in wanted.items()
    )
