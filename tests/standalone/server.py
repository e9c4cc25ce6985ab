"""``manage.py run_wsserver`` and ``run_wsworker`` as processes of a test."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tests.free_ports import free_port
from tests.programs import RedisServer, _django_environment
from tests.server_process import HttpServerProcess, ServerProcess

HANDLERS = {
    'default': 'tests.handlers.sample_handlers.Echo',
    'echo': 'tests.handlers.sample_handlers.Echo',
    'old': 'tests.handlers.sample_handlers.OldStyle',
    'log': 'tests.handlers.sample_handlers.Log',
    'faulty': 'tests.handlers.sample_handlers.Faulty',
    'guarded': 'tests.handlers.sample_handlers.Guarded',
    'about': 'tests.handlers.sample_handlers.About',
    'slow': 'tests.handlers.sample_handlers.Slow',
    'counting': 'tests.handlers.sample_handlers.Counting',
    'closing': 'tests.handlers.sample_handlers.Closing',
    'publishing': 'tests.handlers.sample_handlers.Publishing',
}
WEBSOCKET_URL = r'/socket(/(?P<namespace>[\w-]+))?'


def settings_with_handlers(**others: Any) -> dict[str, Any]:
    """Return settings for a server with the sample handlers."""
    return {'DEFAULT_WS_HANDLERS': HANDLERS, 'WS4REDIS_DRAIN_SECONDS': 0.2, **others}


class StandaloneServer(HttpServerProcess):
    """``run_wsserver`` on a free port, or at ``address``; ``options`` are further arguments."""

    name = 'run_wsserver'

    def __init__(
        self,
        *options: str,
        redis_server: RedisServer | None = None,
        settings: str = 'tests.settings',
        django_settings: Mapping[str, Any] | None = None,
        address: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        if django_settings is None:
            django_settings = settings_with_handlers()
        super().__init__(
            env=_django_environment(settings, redis_server, django_settings) | dict(env or {})
        )
        self.port = free_port()
        self._address = address or f'{self.host}:{self.port}'
        self._options = options

    def command(self) -> Sequence[str]:
        return [sys.executable, '-m', 'django', 'run_wsserver', self._address, *self._options]

    def wait_until_ready(self, since: int) -> None:
        self.wait_for_log('serves websockets on', since=since)


class HandlerProcess(ServerProcess):
    """``run_wsworker``."""

    name = 'run_wsworker'

    def __init__(
        self,
        *options: str,
        redis_server: RedisServer,
        django_settings: Mapping[str, Any] | None = None,
    ) -> None:
        settings = settings_with_handlers() if django_settings is None else django_settings
        super().__init__(env=_django_environment('tests.settings', redis_server, settings))
        self._options = options

    def command(self) -> Sequence[str]:
        return [sys.executable, '-m', 'django', 'run_wsworker', *self._options]

    def wait_until_ready(self, since: int) -> None:
        self.wait_for_log('runs handlers', since=since)
