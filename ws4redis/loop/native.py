"""Native threads, locks and queues, whether gevent has patched the standard library or not.

Under ``gevent.monkey.patch_all()`` a "thread" is a greenlet of the thread that made it, and a
"lock" switches greenlets. The loop and the pool want what the operating system offers, in both
worlds.
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Callable
from typing import Any

# All but those by which a thread itself learns what it did wrong.
_SIGNALS_OF_A_PROCESS = signal.valid_signals() - {
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
}


def original(module: str, name: str) -> Any:
    """Return what ``module.name`` was before gevent's monkey patching, ``None`` if it never was."""
    monkey = sys.modules.get('gevent.monkey')
    if monkey is not None and monkey.is_module_patched(module):
        try:
            return monkey.get_original(module, name)
        except AttributeError:
            return None
    return getattr(importlib.import_module(module), name, None)


def start_thread(function: Callable[..., object], *args: Any) -> None:
    """Run ``function`` in a new native thread, which does not keep the process alive.

    No signal is delivered to it. uWSGI ends a worker out of the handler of a signal, and so in
    whichever thread got it: in the loop's, it would wait for itself.
    """
    # A thread starts with the signals blocked that its maker has blocked.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS_OF_A_PROCESS)
    try:
        original('_thread', 'start_new_thread')(function, args)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


thread_ident: Callable[[], int] = original('_thread', 'get_ident')
"""Return the identifier of the native thread that calls."""


class NativeEvent:
    """Let one native thread wait for another one; it is set once and not used again."""

    __slots__ = ('_is_set', '_lock')

    def __init__(self) -> None:
        self._lock = original('_thread', 'allocate_lock')()
        self._lock.acquire()
        self._is_set = False

    def set(self) -> None:
        if not self._is_set:
            self._is_set = True
            self._lock.release()

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to ``timeout`` seconds and tell whether the event is set."""
        if self._lock.acquire(timeout=-1 if timeout is None else timeout):
            self._lock.release()
        return self._is_set


class NativeBell:
    """Let one native thread wait, again and again, until others ring."""

    __slots__ = ('_lock',)

    def __init__(self) -> None:
        self._lock = original('_thread', 'allocate_lock')()
        self._lock.acquire()

    def ring(self) -> None:
        """End the wait, or the next one if nobody waits."""
        try:
            self._lock.release()
        except RuntimeError:
            # It has rung already, and nobody has heard it yet.
            pass

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the bell rings, or for ``timeout`` seconds."""
        self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
