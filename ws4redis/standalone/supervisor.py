"""The supervisor: the process that the user starts, and the parent of those that serve.

It holds the listening socket, so that no connection is refused while its children come and go. It
restarts a child that crashed, and at SIGHUP replaces all of them: new ones first, which read the
project's code anew, then the old ones close their websockets and end. It does nothing else, so
there is little in it that could fail.

Each child has a *slot*, which is its position in the programme, and a *generation*, which each
replacement begins anew. The older generations go when a child of the newest serves in every slot.
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
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import FrameType
from typing import NamedTuple

from ws4redis.standalone.options import ProcessOptions

logger = logging.getLogger('ws4redis')

FIRST_RESTART_SECONDS = 0.1
LAST_RESTART_SECONDS = 5.0
# A child that has lived this long did not crash because it cannot start.
STABLE_SECONDS = 10.0
KILL_SECONDS = 2.0


class CannotStart(Exception):
    """Tell that a child could not be started, or ended before it served."""


class Post(NamedTuple):
    """What a child is there for."""

    slot: int
    generation: int


@dataclass(eq=False)
class Child:
    """One process of the supervisor's."""

    process: subprocess.Popen[bytes]
    post: Post
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

    ``programme`` has the options of each, without descriptors. ``listeners`` are the sockets that
    they listen on, by role. ``stop_seconds`` is how long one may
    take to stop before it is killed; ``announce`` is called once, when all serve. ``command``
    starts a child; its options follow as one more argument.
    """

    def __init__(
        self,
        programme: list[ProcessOptions],
        listeners: Mapping[str, socket.socket],
        *,
        stop_seconds: float,
        announce: Callable[[], object],
        command: Sequence[str] = (sys.executable, '-m', 'ws4redis.standalone'),
    ) -> None:
        self._programme = programme
        self._listeners = listeners
        self._stop_seconds = stop_seconds
        self._announce = announce
        self._command = command
        self._children: list[Child] = []
        self._generation = 0
        self._failures: Counter[int] = Counter()
        self._restart_at: dict[Post, float] = {}
        self._has_served = False
        self._stopping = False
        self._kill_at: float | None = None
        # Its end tells the children that this process has ended, for whatever reason.
        self._lifeline, self._lifeline_writer = os.pipe()
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Start all, and return when all have ended after SIGTERM or SIGINT.

        Raise :class:`CannotStart` when one ends before it served for the first time.
        """
        with self._signals() as signals:
            try:
                self._start_generation()
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
        for post in [post for post, at in self._restart_at.items() if at <= now]:
            del self._restart_at[post]
            self._start_or_retry(post)
        if self._kill_at is not None and now >= self._kill_at:
            # A child that hangs does not make us hang.
            logger.error('processes did not stop in time: %d', len(self._children))
            self._kill_all()

    def _timeout(self) -> float | None:
        times = [*self._restart_at.values()]
        if self._kill_at is not None:
            times.append(self._kill_at)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _handle_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            if self._stopping:
                # Whoever asks twice does not want to wait.
                self._kill_all()
            self._stop()
        elif number == signal.SIGHUP and not self._stopping:
            self._replace_all()

    # Starting

    def _start_generation(self) -> None:
        for post in self._posts():
            self._start_or_retry(post)

    def _posts(self) -> list[Post]:
        return [Post(slot, self._generation) for slot in range(len(self._programme))]

    def _start_or_retry(self, post: Post) -> None:
        try:
            self._start(post)
        except OSError as exc:
            if not self._has_served:
                raise CannotStart(f'a process cannot be started: {exc}') from exc
            # No memory or descriptor is left: those that serve go on.
            delay = self._plan_restart(post)
            logger.error('a process cannot be started: %s; trying again in %.1f s', exc, delay)

    def _start(self, post: Post) -> Child:
        options = self._programme[post.slot]
        ready_fd, ready_writer = os.pipe()
        passed = [self._lifeline, ready_writer]
        listener = -1
        if options.role in self._listeners:
            listener = self._listeners[options.role].fileno()
            passed.append(listener)
        told = replace(options, listener=listener, lifeline=self._lifeline, ready=ready_writer)
        try:
            process = subprocess.Popen(  # noqa: S603 (it is our own)
                [*self._command, told.to_json()],
                pass_fds=passed,
                stdin=subprocess.DEVNULL,
                env=os.environ | {'PYTHONPATH': os.pathsep.join(path or '.' for path in sys.path)},
            )
        except BaseException:
            os.close(ready_fd)
            raise
        finally:
            os.close(ready_writer)
        child = Child(process, post, ready_fd, time.monotonic())
        self._children.append(child)
        self._selector.register(ready_fd, selectors.EVENT_READ, child)
        return child

    def _take_ready(self, child: Child) -> None:
        if child.ready_fd < 0:
            # Killed and forgotten since it was selected.
            return
        # One byte: it serves. None: it ended before, which `_bury` deals with.
        child.is_ready = os.read(child.ready_fd, 1) != b''
        self._forget_ready(child)
        if child.is_ready:
            self._welcome_generation()

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
        self._kill_at = time.monotonic() + self._stop_seconds

    def _kill_all(self) -> None:
        for child in self._children:
            child.signal(signal.SIGKILL)
        for child in self._children:
            try:
                child.process.wait(KILL_SECONDS)
            except subprocess.TimeoutExpired:
                logger.error('process %d does not end', child.process.pid)
            self._forget_ready(child)
        self._children.clear()
        self._kill_at = None

    def _replace_all(self) -> None:
        """Start a new generation; the older ones end as soon as it serves."""
        logger.info('restarting')
        self._restart_at.clear()
        for child in list(self._children):
            if not child.is_ready and not child.is_leaving:
                child.is_leaving = True
                child.signal(signal.SIGTERM)
        self._generation += 1
        self._start_generation()

    def _welcome_generation(self) -> None:
        """Once all of the newest generation serve, let those before it go."""
        serving = {child.post for child in self._children if child.is_ready}
        if self._stopping or not serving.issuperset(self._posts()):
            return
        if not self._has_served:
            self._has_served = True
            self._announce()
        for child in self._children:
            if child.post.generation < self._generation and not child.is_leaving:
                child.is_leaving = True
                child.signal(signal.SIGHUP)

    def _bury(self) -> None:
        """Take leave of children that ended, and replace those that were not told to.

        A child of an older generation has its successor already, or one that is tried again.
        """
        for child in list(self._children):
            status = child.process.poll()
            if status is None:
                continue
            self._children.remove(child)
            self._forget_ready(child)
            if child.is_leaving:
                continue
            if not self._has_served and not child.is_ready:
                raise CannotStart(f'a process ended with status {status} before it served')
            pid = child.process.pid
            if child.post.generation < self._generation:
                logger.error('process %d ended with status %d; its successor starts', pid, status)
                continue
            if time.monotonic() - child.started_at >= STABLE_SECONDS:
                self._failures[child.post.slot] = 0
            delay = self._plan_restart(child.post)
            logger.error(
                'process %d ended with status %d; another one starts in %.1f s', pid, status, delay
            )

    def _plan_restart(self, post: Post) -> float:
        """Have a child started later; return after how many seconds."""
        # After a night of failures, 2 ** failures would overflow a float.
        doublings = min(self._failures[post.slot], 10)
        delay = min(LAST_RESTART_SECONDS, FIRST_RESTART_SECONDS * 2.0**doublings)
        self._failures[post.slot] += 1
        self._restart_at[post] = time.monotonic() + delay
        return delay


def _ignore(number: int, frame: FrameType | None) -> None:
    """Let the wake-up descriptor tell."""
