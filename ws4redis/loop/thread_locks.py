"""Locks that native threads share in a process that gevent has patched.

Django, redis-py and logging have locks of their own, and monkey patching makes them gevent's. The
greenlets of one thread share such a lock well, native threads do not. gevent tells those who wait
out of the hub of the thread that had the lock. That hub may not turn for long, since its thread is
busy. And it cannot switch to a greenlet of another thread: that one goes on waiting for a lock that
is free, until somebody else happens to use it (https://github.com/gevent/gevent/issues/1744 and
https://github.com/gevent/gevent/issues/2013). Handshakes that came all at once to the threads of a
pool timed out for that.

So this is a hack: it replaces how gevent's class waits. Whoever waits stands in a queue with an
event that any thread may set; whoever releases the lock sets the first one, whatever hubs do. To
take a lock that is free is left to gevent.
"""

from __future__ import annotations

import contextlib
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any

from gevent.lock import BoundedSemaphore
from gevent.thread import LockType

from ws4redis.loop.greenlets import GreenletEvent
from ws4redis.loop.native import NativeEvent, thread_ident
from ws4redis.loop.thread_hubs import existing_hub

if TYPE_CHECKING:
    from ws4redis.loop.drivers import Event

# A hub without any timer ends for want of anything to do, so nobody waits without limit. It also
# helps after a fork, where threads that are gone stand in queues.
_LOOK_AGAIN_SECONDS = 1.0
_QUEUE = 'ws4redis_queue'

_acquire_as_gevent = LockType.acquire
_try_to_take = BoundedSemaphore.acquire
_give_back = BoundedSemaphore.release


def mend_locks() -> None:
    """Let native threads share the locks that gevent has made of those of the standard library."""
    LockType.acquire = _acquire
    LockType.release = _release


def _acquire(
    lock: Any,
    blocking: bool = True,  # noqa: FBT001, FBT002 (as the standard library has it)
    timeout: float | None = -1,
) -> bool:
    if timeout == -1:
        timeout = None
    if not blocking or (timeout is not None and not 0 <= timeout <= LockType._TIMEOUT_MAX):
        # Nobody waits, or the arguments are wrong.
        is_taken: bool = _acquire_as_gevent(lock, blocking, -1 if timeout is None else timeout)
        return is_taken
    return _try_to_take(lock, blocking=False) or _wait(lock, timeout)


def _release(lock: Any) -> Any:
    counter = _give_back(lock)
    queue = lock.__dict__.get(_QUEUE)
    if queue:
        _call_first(queue)
    return counter


def _wait(lock: Any, timeout: float | None) -> bool:
    deadline = None if timeout is None else monotonic() + timeout
    queue: deque[Event] = lock.__dict__.setdefault(_QUEUE, deque())
    was_called = False
    while True:
        event = _make_event()
        # Who was called, but came too late, is the next one again.
        if was_called:
            queue.appendleft(event)
        else:
            queue.append(event)
        is_taken = waits_on = False
        try:
            # Only now: whoever releases the lock after this attempt finds the event.
            is_taken = bool(_try_to_take(lock, blocking=False))
            left = _LOOK_AGAIN_SECONDS if deadline is None else deadline - monotonic()
            if is_taken or left <= 0:
                return is_taken
            event.wait(min(left, _LOOK_AGAIN_SECONDS))
            waits_on = True
        finally:
            was_called = not _leave(queue, event)
            if was_called and not is_taken and not waits_on:
                # In vain, and in place of those behind.
                _call_first(queue)


def _make_event() -> Event:
    hub = existing_hub()
    return NativeEvent() if hub is None else GreenletEvent(hub, thread_ident())


def _leave(queue: deque[Event], event: Event) -> bool:
    """Take an event out of the queue; tell whether it was there, so that nobody has called it."""
    try:
        queue.remove(event)
    except ValueError:
        return False
    return True


def _call_first(queue: deque[Event]) -> None:
    with contextlib.suppress(IndexError):
        event = queue.popleft()
        # Its thread may have ended meanwhile, and with it the hub; then nobody waits.
        with contextlib.suppress(AttributeError, ValueError):
            event.set()
