"""Run a server as a real child process, read its log, and leave nothing of it behind.

A server is the leader of a process group of its own, so that it can be killed with its children.
Its output goes through a pipe to a thread that keeps the lines and wakes those who wait for one:
that is how a test knows that the server is ready, without sleeping. The end of that pipe means that
the last process of the group is gone.
"""

from __future__ import annotations

import atexit
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.timeouts import SERVER_SECONDS, SOON_SECONDS

ROOT = Path(__file__).resolve().parent.parent
_LOG_LINES_SHOWN = 200

#: The servers that run now, for the report of a failed test.
running: list[ServerProcess] = []


class ServerFailed(Exception):
    """Tell that a server did not start, or did not do what was waited for; carries its log."""


class _Guard:
    """The one process that kills our servers should this process die. See process_guard.py."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def _send(self, line: str) -> None:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, '-S', '-E', str(ROOT / 'tests' / 'process_guard.py')],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()

    def add(self, group: int) -> None:
        self._send(f'+{group}\n')

    def remove(self, group: int) -> None:
        self._send(f'-{group}\n')

    def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
            self._process = None


_guard = _Guard()
atexit.register(_guard.close)


class ServerProcess:
    """One server process and its children.

    Subclasses say what to run (`command`) and how to know that it is ready (`wait_until_ready`).
    Use it as a context manager, or call `start` and `stop`. `start` after `stop` runs it again with
    the same ports.
    """

    name = 'server'
    stop_signal = signal.SIGTERM

    def __init__(self, *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        self._extra_env = dict(env or {})
        self._cwd = cwd or ROOT
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._lines: list[str] = []
        self._output_ended = True
        self._changed = threading.Condition()

    # What subclasses say

    def command(self) -> Sequence[str]:
        """Return the arguments of the process."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return the environment of the process."""
        environment = {**os.environ, 'PYTHONUNBUFFERED': '1', 'WS4REDIS_TEST_SERVER': '1'}
        environment['PYTHONPATH'] = os.pathsep.join(
            [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
        )
        return environment | self._extra_env

    def wait_until_ready(self, since: int) -> None:
        """Return when the server serves; ``since`` is where its log starts."""
        raise NotImplementedError

    # Life

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The number of the process, which is that of its process group too."""
        if self._process is None:
            raise ServerFailed(f'{self.name} does not run')
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Tell whether the server's first process lives (paused counts as living)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the server and wait until it is ready. Raises ServerFailed."""
        self.spawn()
        try:
            self.wait_until_ready(self._start_of_log)
        except BaseException:
            self.kill()
            raise
        return self

    def spawn(self) -> Self:
        """Start the server without waiting until it is ready."""
        assert self._process is None, f'{self.name} runs already'
        self._start_of_log = len(self._lines)
        self._process = subprocess.Popen(
            list(self.command()),
            env=self.environment(),
            cwd=self._cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        _guard.add(self._process.pid)
        running.append(self)
        self._output_ended = False
        self._reader = threading.Thread(
            target=self._read_output, args=(self._process,), name=f'log of {self.name}', daemon=True
        )
        self._reader.start()
        return self

    def stop(self) -> int | None:
        """Stop the server as an administrator would, and return its exit status.

        A server that does not stop in time is killed, and ServerFailed is raised.
        """
        if self._process is None:
            return None
        self.signal(signal.SIGCONT)
        self.signal(self.stop_signal)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerFailed(f'{self.name} did not stop by itself\n{self.log_text()}') from None

    def kill(self) -> None:
        """Kill the server and its children at once (SIGKILL)."""
        if self._process is not None:
            self._signal_group(signal.SIGKILL)
            self.wait()

    def wait(self, timeout: float = SERVER_SECONDS) -> int:
        """Wait until the server has ended, and return its exit status.

        Whatever it leaves behind in its process group is killed. Raises TimeoutExpired.
        """
        assert self._process is not None
        assert self._reader is not None
        process = self._process
        status = process.wait(timeout)
        # Children of an orderly server end with it, but perhaps a moment later.
        self._reader.join(2)
        self._signal_group(signal.SIGKILL)
        self._reader.join(SOON_SECONDS)
        if process.stdout is not None and not self._reader.is_alive():
            process.stdout.close()
        self._process = None
        running.remove(self)
        _guard.remove(process.pid)
        return status

    def restart(self) -> Self:
        """Stop the server if it runs, and start it again on the same port."""
        self.stop()
        return self.start()

    def signal(self, number: int) -> None:
        """Send a signal to the server's first process alone."""
        assert self._process is not None
        self._process.send_signal(number)

    def pause(self) -> None:
        """Halt the server and its children (SIGSTOP): it takes connections, but never answers."""
        self._signal_group(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._signal_group(signal.SIGCONT)

    def _signal_group(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass

    # Log

    def _read_output(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._changed:
                self._lines.append(line.decode(errors='replace').rstrip('\r\n'))
                self._changed.notify_all()
        with self._changed:
            self._output_ended = True
            self._changed.notify_all()

    def log_lines(self, since: int = 0) -> list[str]:
        """Return the lines written so far, from number ``since`` on."""
        with self._changed:
            return self._lines[since:]

    def log_text(self, since: int = 0) -> str:
        """Return the log as one text."""
        return '\n'.join(self.log_lines(since))

    def log_position(self) -> int:
        """Return where the log ends now, for ``since``."""
        with self._changed:
            return len(self._lines)

    def wait_for_log(
        self, pattern: str, *, since: int = 0, count: int = 1, timeout: float = SERVER_SECONDS
    ) -> str:
        """Wait for ``count`` log lines that match a regular expression, and return the last.

        Raises ServerFailed when the server ends before, or after ``timeout`` seconds.
        """
        expression = re.compile(pattern)
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = [line for line in self._lines[since:] if expression.search(line)]
                if len(found) >= count:
                    return found[count - 1]
                remaining = deadline - time.monotonic()
                if self._output_ended or remaining <= 0:
                    what = 'ended' if self._output_ended else f'wrote for {timeout:g} s'
                    log = '\n'.join(self._lines[since:][-_LOG_LINES_SHOWN:])
                    raise ServerFailed(
                        f'{self.name} {what} without a line that matches {pattern!r}:\n{log}'
                    )
                self._changed.wait(remaining)

    def recent_log(self) -> str:
        """Return the end of the log, for a report."""
        return '\n'.join(self.log_lines()[-_LOG_LINES_SHOWN:])


class HttpServerProcess(ServerProcess):
    """What servers of HTTP have in common."""

    host: str = '127.0.0.1'
    port: int

    @property
    def url(self) -> str:
        """The server's URL, without a slash at the end."""
        return f'http://{self.host}:{self.port}'

    @property
    def ws_url(self) -> str:
        """The server's URL for websockets, without a slash at the end."""
        return f'ws://{self.host}:{self.port}'

    def get(self, path: str = '/', *, timeout: float = SOON_SECONDS) -> str:
        """Return the body of a GET request. Raises urllib.error.HTTPError for 4xx and 5xx."""
        with urllib.request.urlopen(self.url + path, timeout=timeout) as response:
            body: bytes = response.read()
        return body.decode()


def still_alive(
    processes: Sequence[psutil.Process], *, timeout: float = SOON_SECONDS
) -> list[psutil.Process]:
    """Return those of the processes that have not ended after ``timeout`` seconds.

    A zombie has ended: whoever inherited it may be slow to take notice.
    """
    deadline = time.monotonic() + timeout
    while True:
        alive = [process for process in processes if not _has_ended(process)]
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.02)


def _has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for_port(address: tuple[str, int] | str, *, timeout: float = SERVER_SECONDS) -> None:
    """Wait until a TCP port, or the path of a Unix socket, accepts connections.

    Raises ServerFailed after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    pause = 0.002
    while True:
        with socket.socket(family) as probe:
            probe.settimeout(timeout)
            try:
                probe.connect(address)
                return
            except OSError as exc:
                if time.monotonic() > deadline:
                    raise ServerFailed(f'nothing listens at {address}: {exc}') from exc
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
