"""Tasks that take a while. Each runs in a thread, and says how far it is by ``Progress``.

A project would leave them to Celery or to Django's tasks; ``Progress`` is used in the same way.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from django.db import connection

from showcase.models import Order, Task
from ws4redis.live import Progress

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 4
MOST_TASKS_SHOWN = 8
MOST_ORDERS = 40
# A pause per step: else these tasks are done before anybody sees it.
FILE_SECONDS = 0.02
LINE_SECONDS = 0.5

GOOD_LIST = [
    'Green tea,3',
    'Kettle,1',
    'Tea strainer,2',
    'Sugar tongs,1',
    'Saucers,6',
    'Honey,4',
    'Oolong,2',
    'Tea cosy,1',
]
DAMAGED_LIST = [*GOOD_LIST[:5], 'Honey,a few', *GOOD_LIST[6:]]

_slots = threading.BoundedSemaphore(MOST_AT_ONCE)


class TooManyTasks(Exception):
    """Raised when no further task may be started now."""


def start(kind: str, started_by: str) -> Task:
    """Start a task in a thread of its own; raise ``TooManyTasks``."""
    if not _slots.acquire(blocking=False):
        raise TooManyTasks(f'{MOST_AT_ONCE} tasks are running. Start another one when one is done.')
    task: Task = Task.objects.create(kind=kind, started_by=started_by)
    threading.Thread(target=_run, args=[task], name=task.facility, daemon=True).start()
    forget_old_ones()
    return task


def forget_old_ones() -> None:
    """Delete the tasks and orders that are too many, one by one, so that browsers learn of it."""
    for task in Task.objects.order_by('-pk')[MOST_TASKS_SHOWN:]:
        task.delete()
    for order in Order.objects.order_by('-pk')[MOST_ORDERS:]:
        order.delete()


def running() -> int:
    """Return how many tasks run in this process."""
    return sum(1 for thread in threading.enumerate() if thread.name.startswith('task/'))


def _run(task: Task) -> None:
    try:
        TASKS[task.kind](Progress(task.facility))
    except Exception:
        # Browsers were told that it failed; the rest is for the log.
        logger.exception('%s has failed', task)
    finally:
        connection.close()
        _slots.release()


def checksum(progress: Progress) -> None:
    """Hash the modules of Python's library."""
    total = hashlib.sha256()
    files = sorted(Path(hashlib.__file__).parent.glob('*.py'))
    with progress:
        progress.total = len(files)
        for file in files:
            total.update(file.read_bytes())
            time.sleep(FILE_SECONDS)
            progress.advance(text=file.name)
        progress.finish(f'SHA-256 {total.hexdigest()[:12]}…')


def import_orders(lines: list[str], progress: Progress) -> None:
    """Add the orders of a list; the live table shows each at once."""
    with progress:
        progress.total = len(lines)
        for number, (item, quantity) in enumerate(csv.reader(lines), start=1):
            time.sleep(LINE_SECONDS)
            if not quantity.isdigit():
                progress.fail(f'Line {number}: “{quantity}” is no quantity.')
                return
            Order.objects.create(item=item, quantity=int(quantity))
            forget_old_ones()
            progress.advance(text=item)


TASKS: dict[str, Callable[[Progress], None]] = {
    Task.Kind.CHECKSUM: checksum,
    Task.Kind.IMPORT: lambda progress: import_orders(GOOD_LIST, progress),
    Task.Kind.DAMAGED: lambda progress: import_orders(DAMAGED_LIST, progress),
}
