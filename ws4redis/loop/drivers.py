"""Drivers: where the loop runs, where blocking work runs, and how others wait for the loop.

The loop itself is the same under each of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ws4redis.loop.blocking_call import BlockingCall, Pool, call_here
from ws4redis.loop.native import NativeBell, NativeEvent, start_thread, thread_ident
from ws4redis.loop.thread_hubs import prepare_hubs, prepare_locks
from ws4redis.loop.workers import Workers

if TYPE_CHECKING:
    from ws4redis.loop.loop import Loop

T = TypeVar('T')
Done = Callable[[Any, BaseException | None], object]
# Looks after a thread of a pool that has run something and has no more to do.
Care = Callable[[], object]

# For connecting to Redis: four connections at most, of which each may have three attempts that
# hang. The threads stay, since under gevent's monkey patching each leaves two descriptors behind,
# those of a loop of gevent's.
THREADS_APART = 12


class Event(Protocol):
    """An event that the loop sets once and for which code outside the loop waits."""

    def set(self) -> None: ...
    def is_set(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> bool: ...


class Bell(Protocol):
    """Let one thread or greenlet wait, again and again, until others ring.

    A wait may end though what is waited for is not there: look, and wait again.
    """

    def ring(self) -> None:
        """End the wait, or the next one if nobody waits. Safe in any thread."""

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the bell rings, or for ``timeout`` seconds."""


class Driver(Protocol):
    """Run a hub's loop, and blocking work beside it."""

    workers: Workers

    def start(self, loop: Loop) -> None:
        """Start the hub's loop and return. Called once, before anything else."""

    def wake(self) -> None:
        """Let the loop turn soon, since there is work for it. Safe in any thread."""

    def wait_stopped(self, timeout_seconds: float) -> bool:
        """Wait until the loop, which was told to stop, has ended; tell whether it has."""

    def finish(self, timeout_seconds: float) -> bool:
        """Let the loop go on until it ends by itself, while the process ends.

        Where nothing runs the loop any more, this does. Return whether it ended in time.
        """

    def in_loop(self) -> bool:
        """Tell whether the caller runs in the loop."""

    def is_at_rest(self) -> bool:
        """Tell whether the caller may use the loop's objects as if it ran in the loop.

        It may when it is of the loop's thread and the loop waits. What it leaves to the end of a
        turn, or to a timer, needs a :meth:`wake` afterwards.
        """

    def give_way(self) -> None:
        """Let others run, the loop among them, where they share a thread with the caller."""

    def event(self) -> Event:
        """Return a new event."""

    def bell(self) -> Bell:
        """Return a new bell for the calling thread or greenlet."""

    def run_blocking(
        self,
        function: Callable[..., T],
        *args: Any,
        timeout_seconds: float | None = None,
        too_late: Callable[[T], object] | None = None,
        pool: Pool = Pool.POLICY,
    ) -> T:
        """Run ``function`` where it may block, and wait for its result; not for use in the loop.

        Raise ``TookTooLong`` when that takes longer than ``timeout_seconds``; at once, where the
        caller can wait apart from it. ``too_late`` then gets the result, if there ever is one.
        """

    def pool(self, pool: Pool) -> Workers:
        """Return the threads that do what handshakes wait for, where the loop waits itself."""

    def submit(self, done: Done, function: Callable[..., Any], *args: Any) -> None:
        """Run ``function`` in the pool, then in the loop ``done(result, exception)``."""

    def submit_apart(self, done: Done, function: Callable[..., Any], *args: Any) -> None:
        """Do as :meth:`submit`, but at once, however much waits for the pool."""


