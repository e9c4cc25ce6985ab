"""Progress of a task, told as it goes on and kept for those who come later.

``advance()`` is cheap: it adds up, and publishes ten times a second at most. What it holds back
before a long step is told by a thread that all tasks of a process share. A display must not break
what it displays: while Redis is away, the task goes on untold.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sized
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from redis.exceptions import RedisError

from ws4redis.live.audience import To, publisher_to
from ws4redis.live.trailing import trailing

logger = logging.getLogger('ws4redis')

Item = TypeVar('Item')

INTERVAL_SECONDS = 0.1
#: How long the state is kept for those who come later.
KEEP_SECONDS = 3600
#: The rate follows the last seconds, not the whole task.
RATE_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0

State = dict[str, Any]


class Progress:
    """Tell how far a task is; ``<ws4redis-progress facility="…">`` shows it.

    ``total`` is the number of steps, None where nobody knows; where it is 0, all is done. The
    audience is given as to ``RedisPublisher``; without one it is everybody who subscribes to the
    facility. ``expire`` is for how many seconds the last state is kept.

    As a context manager it ends with ``finish()``, or with ``fail()`` where an exception passes,
    whose text browsers do not get. Safe among threads.
    """

    def __init__(
        self,
        facility: str,
        total: float | None = None,
        *,
        expire: int = KEEP_SECONDS,
        **audience: Unpack[To],
    ) -> None:
        self._publisher = publisher_to(facility, audience)
        self._expire = expire
        self._lock = threading.Lock()
        # Held by whoever publishes.
        self._telling = threading.Lock()
        self._total = _checked_total(total)
        self._done = 0.0
        self._text = ''
        self._state = 'running'
        self._speed = _Speed(monotonic())
        self._due = 0.0
        self._pause = 0.0

    @property
    def done(self) -> float:
        """How many steps are done."""
        return self._done

    @property
    def total(self) -> float | None:
        """How many steps there are; may be set when it turns out."""
        return self._total

    @total.setter
    def total(self, total: float | None) -> None:
        self._total = _checked_total(total)

    # Telling

    def advance(self, steps: float = 1, text: str | None = None) -> None:
        """Say that some more steps are done, and what the task is at."""
        if self._moved(steps, text):
            self._tell()

    async def aadvance(self, steps: float = 1, text: str | None = None) -> None:
        """Do as :meth:`advance` without blocking the event loop."""
        if self._moved(steps, text):
            await self._atell()

    def finish(self, text: str | None = None) -> None:
        """Say that the task is done."""
        self._end('done', text)
        self._tell(is_end=True)

    def fail(self, text: str | None = None) -> None:
        """Say that the task has failed, and to users why."""
        self._end('failed', text)
        self._tell(is_end=True)

    def stop(self, text: str | None = None) -> None:
        """Say that the task was given up."""
        self._end('stopped', text)
        self._tell(is_end=True)

    # Around the task

    def track(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items, one step each; the total is their number if they have one.

        The end of the loop ends the task; leaving it before stops the task.
        """
        self._count(items)
        finished = False
        self._tell()
        try:
            for item in items:
                yield item
                self.advance()
            finished = True
        finally:
            if self._state == 'running':
                self._end('done' if finished else 'stopped', None)
                self._tell(is_end=True)

    async def atrack(self, items: AsyncIterable[Item] | Iterable[Item]) -> AsyncIterator[Item]:
        """Do as :meth:`track` for coroutines; leaving the loop early tells nothing by itself."""
        self._count(items)
        await self._atell()
        if isinstance(items, AsyncIterable):
            async for item in items:
                yield item
                await self.aadvance()
        else:
            for item in items:
                yield item
                await self.aadvance()
        self._end('done', None)
        await self._atell(is_end=True)

    def __enter__(self) -> Self:
        self._tell()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._leave(exc_type):
            self._tell(is_end=True)

    async def __aenter__(self) -> Self:
        await self._atell()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._leave(exc_type):
            await self._atell(is_end=True)

    def _leave(self, exc_type: type[BaseException] | None) -> bool:
        """Note the end of the block; return whether it is news."""
        if exc_type is not None and self._state in ('running', 'stopped'):
            self._end('failed', None)
            return True
        if self._state == 'running':
            self._end('done', None)
            return True
        return False

    # Parts

    def _count(self, items: object) -> None:
        if self._total is None and isinstance(items, Sized):
            self._total = len(items)

    def _moved(self, steps: float, text: str | None) -> bool:
        """Note some steps; return whether it is time to tell."""
        if not _is_number(steps):
            raise ValueError(f'steps must be a number, not {steps!r}')
        with self._lock:
            self._done = max(0.0, self._done + steps)
            if text is not None:
                self._text = str(text)
            if monotonic() >= self._due:
                return True
        trailing.add(self, self._due)
        return False

    def _end(self, state: str, text: str | None) -> None:
        with self._lock:
            self._state = state
            if text is not None:
                self._text = str(text)
            # The end is told whatever Redis did before.
            self._due = 0.0
        trailing.discard(self)

    def tell_trailing(self) -> None:
        """Tell what was held back; called by the thread of :mod:`ws4redis.live.trailing`."""
        if self._state == 'running':
            self._tell()

    def _tell(self, *, is_end: bool = False) -> None:
        # Else an older state could overtake the end, and stay.
        if not self._telling.acquire(blocking=is_end):
            trailing.add(self, monotonic() + INTERVAL_SECONDS)
            return
        try:
            if (state := self._take()) is not None:
                self._publisher.publish_json(state, expire=self._expire, on_commit=False)
                self._pause = 0.0
        except (RedisError, OSError) as exc:
            self._failed(exc)
        finally:
            self._telling.release()

    async def _atell(self, *, is_end: bool = False) -> None:
        if not self._telling.acquire(blocking=False):
            if not is_end:
                trailing.add(self, monotonic() + INTERVAL_SECONDS)
                return
            await asyncio.to_thread(self._telling.acquire)
        try:
            if (state := self._take()) is not None:
                await self._publisher.apublish_json(state, expire=self._expire, on_commit=False)
                self._pause = 0.0
        except (RedisError, OSError) as exc:
            self._failed(exc)
        finally:
            self._telling.release()

    def _take(self) -> State | None:
        """Return what to tell now; None when something was told just now, and it has to wait."""
        now = monotonic()
        with self._lock:
            if now < self._due:
                trailing.add(self, self._due)
                return None
            self._due = now + INTERVAL_SECONDS
            rate = self._speed.at(now, self._done)
            left = None
            if self._total is not None and rate:
                left = round(max(0.0, self._total - self._done) / rate, 1)
            return {
                'type': 'progress',
                'state': self._state,
                'done': _short(self._done),
                'total': None if self._total is None else _short(self._total),
                'text': self._text,
                'seconds': round(self._speed.seconds, 1),
                'rate': round(rate, 3),
                'left': left,
            }

    def _failed(self, exc: Exception) -> None:
        if not self._pause:
            logger.warning('progress is not told, the task goes on: %s', exc)
        self._pause = min(max(FIRST_PAUSE_SECONDS, 2 * self._pause), LONGEST_PAUSE_SECONDS)
        self._due = monotonic() + self._pause


class _Speed:
    """Steps per second, of late."""

    def __init__(self, now: float) -> None:
        self._begun = self._at = now
        self._done = 0.0
        self._rate = 0.0
        self.seconds = 0.0

    def at(self, now: float, done: float) -> float:
        """Return the rate, given what is done now."""
        self.seconds = now - self._begun
        passed = now - self._at
        if passed > 0:
            latest = max(0.0, done - self._done) / passed
            # At first the rate of the whole task, later the mean of the last seconds.
            weight = -math.expm1(-passed / min(max(self.seconds, passed), RATE_SECONDS))
            weight = 1.0 if self._at == self._begun else weight
            self._rate += weight * (latest - self._rate)
            self._at, self._done = now, done
        return self._rate


def _is_number(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)  # type: ignore[arg-type]


def _checked_total(total: float | None) -> float | None:
    if total is not None and (not _is_number(total) or total < 0):
        raise ValueError(f'total must be a number, 0 or above, or None, not {total!r}')
    return total


def _short(number: float) -> float:
    """Return a whole number without a decimal point."""
    return int(number) if number == int(number) else number
