"""What this process has done with its websockets, as numbers."""

from __future__ import annotations

import logging
import os
from typing import Any

from ws4redis.handshake.connection_limits import connection_limits
from ws4redis.hub.hub import Hub

logger = logging.getLogger('ws4redis')


def get_statistics() -> dict[str, Any]:
    """Return the statistics of this process. Safe in any thread, and never blocks.

    ``handshakes`` counts by HTTP status, ``closes`` by close code; ``messages_not_delivered`` and
    ``messages_not_published`` count messages by the close code of the websocket that explains why.
    Sizes are in bytes. All are described in ``docs/reference/statistics.md``. A process that never
    had a handshake returns ``{}``.
    """
    # That module makes the websockets, and lets them log their statistics.
    from ws4redis.servers.process import existing_hub

    hub = existing_hub()
    return {} if hub is None else statistics_of(hub)


def statistics_of(hub: Hub) -> dict[str, Any]:
    """Return the statistics of one loop; the counts go back to when it was made."""
    queues = [size for w in hub if (size := w.queued_bytes)]
    publications = hub.publications
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
        'redis_connected': hub.bus.is_connected and publications.is_connected,
        'redis_reconnects': hub.bus.reconnects + publications.reconnects,
        'tasks': hub.loop.driver.workers.unfinished,
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
            words += [f'{name}.{_key(key)}={count}' for key, count in sorted(value.items())]
        elif isinstance(value, float):
            words.append(f'{name}={value:.3f}')
        else:
            words.append(f'{name}={int(value)}')
    return ' '.join(words)


def _key(key: int | str) -> int | str:
    # An IntEnum is spelled by its number.
    return str(key) if isinstance(key, str) else int(key)
