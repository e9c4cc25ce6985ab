"""The example project under uWSGI, with users in its database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.programs import RedisServer, UwsgiServer
from tests.server_process import ROOT
from tests.timeouts import SERVER_SECONDS

EXAMPLES = ROOT / 'examples'
PASSWORD = 'secret'
FACILITY = 'foobar'


class ExampleServer(UwsgiServer):
    """Both loops of the example in one uWSGI, as `--module wsgi` in the documentation.

    ``directory`` is where its database goes. ``env`` is what its settings read.
    """

    name = 'the example under uWSGI'

    def __init__(
        self, redis_server: RedisServer, directory: Path, *, env: dict[str, str] | None = None
    ) -> None:
        self.example_environment = {
            'CHATSERVER_DATABASE': str(directory / 'chatserver.sqlite3'),
            'WS4REDIS_URL': redis_server.url,
            **(env or {}),
        }
        super().__init__(
            'wsgi',
            settings='chatserver.settings',
            env=self.example_environment,
            cwd=EXAMPLES,
            http='http',
            options=['--http-websockets', '--pythonpath', str(EXAMPLES)],
        )

    def make_database(self) -> None:
        """Make the tables, and the users of the fixture."""
        for arguments in (['migrate', '--verbosity=0'], ['loaddata', '--verbosity=0', 'data']):
            subprocess.run(
                [sys.executable, 'manage.py', *arguments],
                cwd=EXAMPLES,
                env={
                    **os.environ,
                    'DJANGO_SETTINGS_MODULE': 'chatserver.settings',
                    **self.example_environment,
                },
                timeout=SERVER_SECONDS,
                check=True,
            )
