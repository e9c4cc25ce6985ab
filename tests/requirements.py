"""Say what a test needs of the machine.

On a laptop a test whose requirement is missing is skipped with its reason. Under CI, where
everything is installed, the same is a failure, so that a test that silently never runs is noticed.
"""

from __future__ import annotations

import os
import shutil

import pytest

NOT_APPLICABLE = 'not applicable: '
UNDER_CI = os.environ.get('CI', '').lower() in {'true', '1'}


def require(condition: object, reason: str) -> None:
    """Skip the running test unless ``condition`` is true; fail it when CI=true."""
    if condition:
        return
    if UNDER_CI:
        pytest.fail(f'required under CI: {reason}', pytrace=False)
    pytest.skip(reason)


def not_applicable(reason: str) -> None:
    """Skip the running test, under CI too: nothing could be installed to make it run."""
    pytest.skip(NOT_APPLICABLE + reason)


def require_executable(*names: str) -> str:
    """Return the path of the first executable found among ``names``, as ``require`` does."""
    for name in names:
        path = shutil.which(name) or shutil.which(name, path='/usr/sbin:/usr/local/sbin:/sbin')
        if path:
            return path
    require(False, f'{" or ".join(names)} is not installed')
    raise AssertionError('unreachable')