class ThreadDriver:
    """Run the loop in a native thread."""

    def __init__(self, *, pool_size: int, care: Care | None = None) -> None:
        self.workers = Workers(pool_size, care=care)
        self._workers_apart = Workers(THREADS_APART)
        self._pools = {pool: Workers(pool_size, care=care) for pool in Pool}
        self._stopped: Event = NativeEvent()
        self._ident = 0
        self._loop: Loop | None = None

    def start(self, loop: Loop) -> None:
        self._loop = loop
        prepare_hubs()
        prepare_locks()
        start_thread(self._run, loop)

    def _run(self, loop: Loop) -> None:
        self._ident = thread_ident()
        try:
            while loop.running:
                loop.turn(loop.timeout())
        finally:
            loop.close()
            _stop((self.workers, self._workers_apart, *self._pools.values()))
            self._stopped.set()

    def wake(self) -> None:
        # The loop itself looks at its work before it sleeps.
        if self._loop is not None and thread_ident() != self._ident:
            self._loop.wakeup.wake()

    def wait_stopped(self, timeout_seconds: float) -> bool:
        return self._stopped.wait(timeout_seconds)

    def finish(self, timeout_seconds: float) -> bool:
        return self.wait_stopped(timeout_seconds)

    def in_loop(self) -> bool:
        return thread_ident() == self._ident

    def is_at_rest(self) -> bool:
        return False

    def give_way(self) -> None:
        pass

    def event(self) -> Event:
        return NativeEvent()

    def bell(self) -> Bell:
        return NativeBell()

    def run_blocking(
        self,
        function: Callable[..., T],
        *args: Any,
        timeout_seconds: float | None = None,
        too_late: Callable[[T], object] | None = None,
        pool: Pool = Pool.POLICY,
    ) -> T:
        # The caller is a thread of the WSGI server's own, and it is that server's pool that bounds.
        return call_here(function, args, timeout_seconds, too_late)

    def pool(self, pool: Pool) -> Workers:
        return self._pools[pool]

    def submit(self, done: Done, function: Callable[..., Any], *args: Any) -> None:
        assert self._loop is not None
        self.workers.submit(_run_and_report, self._loop, done, function, args)

    def submit_apart(self, done: Done, function: Callable[..., Any], *args: Any) -> None:
        assert self._loop is not None
        self._workers_apart.submit(_run_and_report, self._loop, done, function, args)


