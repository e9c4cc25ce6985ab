"""Parts of the reference that are written by the code they describe.

``python -m tests.docs.generated`` prints them, to be pasted into their pages.
"""

from __future__ import annotations

import os

from ws4redis.loop.metrics import Declaration, Kind


def metrics_table() -> str:
    """Return the table of all metrics in ``reference/metrics.md``."""
    # These declare metrics.
    import ws4redis.hub.metrics
    import ws4redis.servers.snapshots  # noqa: F401
    from ws4redis.loop.metrics import declarations

    rows = [
        '| name | kind | labels | what it tells |',
        '|---|---|---|---|',
        '| `ws4redis_processes` | gauge | – | Processes with websockets |',
        *(_row(declarations[name]) for name in sorted(declarations)),
    ]
    return '\n'.join(rows)


def _row(declaration: Declaration) -> str:
    name = f'ws4redis_{declaration.name}'
    if declaration.kind is Kind.COUNTER:
        name = f'{name.removesuffix("_total")}_total'
    labels = ', '.join(f'`{label}`' for label in ('process', declaration.label) if label)
    return f'| `{name}` | {declaration.kind} | {labels} | {declaration.about} |'


if __name__ == '__main__':
    os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')
    print(metrics_table())
