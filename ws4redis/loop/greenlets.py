"""Waiting in greenlets of the loop's own thread, at less cost than gevent's events.

A view waits once per message, so this is a large part of what a message costs it. Hence bells: they
are made once and used again and again, and one callback of gevent's loop wakes all greenlets whose
bells have rung. gevent is imported by whoever uses this module.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from gevent import getcurrent
from gevent.hub import Waiter

from ws4redis.loop.native import thread_ident

# After this many it is the turn of other greenlets and gevent's loop.
_WOKEN_AT_ONCE = 100


class GreenletEvent:
    """Let one greenlet of the thread ``ident`` wait; it is set once and not used again.

    ``hub`` is gevent's hub of that thread. :meth:`set` may be called from any thread.
    """

    __slots__ = ('_hub', '_ident', '_is_set', '_waiter')

    def __init__(self, hub: Any, ident: int) -> None:
        self._hub = hub
        self._ident = ident
        self._is_set = False
        self._waiter: Any = None

    def set(self) -> None:
        if self._is_set:
            return
        self._is_set = True
        waiter = self._waiter
        if thread_ident() == self._ident:
            if waiter is not None:
                self._hub.loop.run_callback(waiter.switch, None)
        else:
            # The greenlet may be about to wait: whether it does is asked in its own thread.
            self._hub.loop.run_callback_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._waiter is not None:
            self._waiter.switch(None)

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to ``timeout`` seconds and tell whether the event is set."""
        if self._is_set:
            return True
        # If the greenlet no longer waits, after an exception say, the switch does nothing.
        self._waiter = waiter = Waiter(self._hub)
        try:
            if timeout is None:
                waiter.get()
            else:
                self._wait_for(waiter, timeout)
        finally:
            self._waiter = None
        return self._is_set

    def _wait_for(self, waiter: Any, timeout: float) -> None:
        timer = self._hub.loop.timer(timeout)
        timer.start(waiter.switch, None)
        try:
            waiter.get()
        finally:
            timer.stop()
            timer.close()


class GreenletBells:
    """All bells of a thread, and those that have rung. ``hub`` is gevent's hub of that thread."""

    def __init__(self, hub: Any, ident: int) -> None:
        self.hub = hub
        self.ident = ident
        self._rung: deque[GreenletBell] = deque()

    def bell(self) -> GreenletBell:
        """Return a new bell."""
        return GreenletBell(self)

    def ring(self, bell: GreenletBell) -> None:
        """Wake the greenlet that waits for a bell, soon. Safe in any thread."""
        rung = self._rung
        rung.append(bell)
        if thread_ident() != self.ident:
            self.hub.loop.run_callback_threadsafe(self._wake)
        elif len(rung) == 1:
            # Longer, and the callback is on its way.
            self.hub.loop.run_callback(self._wake)

    def _wake(self) -> None:
        """Run the greenlets whose bells have rung, one after the other. Runs in gevent's hub."""
        rung = self._rung
        try:
            for _ in range(min(len(rung), _WOKEN_AT_ONCE)):
                rung[0].wake()
                rung.popleft()
        except BaseException:
            # A greenlet has died of an exception, which now is the hub's.
            rung.popleft()
            raise
        finally:
            if rung:
                self.hub.loop.run_callback(self._wake)


class GreenletBell:
    """Let one greenlet wait, again and again, until others ring."""

    __slots__ = ('_bells', '_greenlet', '_has_rung')

    def __init__(self, bells: GreenletBells) -> None:
        self._bells = bells
        self._greenlet: Any = None
        self._has_rung = False

    def ring(self) -> None:
        """End the wait, or the next one if nobody waits. Safe in any thread."""
        if not self._has_rung:
            self._has_rung = True
            self._bells.ring(self)

    def wake(self) -> None:
        """Switch to the greenlet if it still waits. Runs in gevent's hub."""
        greenlet = self._greenlet
        if greenlet is not None:
            greenlet.switch()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the bell rings, or for ``timeout`` seconds."""
        if self._has_rung:
            self._has_rung = False
            return
        hub = self._bells.hub
        self._greenlet = getcurrent()
        try:
            if timeout is None:
                hub.switch()
            else:
                self._wait_for(hub, timeout)
        finally:
            # Also after an exception, such as gevent's Timeout or GreenletExit: a switch that is
            # on its way would come to a greenlet that waits for something else by now.
            self._greenlet = None
            self._has_rung = False

    def _wait_for(self, hub: Any, timeout: float) -> None:
        timer = hub.loop.timer(max(0.0, timeout))
        timer.start(self.wake)
        try:
            hub.switch()
        finally:
            timer.stop()
            timer.close()