class GeventDriver:
    """Run the loop in a greenlet.

    The greenlet sleeps until the poller's own descriptor is readable, so all websockets together
    are one watcher of gevent's loop. The next timer is one more watcher, which wakes the loop.
    """

    def __init__(self, *, pool_size: int, care: Care | None = None) -> None:
        import gevent
        from gevent.hub import Waiter

        from ws4redis.loop.greenlets import GreenletBells, GreenletEvent

        self._gevent = gevent
        self._event_class = GreenletEvent
        self._bells_class = GreenletBells
        self._waiter_class = Waiter
        self.workers = Workers(pool_size, care=care)
        self._workers_apart = Workers(THREADS_APART)
        # Apart from what open websockets need: slow handshakes must not delay that.
        self._pools = {pool: Workers(pool_size, care=care) for pool in Pool}
        self._loop: Loop | None = None
        self._greenlet: Any = None
        self._timer: Any = None
        self._armed_for: float | None = None
        self._ident = 0
        # What the loop's greenlet waits for, while it does.
        self._waiter: Any = None
        self._run_callback: Any = None
        self._gevent_hub: Any = None
        self._bells: Any = None

    def start(self, loop: Loop) -> None:
        self._loop = loop
        self._ident = thread_ident()
        prepare_locks()
        self._gevent_hub = self._gevent.get_hub()
        self._bells = self._bells_class(self._gevent_hub, self._ident)
        self._run_callback = self._gevent_hub.loop.run_callback
        self._greenlet = self._gevent.spawn(self._run, loop)

    def _run(self, loop: Loop) -> None:
        gevent_hub = self._gevent.get_hub()
        watcher = gevent_hub.loop.io(loop.poller.fileno(), 1)
        try:
            while loop.running:
                timeout = loop.timeout()
                if timeout == 0:
                    self._gevent.sleep(0)
                else:
                    self._arm_timer(gevent_hub.loop, loop, timeout)
                    self._wait(gevent_hub, watcher)
                # finish() may have closed the loop meanwhile.
                if not loop.is_closed:
                    loop.turn(0)
        finally:
            watcher.close()
            self._disarm_timer()
            loop.close()
            self._stop_pools()

    def _wait(self, gevent_hub: Any, watcher: Any) -> None:
        self._waiter = waiter = self._waiter_class(gevent_hub)
        watcher.start(waiter.switch, None)
        try:
            waiter.get()
        finally:
            watcher.stop()
            self._waiter = None

    def wake(self) -> None:
        if thread_ident() != self._ident:
            if self._loop is not None:
                self._loop.wakeup.wake()
            return
        # Another greenlet of the same thread needs no pipe, which would cost three system calls. If
        # the loop does not wait, it will look at its work before it does.
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._run_callback(waiter.switch, None)

    def _arm_timer(self, gevent_loop: Any, loop: Loop, timeout: float | None) -> None:
        # Most turns leave the next deadline as it was, and then there is nothing to do. A timer
        # that has fired is armed anew, since gevent's clock may run ahead of ours by a little.
        deadline = loop.timers.next_deadline()
        if deadline == self._armed_for and self._timer is not None and self._timer.active:
            return
        self._disarm_timer()
        if timeout is not None:
            self._armed_for = deadline
            self._timer = gevent_loop.timer(timeout)
            self._timer.start(self.wake)

    def _disarm_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def wait_stopped(self, timeout_seconds: float) -> bool:
        if self._greenlet is not None:
            self._greenlet.join(timeout_seconds)
        return self._greenlet is None or self._greenlet.dead

    def finish(self, timeout_seconds: float) -> bool:
        # Whether gevent's loop still runs is not known here, and need not be: between its turns the
        # loop can be turned by anybody, and its greenlet never runs again.
        loop = self._loop
        assert loop is not None
        deadline = loop.timers.clock() + timeout_seconds
        while loop.running and (remaining := deadline - loop.timers.clock()) > 0:
            timeout = loop.timeout()
            loop.turn(remaining if timeout is None else min(remaining, timeout))
        in_time = not loop.running
        loop.close()
        self._stop_pools()
        return in_time

    def _stop_pools(self) -> None:
        _stop((self.workers, self._workers_apart, *self._pools.values()))

    def in_loop(self) -> bool:
        return self._gevent.getcurrent() is self._greenlet

    def is_at_rest(self) -> bool:
        return self._waiter is not None and thread_ident() == self._ident

    def give_way(self) -> None:
        if thread_ident() == self._ident:
            self._gevent.sleep(0)

    def event(self) -> Event:
        if thread_ident() == self._ident:
            return self._event_class(self._gevent_hub, self._ident)
        # Native threads of gevent's pool, say.
        return NativeEvent()

    def bell(self) -> Bell:
        if thread_ident() == self._ident:
            bell: Bell = self._bells.bell()
            return bell
        return NativeBell()

    def run_blocking(
        self,
        function: Callable[..., T],
        *args: Any,
        timeout_seconds: float | None = None,
        too_late: Callable[[T], object] | None = None,
        pool: Pool = Pool.POLICY,
    ) -> T:
        call = BlockingCall(function, args, self.event(), too_late)
        return call.wait_in(self._pools[pool], timeout_seconds)

    def pool(self, pool: Pool) -> Workers:
        return self._pools[pool]

    def submit(self, done: Done, function: Callable[..., Any], *args: Any) -> None:
        assert self._loop is not None
        self.workers.submit(_run_and_report, self._loop, done, function, args)

    def submit_apart(self, done: Done, function: Callable[..., Any], *args: Any) -> None:
        assert self._loop is not None
        self._workers_apart.submit(_run_and_report, self._loop, done, function, args)


def _stop(pools: Sequence[Workers]) -> None:
    for workers in pools:
        workers.stop()
    for workers in pools:
        workers.wait_ended()


def _run_and_report(
    loop: Loop, done: Done, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    try:
        result = function(*args)
    except BaseException as exc:  # noqa: BLE001 (it is reported, or its caller would wait for ever)
        loop.call_soon(done, None, exc)
    else:
        loop.call_soon(done, result, None)


def choose_driver(*, pool_size: int, care: Care | None = None) -> Driver:
    """Return the driver for the server that runs this process.

    uWSGI's gevent loop, and elsewhere a process whose ``threading`` gevent has patched, get the
    :class:`GeventDriver`; any other gets the :class:`ThreadDriver`.
    """
    if runs_under_gevent():
        return GeventDriver(pool_size=pool_size, care=care)
    return ThreadDriver(pool_size=pool_size, care=care)


def runs_under_gevent() -> bool:
    """Tell whether gevent's loop runs the requests of this process."""
    uwsgi = sys.modules.get('uwsgi')
    if uwsgi is not None:
        # With --threads the requests run in native threads, even if the project patches threading.
        return 'gevent' in uwsgi.opt
    monkey = sys.modules.get('gevent.monkey')
    if monkey is not None and monkey.is_module_patched('threading'):
        return True
    # gevent's pywsgi runs each request in a greenlet, in a process that is patched or not.
    gevent: Any = sys.modules.get('gevent')
    return gevent is not None and isinstance(gevent.getcurrent(), gevent.Greenlet)
