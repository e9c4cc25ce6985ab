"""Deadlines of many connections that all have the same time: one timer serves them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from ws4redis.loop.loop import Loop

T = TypeVar('T')


class Deadlines(Generic[T]):
    """Call ``expired(item)`` for each item that is still here after ``seconds``."""

    def __init__(self, loop: Loop, seconds: float, expired: Callable[[T], object]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._expired = expired
        # In the order of their deadlines, which is that in which they came.
        self._items: dict[T, float] = {}
        self._timer: Any = None

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: T) -> None:
        """Give an item its time, anew if it is here already."""
        self._items.pop(item, None)
        self._items[item] = self._loop.timers.clock() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)

    def discard(self, item: T) -> None:
        self._items.pop(item, None)

    def oldest(self) -> T | None:
        """Return the item that has been here for longest."""
        return next(iter(self._items), None)

    def __iter__(self) -> Any:
        return iter(list(self._items))

    def _look(self) -> None:
        self._timer = None
        now = self._loop.timers.clock()
        items = self._items
        while items:
            item, deadline = next(iter(items.items()))
            if deadline > now:
                self._timer = self._loop.call_later(deadline - now, self._look)
                return
            del items[item]
            try:
                self._expired(item)
            finally:
                if self._timer is None and items:
                    # Should that have raised, the others' time goes on all the same.
                    self._timer = self._loop.call_later(0, self._look)
