"""The supervisor: the process that the user starts, and the parent of those that serve.

It holds the listening socket, so that no connection is refused while its children come and go. It
restarts a child that crashed, and at SIGHUP replaces all of them: new ones first, which read the
project's code anew, then the old ones close their websockets and end. It does nothing else, so
there is little in it that could fail.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import FrameType

from ws4redis.standalone.options import ProcessOptions

logger = logging.getLogger('ws4redis')

FIRST_RESTART_SECONDS = 0.1
LAST_RESTART_SECONDS = 5.0
# A child that has lived for so long did not crash because it cannot start.
STABLE_SECONDS = 10.0
KILL_SECONDS = 2.0


class CannotStart(Exception):
    """Tell that a child ended before it served; carries its exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(f'a process ended with status {status} before it served')
        self.status = status


@dataclass(eq=False)
class Child:
    """One process of the supervisor's."""

    process: subprocess.Popen[bytes]
    options: ProcessOptions
    ready_fd: int
    started_at: float
    is_ready: bool = False
    # Told to end: it is not replaced when it does.
    is_leaving: bool = False

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


class Supervisor:
    """Keep processes running.

    ``programme`` has the options of each, without descriptors. ``stop_seconds`` is how long one may
    take to stop before it is killed; ``announce`` is called once, when all serve.
    """

    def __init__(
        self,
        programme: list[ProcessOptions],
        listener: socket.socket | None,
        *,
        stop_seconds: float,
        announce: Callable[[], object],
    ) -> None:
        self._programme = programme
        self._listener = listener
        self._stop_seconds = stop_seconds
        self._announce = announce
        self._children: list[Child] = []
        self._failures = 0
        self._restart_at: list[tuple[float, ProcessOptions]] = []
        self._stopping = False
        # Its end tells the children that we have gone, however we went.
        self._lifeline, self._lifeline_writer = os.pipe()
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Start all, and return when all have ended after SIGTERM or SIGINT.

        Raise :class:`CannotStart` when one ends before it served for the first time.
        """
        with self._signals() as signals:
            try:
                self._start_all()
                if not self._stopping:
                    self._announce()
                while self._children or not self._stopping:
                    self._turn(signals)
            finally:
                self._kill_all()
                self._selector.close()
                os.close(self._lifeline)
                os.close(self._lifeline_writer)

    # Signals arrive as bytes in a pipe, so that all happens in one place.

    @contextlib.contextmanager
    def _signals(self) -> Iterator[int]:
        reader, writer = os.pipe()
        for fd in (reader, writer):
            os.set_blocking(fd, False)
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        before = {number: signal.signal(number, _ignore) for number in numbers}
        wakeup_before = signal.set_wakeup_fd(writer)
        self._selector.register(reader, selectors.EVENT_READ)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)

    def _turn(self, signals: int) -> None:
        """Wait for what happens next, and do it."""
        for key, _ in self._selector.select(self._timeout()):
            if key.fd == signals:
                for number in os.read(signals, 512):
                    self._handle_signal(number)
            else:
                self._take_ready(key.data)
        self._bury()
        now = time.monotonic()
        due = [options for at, options in self._restart_at if at <= now]
        self._restart_at = [entry for entry in self._restart_at if entry[0] > now]
        for options in due:
            self._start(options)

    def _timeout(self) -> float | None:
        if not self._restart_at:
            return None
        return max(0.0, min(at for at, _ in self._restart_at) - time.monotonic())

    def _handle_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            if self._stopping:
                # Impatient: whoever asks twice does not want to wait.
                self._kill_all()
            self._stop()
        elif number == signal.SIGHUP and not self._stopping:
            self._replace_all()

    # Starting

    def _start_all(self) -> None:
        for options in self._programme:
            self._start(options)
        while any(not child.is_ready for child in self._children):
            self._await_ready()
            if self._stopping:
                return

    def _await_ready(self) -> None:
        """Wait until something happens to children that start; raise if one ends instead."""
        for key, _ in self._selector.select():
            if isinstance(key.data, Child):
                self._take_ready(key.data)
            else:
                for number in os.read(key.fd, 512):
                    if number in (signal.SIGTERM, signal.SIGINT):
                        self._stop()
        if self._stopping:
            return
        for child in self._children:
            status = child.process.poll()
            if status is not None and not child.is_ready:
                raise CannotStart(status)

    def _start(self, options: ProcessOptions) -> Child:
        ready_fd, ready_writer = os.pipe()
        passed = [self._lifeline, ready_writer]
        listener = -1
        if self._listener is not None and options.role == 'server':
            listener = self._listener.fileno()
            passed.append(listener)
        told = replace(options, listener=listener, lifeline=self._lifeline, ready=ready_writer)
        try:
            process = subprocess.Popen(  # noqa: S603 (it is our own)
                [sys.executable, '-m', 'ws4redis.standalone', told.to_json()],
                pass_fds=passed,
                stdin=subprocess.DEVNULL,
                env=os.environ | {'PYTHONPATH': os.pathsep.join(path or '.' for path in sys.path)},
            )
        finally:
            os.close(ready_writer)
        child = Child(process, options, ready_fd, time.monotonic())
        self._children.append(child)
        self._selector.register(ready_fd, selectors.EVENT_READ, child)
        return child

    def _take_ready(self, child: Child) -> None:
        # One byte: it serves. None: it ended before, which `_bury` deals with.
        child.is_ready = os.read(child.ready_fd, 1) != b''
        self._forget_ready(child)
        if child.is_ready:
            self._retire_predecessors(child)

    def _forget_ready(self, child: Child) -> None:
        if child.ready_fd >= 0:
            self._selector.unregister(child.ready_fd)
            os.close(child.ready_fd)
            child.ready_fd = -1

    # Ending

    def _stop(self) -> None:
        self._stopping = True
        self._restart_at.clear()
        for child in self._children:
            child.is_leaving = True
            child.signal(signal.SIGTERM)
        # A child that hangs does not make us hang.
        signal.signal(signal.SIGALRM, self._kill_all_by_signal)
        signal.setitimer(signal.ITIMER_REAL, self._stop_seconds)

    def _kill_all_by_signal(self, number: int, frame: FrameType | None) -> None:
        logger.error('processes did not stop in time: %d', len(self._children))
        for child in self._children:
            child.signal(signal.SIGKILL)

    def _kill_all(self) -> None:
        for child in self._children:
            child.signal(signal.SIGKILL)
        for child in self._children:
            child.process.wait(KILL_SECONDS)
            self._forget_ready(child)
        self._children.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _replace_all(self) -> None:
        """Start a successor for each child; the old ones end as soon as their successors serve."""
        logger.info('restarting')
        self._restart_at.clear()
        for child in list(self._children):
            if not child.is_ready and not child.is_leaving:
                child.is_leaving = True
                child.signal(signal.SIGTERM)
        for options in self._programme:
            self._start(options)

    def _retire_predecessors(self, successor: Child) -> None:
        if any(not child.is_ready and not child.is_leaving for child in self._children):
            return
        # All of one generation serve: those that are older go.
        latest = [c for c in self._children if not c.is_leaving][-len(self._programme) :]
        for child in self._children:
            if child not in latest and not child.is_leaving:
                child.is_leaving = True
                child.signal(signal.SIGHUP)

    def _bury(self) -> None:
        """Take leave of children that ended, and replace those that were not told to."""
        for child in list(self._children):
            status = child.process.poll()
            if status is None:
                continue
            self._children.remove(child)
            self._forget_ready(child)
            if child.is_leaving:
                continue
            self._plan_restart(child, status)

    def _plan_restart(self, child: Child, status: int) -> None:
        if time.monotonic() - child.started_at >= STABLE_SECONDS:
            self._failures = 0
        delay = min(LAST_RESTART_SECONDS, FIRST_RESTART_SECONDS * 2**self._failures)
        self._failures += 1
        logger.error(
            'process %d ended with status %d; another one starts in %.1f s',
            child.process.pid,
            status,
            delay,
        )
        self._restart_at.append((time.monotonic() + delay, child.options))


def _ignore(number: int, frame: FrameType | None) -> None:
    """Let the wake-up descriptor tell."""
