"""The example as its configuration files expect it: here in a directory of the test's own.

The files of ``examples/deploy/`` are used as they are, but for what is different on every machine:
paths, ports, and the patience of proxies, which is shortened so that a test can outlast it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.free_ports import free_port
from tests.programs import RedisServer, run_management_command
from tests.server_process import ROOT
from tests.timeouts import SERVER_SECONDS

EXAMPLES = ROOT / 'examples'
DEPLOY = EXAMPLES / 'deploy'
SETTINGS = 'tests.deployment.settings'
PROXY_PATIENCE_SECONDS = 4
SERVER_NAME = 'chat.example.com'


class Installation:
    """One installed example: ``directory`` is short, and other users may enter it.

    ``port`` is that on which the outermost server listens, ``inner_port`` that of a server behind
    it which listens on a port. ``env`` is the environment of its processes.
    """

    def __init__(
        self, directory: Path, redis_server: RedisServer, *, behind_tls: bool = False
    ) -> None:
        self.directory = directory
        self.port = free_port()
        self.inner_port = free_port()
        self.static_root = directory / 'static'
        self.certificate = directory / 'tls' / 'fullchain.pem'
        self.env = {
            'DJANGO_SETTINGS_MODULE': SETTINGS,
            'PYTHONPATH': os.pathsep.join([str(ROOT), str(EXAMPLES)]),
            'WS4REDIS_URL': redis_server.url,
            'CHATSERVER_DATABASE': str(directory / 'chatserver.sqlite3'),
            'CHATSERVER_STATIC_ROOT': str(self.static_root),
            'CHATSERVER_ALLOWED_HOSTS': f'127.0.0.1,localhost,{SERVER_NAME}',
            'CHATSERVER_BEHIND_TLS_PROXY': str(int(behind_tls)),
            'CHATSERVER_DEBUG': '0',
        }

    def prepare(self) -> None:
        """Make the tables, the users and the static files."""
        for arguments in (
            ['migrate', '--verbosity=0'],
            ['loaddata', '--verbosity=0', 'data'],
            ['collectstatic', '--noinput', '--verbosity=0'],
        ):
            run_management_command(*arguments, settings=SETTINGS, env=self.env)

    def make_certificate(self) -> None:
        """Make a self-signed certificate where the configuration files expect one."""
        self.certificate.parent.mkdir()
        subprocess.run(
            [
                *[
                    'openssl',
                    'req',
                    '-x509',
                    '-newkey',
                    'rsa:2048',
                    '-nodes',
                    '-days',
                    '2',
                    '-subj',
                    '/CN=localhost',
                ],
                *['-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'],
                *('-keyout', self.certificate.parent / 'privkey.pem'),
                *('-out', self.certificate),
            ],
            check=True,
            capture_output=True,
            timeout=SERVER_SECONDS,
        )

    def install(self, name: str) -> Path:
        """Return a copy of a configuration file (or of those of a folder) for this place."""
        source = DEPLOY / name
        target = self.directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(self.localise(source.read_text()))
        return target

    def localise(self, text: str) -> str:
        """Return the text of a configuration file with the paths and ports of this place."""
        for pattern, replacement in {
            r'/srv/chatserver/static_root': str(self.static_root),
            r'/srv/chatserver': str(EXAMPLES),
            r'/srv/venv': sys.prefix,
            r'/run/chatserver': str(self.directory),
            r'/etc/ssl/chatserver': str(self.certificate.parent),
            r':8000\b': f'127.0.0.1:{self.port}',
            r'127\.0\.0\.1:8001\b': f'127.0.0.1:{self.inner_port}',
            r'listen 80;': f'listen 127.0.0.1:{self.port};',
            r'listen 443 ssl;': f'listen 127.0.0.1:{self.port} ssl;',
            r'\*:80>': f'127.0.0.1:{self.port}>',
            # The files are for the usual ports, which a Host header leaves out.
            r'\$host;': '$host:$server_port;',
            r'proxy_read_timeout 60s': f'proxy_read_timeout {PROXY_PATIENCE_SECONDS}s',
            r'timeout=60': f'timeout={PROXY_PATIENCE_SECONDS}',
        }.items():
            text = re.sub(pattern, replacement, text)
        return text
