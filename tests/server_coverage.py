"""Measure the coverage of servers too, where coverage.py would miss them.

coverage.py starts by itself in each process (its option ``patch = subprocess``), but

- it follows threads that the module `threading` starts, and the websocket loop starts its own by
  `_thread`, so as not to mind gevent's monkey patching;
- it writes what it found when Python exits, and uWSGI kills its workers before that.

Nothing of this happens unless coverage is measured.
"""

from __future__ import annotations

import _thread
import os
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

_CONFIG = 'COVERAGE_PROCESS_CONFIG'


def measured() -> Any:
    """Return coverage.py's object that measures this process, None if there is none."""
    coverage = sys.modules.get('coverage')
    return coverage.Coverage.current() if coverage is not None else None


def environment_without_greenlets() -> dict[str, str]:
    """Return the variables by which coverage.py asks for no greenlets in a server.

    At the end of a worker that runs no gevent, uWSGI calls Python where greenlets cannot be asked
    for: the worker would die.
    """
    if measured() is None:
        return {}
    from coverage.config import CoverageConfig

    config = CoverageConfig.deserialize(os.environ[_CONFIG])
    config.concurrency = ['thread']
    return {_CONFIG: config.serialize()}


def measure_native_threads() -> None:
    """Follow the threads that are started by `_thread`."""
    if measured() is None:
        return
    start = _thread.start_new_thread

    def start_new_thread(function: Callable[..., object], *arguments: Any) -> int:
        def run(*args: Any, **kwargs: Any) -> None:
            sys.settrace(threading.gettrace())
            function(*args, **kwargs)

        return start(run, *arguments)

    _thread.start_new_thread = start_new_thread


def measure_server() -> None:
    """Measure this server process: call it before the server starts to serve."""
    if measured() is None:
        return
    measure_native_threads()
    uwsgi: Any = sys.modules.get('uwsgi')
    if uwsgi is not None:
        uwsgi.__class__ = _SavingAtExit
        uwsgi.atexit = _nothing


class _SavingAtExit(ModuleType):
    """uWSGI's module, which has room for one function to call at the end of a worker."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == 'atexit':
            function = value

            def value() -> None:
                try:
                    function()
                finally:
                    _save()

        super().__setattr__(name, value)


def _nothing() -> None:
    pass


def _save() -> None:
    coverage = measured()
    if coverage is not None:
        coverage.stop()
        coverage.save()
