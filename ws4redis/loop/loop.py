"""The loop: one loop over every websocket, the Redis connections and the wake-up pipe.

The methods that other threads may call say so; everything else runs in the loop.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from ws4redis.loop.drivers import Driver
from ws4redis.loop.poller import READABLE, make_poller
from ws4redis.loop.timers import Timer, Timers
from ws4redis.loop.wakeup import WakeUp

logger = logging.getLogger('ws4redis')


class Handler(Protocol):
    """What the loop calls when a descriptor is ready."""

    def ready(self, events: int) -> None: ...


class Loop:
    """Turn over ready descriptors, calls of other threads, timers and work that is left over."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.poller = make_poller()
        self.timers = Timers()
        self.wakeup = WakeUp()
        self.handlers: dict[int, Handler] = {}
        self.running = True
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._turn_ends: list[Callable[[], bool]] = []
        self._unfinished = False
        self.is_closed = False
        self._closers: list[Callable[[], object]] = []
        self.register(self.wakeup.fileno(), self.wakeup)

    # Called from any thread

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Call ``function(*args)`` in the loop, in the order of these calls."""
        self._calls.append((function, args))
        if self.is_closed:
            self._run_calls()
        else:
            self.driver.wake()

    def stop(self) -> None:
        """End the loop after its present turn."""
        self.running = False
        self.driver.wake()

    # Called in the loop

    def register(self, fd: int, handler: Handler, events: int = READABLE) -> None:
        self.handlers[fd] = handler
        self.poller.register(fd, events)

    def unregister(self, fd: int) -> None:
        del self.handlers[fd]
        self.poller.unregister(fd)

    def call_later(self, seconds: float, function: Callable[..., object], *args: Any) -> Timer:
        return self.timers.call_later(seconds, function, *args)

    def at_turn_end(self, function: Callable[[], bool]) -> None:
        """Call ``function`` at the end of every turn; it returns whether it has more to do."""
        self._turn_ends.append(function)

    def at_close(self, function: Callable[[], object]) -> None:
        """Call ``function`` when the loop has ended."""
        self._closers.append(function)

    def timeout(self) -> float | None:
        """Return for how many seconds the next poll may wait; ``None`` means without limit."""
        if self._unfinished or self._calls:
            return 0
        deadline = self.timers.next_deadline()
        return None if deadline is None else max(0.0, deadline - self.timers.clock())

    def turn(self, timeout_seconds: float | None) -> None:
        """Do whatever there is to do now, waiting at most ``timeout_seconds`` for it."""
        handlers = self.handlers
        for fd, events in self.poller.poll(timeout_seconds):
            handler = handlers.get(fd)
            if handler is not None:
                try:
                    handler.ready(events)
                except Exception:
                    logger.exception('handling a ready descriptor failed: %r', handler)
                    self._disown(fd, handler)
        for _ in range(len(self._calls)):
            function, args = self._calls.popleft()
            self._run(function, *args)
        for timer in self.timers.due():
            # An earlier one of them may have cancelled it.
            if timer.function is not None:
                function, timer.function = timer.function, None
                self._run(function, *timer.args)
        self._unfinished = False
        for turn_end in self._turn_ends:
            try:
                if turn_end():
                    self._unfinished = True
            except Exception:
                logger.exception('work at the end of a turn failed')

    def close(self) -> None:
        """Close what the loop holds. Called by the driver when the loop has ended."""
        if self.is_closed:
            return
        self.is_closed = True
        self.running = False
        # Work that came too late for the last turn still gets done: a socket that was just handed
        # over has to be closed.
        self._run_calls()
        for function in reversed(self._closers):
            self._run(function)
        self.unregister(self.wakeup.fileno())
        self.wakeup.close()
        self.poller.close()

    def _run_calls(self) -> None:
        """Run calls that come too late for any turn, in whichever thread."""
        while True:
            try:
                function, args = self._calls.popleft()
            except IndexError:
                return
            self._run(function, *args)

    def _run(self, function: Callable[..., object], *args: Any) -> None:
        # No callback may end the loop, whatever it raises.
        try:
            function(*args)
        except Exception:
            logger.exception('a callback in the websocket loop failed: %r', function)

    def _disown(self, fd: int, handler: Handler) -> None:
        # A handler that raised would be called again at once, for the same reason, for ever.
        failed = getattr(handler, 'failed', None)
        if failed is not None:
            self._run(failed)
        elif self.handlers.get(fd) is handler and handler is not self.wakeup:
            self.unregister(fd)
