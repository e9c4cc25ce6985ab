"""gevent's hubs of native threads, and what runs in them.

``gevent.spawn()`` in a native thread starts a greenlet in a hub of that thread; under gevent's
monkey patching, a thread or a timer that code starts there is such a greenlet. It runs only while
its thread waits by way of the hub. So threads of ours that have a hub rest in it.

gevent is used only where others have loaded it.
"""

from __future__ import annotations

import sys
from typing import Any

from ws4redis.loop.native import NativeEvent

# For what still runs in the hub of a thread that ends.
_END_SECONDS = 0.5


def existing_hub() -> Any:
    """Return gevent's hub of the calling thread, ``None`` if it has none."""
    local = sys.modules.get('gevent._hub_local')
    return None if local is None else local.get_hub_if_exists()


def prepare_hubs() -> None:
    """Let gevent import now what its hubs need.

    Several threads that make their first hubs at once would block each other for ever, since the
    locks of imports are greenlets' locks under monkey patching.
    """
    gevent = sys.modules.get('gevent')
    if gevent is not None:
        for name in ('loop', 'resolver', 'threadpool'):
            getattr(gevent.config, name)


def prepare_locks() -> None:
    """Let native threads share the locks that gevent's monkey patching has made cooperative."""
    monkey = sys.modules.get('gevent.monkey')
    if monkey is not None and monkey.is_module_patched('threading'):
        from ws4redis.loop.thread_locks import mend_locks

        mend_locks()


def turn_hub() -> None:
    """Let greenlets of the calling thread run that are ready to."""
    if existing_hub() is not None:
        sys.modules['gevent'].sleep(0)


def end_hub() -> None:
    """Let greenlets of the calling thread finish, within half a second, and destroy its hub.

    Called when the thread ends: else the hub's descriptors would stay open.
    """
    hub = existing_hub()
    if hub is not None:
        hub.join(timeout=_END_SECONDS)
        hub.destroy(destroy_loop=True)


class Sleep:
    """One sleep of a native thread, which another thread may end.

    Made in the thread that sleeps. :meth:`end` must not be called after :meth:`close`.
    """

    __slots__ = ('_event', '_watcher')

    def __init__(self) -> None:
        hub = existing_hub()
        self._event: Any
        self._watcher: Any = None
        if hub is None:
            self._event = NativeEvent()
        else:
            from gevent.event import Event

            self._event = Event()
            # Unlike gevent's own means, this keeps the hub from ending for want of anything to do.
            self._watcher = hub.loop.async_()
            self._watcher.start(self._event.set)

    @property
    def turns_hub(self) -> bool:
        """Whether greenlets run meanwhile, and may delay the end."""
        return self._watcher is not None

    def end(self) -> None:
        """End the sleep, or the next one. Called in any thread."""
        if self._watcher is None:
            self._event.set()
        else:
            self._watcher.send()

    def wait(self, timeout: float | None) -> None:
        """Sleep until the end, or for ``timeout`` seconds."""
        self._event.wait(timeout)

    def close(self) -> None:
        """Free what the sleep holds."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
