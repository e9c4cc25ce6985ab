"""The stress tests run as their docstrings say."""

from __future__ import annotations

import importlib
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.free_ports import free_port
from tests.programs import RedisServer, uwsgi_command, wait_for_port
from tests.server_process import ROOT, ServerProcess
from tests.timeouts import SERVER_SECONDS

STRESS_TESTS = ROOT / 'stress-tests'


class DescribedServer(ServerProcess):
    """The server whose command is in the docstring of a stress test."""

    name = 'uWSGI'

    def __init__(self, stress_test: Path, redis_server: RedisServer) -> None:
        super().__init__(
            env={
                'WS4REDIS_URL': redis_server.url,
                'PYTHONPATH': str(ROOT),
                'DJANGO_SETTINGS_MODULE': 'chatserver.settings',
            },
            cwd=ROOT / 'examples',
        )
        self.port = free_port()
        (command,) = re.findall(r'^    uwsgi (.+)$', stress_test.read_text(), re.MULTILINE)
        self._arguments = shlex.split(command.replace(':8000', f'127.0.0.1:{self.port}'))
        # More than small containers let a socket have, and than these few websockets need.
        listen = self._arguments.index('--listen')
        del self._arguments[listen : listen + 2]

    def command(self) -> Sequence[str]:
        return [*uwsgi_command(), '--die-on-term', *self._arguments]

    def wait_until_ready(self, since: int) -> None:
        self.wait_for_log(r'WSGI app 0 .* ready in', since=since)
        wait_for_port(('127.0.0.1', self.port))


@pytest.mark.parametrize('name', ['test_uwsgi_gevent.py', 'test_uwsgi_threads.py'])
def test_a_stress_test_passes_against_the_server_that_it_describes(
    redis_server: RedisServer, name: str
) -> None:
    with DescribedServer(STRESS_TESTS / name, redis_server) as server:
        done = subprocess.run(
            [
                *(sys.executable, '-m', 'pytest', '-n', '0', '-p', 'no:cacheprovider', '-q'),
                *(str(STRESS_TESTS / name), '--websockets', '50'),
                *('--websocket-url', f'ws://localhost:{server.port}/ws/stress'),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=SERVER_SECONDS,
            check=False,
        )
    assert '1 passed' in done.stdout, done.stdout


def test_clients_of_stress_tests_take_no_heartbeat_for_a_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(STRESS_TESTS)
    clients = importlib.import_module('blocking_clients')
    ours, theirs = socket.socketpair()
    answer = b'HTTP/1.1 101 OK\r\nSec-WebSocket-Accept: ' + clients.frames.ACCEPT + b'\r\n\r\n'
    theirs.sendall(answer + b'\x81\x0d--heartbeat--' + b'\x81\x05hello')
    module = SimpleNamespace(create_connection=lambda *_args, **_options: ours)
    with theirs, ours:
        facility = clients.Facility('localhost', 80, '/ws/stress')
        connection = clients.Connection(module, facility, 'subscribe-broadcast')
        assert connection.receive() == b'hello'
