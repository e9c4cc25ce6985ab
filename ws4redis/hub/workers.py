"""A bounded pool of native threads for what may block.

``concurrent.futures`` would do, were it not that gevent's monkey patching turns its threads into
greenlets of whichever thread submits; here, that is the loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ws4redis.hub.native import original, start_thread

logger = logging.getLogger('ws4redis')


class Workers:
    """Run functions in at most ``size`` native threads, in the order in which they came."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._tasks = original('queue', 'SimpleQueue')()
        self._lock = original('_thread', 'allocate_lock')()
        self._threads = 0
        # Submitted and not finished: each task is run by a thread, or one was left to take it.
        self._unfinished = 0

    @property
    def waiting(self) -> int:
        """The number of tasks that no thread has begun."""
        waiting: int = self._tasks.qsize()
        return waiting

    @property
    def unfinished(self) -> int:
        """The number of tasks that wait or run."""
        return self._unfinished

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)`` soon; its result is dropped, its exception logged."""
        with self._lock:
            self._unfinished += 1
            starts = self._threads < min(self._unfinished, self.size)
            self._threads += starts
        self._tasks.put((function, args))
        if starts:
            start_thread(self._run)

    def stop(self) -> None:
        """Let each thread end once it has done what was submitted before."""
        for _ in range(self._threads):
            self._tasks.put(None)

    def _run(self) -> None:
        while True:
            task = self._tasks.get()
            if task is None:
                return
            function, args = task
            try:
                function(*args)
            except BaseException:
                # Even what calls sys.exit() must not end this thread, which the pool counts on.
                logger.exception('a task of the worker pool failed')
            with self._lock:
                self._unfinished -= 1
            # Nothing of a task may outlive it in this frame while the thread waits for the next.
            del task, function, args
