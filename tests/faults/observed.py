"""A server under test that says what goes on inside."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

from tests.programs import RedisServer, UwsgiServer
from tests.timeouts import SOON_SECONDS, wait_until


class ObservedServer(UwsgiServer):
    """A uWSGI server with `/observe/`.

    ``settings`` override those of `tests.settings`; other arguments are those of `UwsgiServer`.
    """

    def __init__(
        self,
        redis_server: RedisServer | None,
        settings: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            'tests.faults.wsgi_observed',
            redis_server=redis_server,
            django_settings=settings,
            **options,
        )
        self.redis_server = redis_server

    def observe(self, *, with_objects: bool = False) -> dict[str, Any]:
        """Return what the worker counts and holds; see `wsgi_observed.observe`."""
        query = '?objects=1' if with_objects else ''
        answer: dict[str, Any] = json.loads(self.get(f'/observe/{query}'))
        return answer

    def statistics(self) -> dict[str, Any]:
        """Return the statistics of the worker; codes are strings."""
        statistics: dict[str, Any] = self.observe()['statistics']
        return statistics

    def wait_for_statistics(
        self, condition: Callable[[dict[str, Any]], object], *, timeout: float = SOON_SECONDS
    ) -> dict[str, Any]:
        """Wait until a condition holds for the statistics, and return them."""
        latest: dict[str, Any] = {}

        def holds() -> object:
            nonlocal latest
            latest = self.statistics()
            return latest and condition(latest)

        try:
            wait_until(holds, timeout=timeout)
        except AssertionError:
            raise AssertionError(f'the statistics did not become as expected: {latest}') from None
        return latest

    def halt_worker(self, pid: int) -> None:
        """Halt one worker (SIGSTOP); the master lives on."""
        os.kill(pid, signal.SIGSTOP)

    def continue_worker(self, pid: int) -> None:
        """Let a halted worker go on."""
        os.kill(pid, signal.SIGCONT)

    def wait_for_bus(self) -> None:
        """Wait until the worker is connected to Redis."""
        self.wait_for_statistics(lambda statistics: statistics['redis_connected'])

    def url_of(self, facility: str = 'foo', options: str = 'subscribe-broadcast') -> str:
        """Return the URL of a websocket."""
        return f'{self.ws_url}/ws/{facility}?{options}'
