"""``manage.py ws4redis_live``: what all processes do, in the terminal."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from redis.exceptions import RedisError

from ws4redis.servers.overview import overview_of
from ws4redis.servers.statistics import get_snapshots

if TYPE_CHECKING:
    from rich.console import RenderableType

LAG_BAD_SECONDS = 0.1
LOAD_BAD = 0.85


class Command(BaseCommand):
    """Show processes, and the busiest facilities, until Ctrl-C."""

    help = 'Show what all processes with websockets do, until Ctrl-C.'

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument('--json', action='store_true', help='print once, as JSON, and end')
        parser.add_argument('--once', action='store_true', help='print once, and end')
        parser.add_argument(
            '--interval', type=_seconds, default=2, help='seconds between two looks (default: 2)'
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print once, or again and again."""
        if options['json']:
            self.stdout.write(json.dumps(_look(), indent=2))
            return
        try:
            from rich.console import Console
            from rich.live import Live
        except ImportError as exc:
            raise CommandError(
                'This needs rich: pip install django-websocket-redis[live]; --json does without it.'
            ) from exc
        if options['once']:
            Console(file=self.stdout).print(_picture(_look()))  # type: ignore[arg-type]
            return
        with Live(_picture(_look()), screen=True, auto_refresh=False) as live:
            try:
                while True:
                    time.sleep(options['interval'])
                    live.update(_picture_now(), refresh=True)
            except KeyboardInterrupt:
                pass


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 3600:
        raise ValueError(text)
    return seconds


def _look() -> dict[str, Any]:
    try:
        return overview_of(get_snapshots())
    except (RedisError, OSError) as exc:
        raise CommandError(f'Redis does not answer: {exc}') from exc


def _picture_now() -> RenderableType:
    # Whoever watches wants to see it come back.
    try:
        return _picture(_look())
    except CommandError as exc:
        from rich.text import Text

        return Text(str(exc), style='bold red')


def _picture(overview: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    totals = overview['totals']
    line = Text.assemble(
        (f'{totals.get("open", 0):,} websockets', 'bold'),
        f' in {totals.get("processes", 0)} processes, {totals["sent_per_second"]:,.0f} messages/s '
        f'sent, {totals["received_per_second"]:,.0f}/s received',
    )
    return Group(line, _processes(overview['processes']), _facilities(overview['facilities']))


def _processes(processes: list[dict[str, Any]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table('Process', title='Processes', title_justify='left')
    for heading in ('Websockets', 'Load', 'Lag p50', 'p99', 'Sent/s', 'Received/s', 'Waits'):
        table.add_column(heading, justify='right')
    table.add_column('Redis')
    for process in processes:
        lag, load = process['lag_p99'], process['load']
        table.add_row(
            Text(f'{process["host"]} {process["pid"]}'),
            f'{process["open"]:,}',
            Text(f'{load:.0%}', style='bold red' if load > LOAD_BAD else ''),
            f'{process["lag_p50"] * 1000:.1f} ms',
            Text(f'{lag * 1000:.1f} ms', style='bold red' if lag > LAG_BAD_SECONDS else ''),
            f'{process["sent_per_second"]:,.0f}',
            f'{process["received_per_second"]:,.0f}',
            f'{process["queued_bytes"] / 1024:,.0f} KB',
            'connected' if process['redis_connected'] else Text('away', style='bold red'),
        )
    return table


def _facilities(facilities: list[dict[str, Any]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table('Facility', title='Busiest facilities', title_justify='left')
    table.add_column('Messages/s', justify='right')
    table.add_column('Websockets', justify='right')
    for facility in facilities[:10]:
        # Clients choose the names: control characters would reach the terminal.
        name = ''.join(c if c.isprintable() else '�' for c in facility['name'])
        table.add_row(
            Text(name, overflow='ellipsis', no_wrap=True),
            f'{facility["messages_per_second"]:,.1f}',
            f'{facility["websockets"]:,}',
        )
    return table
