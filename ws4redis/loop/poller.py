"""The poller: tells which descriptors are ready.

On Linux this is epoll itself; elsewhere the best selector of the standard library. Both are level
triggered. ``gevent.monkey.patch_all()`` takes epoll out of :mod:`select` and replaces the selectors
by cooperative ones, which would block the loop's own greenlet, so the originals are asked for.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol

from ws4redis.loop.native import original

READABLE = 1
WRITABLE = 4
# Both names and numbers are epoll's, so that its flags need no translation. Errors and hang-ups are
# reported beside READABLE or alone; whoever reads then learns which it is.


class Poller(Protocol):
    """Watch descriptors, level triggered."""

    def register(self, fd: int, events: int) -> None: ...
    def modify(self, fd: int, events: int) -> None: ...
    def unregister(self, fd: int) -> None: ...
    def poll(self, timeout_seconds: float | None) -> list[tuple[int, int]]: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class EpollPoller:
    """Watch descriptors by epoll(7)."""

    def __init__(self, epoll: Any) -> None:
        self._epoll = epoll
        self.register = epoll.register
        self.modify = epoll.modify
        self.unregister = epoll.unregister
        self.fileno = epoll.fileno
        self.close = epoll.close

    def poll(self, timeout_seconds: float | None) -> list[tuple[int, int]]:
        ready: list[tuple[int, int]] = self._epoll.poll(timeout_seconds)
        return ready


class SelectorPoller:
    """Watch descriptors by a selector of the standard library, where there is no epoll."""

    def __init__(self, selector: Any, selectors: Any) -> None:
        self._selector = selector
        self._read: int = selectors.EVENT_READ
        self._write: int = selectors.EVENT_WRITE

    def register(self, fd: int, events: int) -> None:
        # A selector cannot watch for nothing; epoll can, and still reports errors then.
        if events:
            self._selector.register(fd, self._to_selector(events))

    def modify(self, fd: int, events: int) -> None:
        if fd not in self._selector.get_map():
            self.register(fd, events)
        elif events:
            self._selector.modify(fd, self._to_selector(events))
        else:
            self._selector.unregister(fd)

    def unregister(self, fd: int) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def poll(self, timeout_seconds: float | None) -> list[tuple[int, int]]:
        return [
            (key.fd, self._from_selector(mask))
            for key, mask in self._selector.select(timeout_seconds)
        ]

    def fileno(self) -> int:
        fd: int = self._selector.fileno()
        return fd

    def close(self) -> None:
        self._selector.close()

    def _to_selector(self, events: int) -> int:
        return (self._read if events & READABLE else 0) | (self._write if events & WRITABLE else 0)

    def _from_selector(self, mask: int) -> int:
        return (READABLE if mask & self._read else 0) | (WRITABLE if mask & self._write else 0)


def make_poller() -> Poller:
    """Return the best poller of this platform."""
    epoll = original('select', 'epoll')
    if epoll is not None:
        return EpollPoller(epoll())
    selectors = importlib.import_module('selectors')
    return SelectorPoller(original('selectors', 'DefaultSelector')(), selectors)
