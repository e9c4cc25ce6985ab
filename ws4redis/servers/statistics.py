"""What this process has done with its websockets, as numbers."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ws4redis.broker.connections import get_client
from ws4redis.broker.snapshots import Snapshot, read_snapshots
from ws4redis.handshake.connection_limits import connection_limits
from ws4redis.hub.hub import Hub

logger = logging.getLogger('ws4redis')


def get_statistics() -> dict[str, Any]:
    """Return the statistics of this process, or of all where this one has no websockets.

    ``handshakes`` counts by HTTP status, ``closes`` by close code; ``messages_not_delivered`` and
    ``messages_not_published`` count messages by the close code of the websocket that explains why.
    Sizes are in bytes. All are described in ``docs/reference/statistics.md``.

    A process with websockets never blocks, and any thread may ask. Another one asks Redis, and adds
    up what the processes told last, ``processes`` of them; ``{}`` if there are none. That raises
    redis-py's ``ConnectionError`` when Redis cannot be reached.
    """
    # That module makes the websockets, and lets them log their statistics.
    from ws4redis.servers.process import existing_hub

    hub = existing_hub()
    if hub is not None:
        return statistics_of(hub)
    return sum_of([snapshot['statistics'] for snapshot in get_snapshots()])


def get_snapshots() -> list[Snapshot]:
    """Return what each process told last; see ``docs/reference/statistics.md``.

    Raise redis-py's ``ConnectionError`` when Redis cannot be reached.
    """
    return read_snapshots(get_client())


def sum_of(all_statistics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add the statistics of several processes up."""
    if not all_statistics:
        return {}
    total: dict[str, Any] = {'processes': len(all_statistics)}
    for statistics in all_statistics:
        for name, value in statistics.items():
            if isinstance(value, Mapping):
                by_code = total.setdefault(name, Counter())
                by_code.update(
                    # JSON makes text of the codes.
                    {int(c) if c.isdigit() else c: count for c, count in value.items()}
                )
            elif name in _OF_THE_WORST:
                total[name] = _OF_THE_WORST[name](total.get(name, value), value)
            elif name != 'pid':
                total[name] = total.get(name, 0) + value
    return {n: dict(value) if isinstance(value, Counter) else value for n, value in total.items()}


# What is no sum.
_OF_THE_WORST: dict[str, Callable[[Any, Any], Any]] = {
    'handler_lag_seconds': max,
    'queued_bytes_max': max,
    'redis_connected': min,
}


def statistics_of(hub: Hub) -> dict[str, Any]:
    """Return the statistics of one loop; the counts go back to when it was made."""
    queues = hub.queues.sizes()
    publications = hub.publications
    workers = hub.loop.driver.workers
    return {
        'pid': os.getpid(),
        'open': hub.open_count,
        'places_taken': connection_limits.taken,
        **hub.statistics.as_dict(),
        'queued_bytes': sum(queues),
        'queued_bytes_max': max(queues, default=0),
        'queues': len(queues),
        'queues_memory_bytes': hub.queues.bytes,
        'backlog_bytes': hub.fanout.backlog_bytes,
        'unpublished_messages': publications.unanswered,
        'unpublished_bytes': publications.unanswered_bytes,
        'channels': len(hub.bus.channels),
        'tail_bytes': hub.bus.histories.tail_bytes,
        'redis_connected': hub.links.is_connected,
        'redis_links': hub.links.states,
        'redis_reconnects': hub.links.reconnects,
        'presence': hub.presence.members,
        'tasks': workers.unfinished,
        'tasks_waiting': workers.waiting,
        'tasks_begun': workers.begun,
        'tasks_waited_seconds': round(workers.waited_seconds, 6),
    }


def log_statistics_every(hub: Hub, interval_seconds: float) -> None:
    """Log the statistics at an interval, in the loop of ``websockets``."""

    def log() -> None:
        logger.info('statistics: %s', as_line(statistics_of(hub)))
        hub.loop.call_later(interval_seconds, log)

    hub.loop.call_soon(hub.loop.call_later, interval_seconds, log)


def as_line(statistics: dict[str, Any]) -> str:
    """Return statistics as ``name=value`` words; codes follow the name, as in ``closes.1001=5``."""
    words = []
    for name, value in statistics.items():
        if isinstance(value, dict):
            words += [
                f'{name}.{_key(key)}={_number(count)}' for key, count in sorted(value.items())
            ]
        else:
            words.append(f'{name}={_number(value)}')
    return ' '.join(words)


def _key(key: int | str) -> int | str:
    # An IntEnum is spelled by its number; patterns of facilities may have any character.
    return re.sub(r'[\s=]', '_', key) if isinstance(key, str) else int(key)


def _number(value: Any) -> str:
    return f'{value:.3f}' if isinstance(value, float) else str(int(value))
