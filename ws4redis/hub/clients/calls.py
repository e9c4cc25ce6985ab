"""Calls of project code for a connection: in the pool, counted, and with a deadline."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ws4redis.loop.blocking_call import TookTooLong

if TYPE_CHECKING:
    from ws4redis.hub.clients.connection import ClientConnection
    from ws4redis.loop.timers import Timer

logger = logging.getLogger('ws4redis')

#: How many calls of one connection are under way; its further commands wait.
MAX_CALLS_AT_ONCE = 4

Answer = Callable[[Any, BaseException | None], object]


class Call:
    """One call. ``answer`` gets the result or the error, once, if the connection still lives.

    A call that takes too long is answered with ``TookTooLong``, and goes on counting until it ends:
    it takes a thread as long.
    """

    __slots__ = ('_answer', '_connection', '_timer', '_what')

    def __init__(self, connection: ClientConnection, what: str, answer: Answer) -> None:
        self._connection = connection
        self._what = what
        self._answer = answer
        self._timer: Timer | None = None

    def start(self, function: Callable[..., Any], *args: Any) -> None:
        connection = self._connection
        connection.calls += 1
        loop = connection.service.loop
        seconds = connection.service.options.call_timeout_seconds
        self._timer = loop.call_later(seconds, self._took_too_long, seconds)
        loop.driver.submit(self._ended, function, *args)

    def _took_too_long(self, seconds: float) -> None:
        self._timer = None
        logger.warning(
            'code for a command took more than %g seconds: %s of %r',
            seconds,
            self._what,
            self._connection.websocket,
        )
        self._tell(None, TookTooLong())

    def _ended(self, result: Any, error: BaseException | None) -> None:
        self._connection.calls -= 1
        if self._timer is not None:
            self._connection.service.loop.timers.cancel(self._timer)
            self._tell(result, error)
        self._connection.go_on()

    def _tell(self, result: Any, error: BaseException | None) -> None:
        if self._connection.is_alive:
            self._answer(result, error)
