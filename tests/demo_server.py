"""`make demo` as a process, with what it starts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tests.free_ports import free_port
from tests.server_process import ROOT, HttpServerProcess
from tests.timeouts import SERVER_SECONDS

DEMO = ROOT / 'examples' / 'demo.py'


class Demo(HttpServerProcess):
    """The demo on a free port, with a database of its own; by default without a Redis."""

    name = 'demo'

    def __init__(
        self, directory: Path, *, options: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> None:
        environment = {
            'CHATSERVER_DATABASE': str(directory / 'demo.sqlite3'),
            # Nothing listens there: the developer's own Redis is left alone.
            'WS4REDIS_PORT': '1',
        }
        super().__init__(env=environment | dict(env or {}))
        self.port = free_port()
        self._options = options

    def command(self) -> Sequence[str]:
        return [sys.executable, str(DEMO), '--port', str(self.port), *self._options]

    def wait_until_ready(self, since: int) -> None:
        self.wait_for_log('Ctrl-C stops everything', since=since, timeout=2 * SERVER_SECONDS)

    def descendants(self) -> list[psutil.Process]:
        """Return all processes that the demo has started."""
        return psutil.Process(self.pid).children(recursive=True)
