"""``manage.py run_wsworker``: run handlers for websocket servers of the mode --multiprocess."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from ws4redis.management.commands.run_wsserver import add_queue_arguments, queue_names
from ws4redis.standalone.options import ProcessOptions


class Command(BaseCommand):
    """Run handlers, on any machine that reaches the same Redis."""

    help = (
        'Run handlers for the websockets of run_wsserver --multiprocess, on any machine that '
        'reaches the same Redis with the same settings. SIGTERM or Ctrl-C stops it; its websockets '
        'are then closed with 1012, and the clients connect again.'
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_queue_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        from ws4redis.handlers.multiprocess.sealing import require_cipher
        from ws4redis.handlers.routes import routes_from_settings
        from ws4redis.standalone.serving import run_handlers

        try:
            names = queue_names(options)
            require_cipher()
            if not routes_from_settings():
                raise ValueError('neither DEFAULT_WS_HANDLERS nor WS4REDIS_HANDLERS is set')
            run_handlers(ProcessOptions(role='handlers', **names), announce=self._announce)
        except (ValueError, ImproperlyConfigured) as exc:
            raise CommandError(str(exc)) from None

    def _announce(self) -> None:
        self.stdout.write('ws4redis runs handlers')
        self.stdout.flush()
