"""What all processes do, put together for people: on the live page and in the terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ws4redis.broker.census import MAX_USERS
from ws4redis.broker.snapshots import Snapshot
from ws4redis.servers.statistics import sum_of

#: Names of the four numbers of a point of the past.
PAST: Final = ('open', 'sent', 'received', 'lag')
BUSIEST: Final = 20


def overview_of(snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    """Return totals, processes, the busiest facilities, and the last 15 minutes.

    Its size depends on the number of processes alone, however many websockets there are.
    """
    processes = [process_of(snapshot) for snapshot in snapshots]
    return {
        'at': int(time.time()),
        'totals': {
            **sum_of([snapshot['statistics'] for snapshot in snapshots]),
            'sent_per_second': round(sum(p['sent_per_second'] for p in processes), 1),
            'received_per_second': round(sum(p['received_per_second'] for p in processes), 1),
            'lag_p99': max((p['lag_p99'] for p in processes), default=0),
        },
        'processes': processes,
        'facilities': busiest_of(snapshots),
        'past': past_of(snapshots),
    }


def process_of(snapshot: Snapshot) -> dict[str, Any]:
    """Return the line of a process."""
    statistics = snapshot['statistics']
    rates = _mapping(snapshot.get('rates'))
    return {
        'name': str(snapshot.get('process', '')),
        'host': str(snapshot.get('host', '')),
        'pid': snapshot.get('pid'),
        'begun': snapshot.get('begun'),
        'open': _number(statistics.get('open')),
        'channels': _number(statistics.get('channels')),
        'queued_bytes': _number(statistics.get('queued_bytes')),
        'redis_connected': bool(statistics.get('redis_connected')),
        'redis_seconds': rates.get('redis_seconds'),
        'load': _number(rates.get('load')),
        'lag_p50': _number(rates.get('lag_p50')),
        'lag_p99': _number(rates.get('lag_p99')),
        'sent_per_second': _number(rates.get('sent_per_second')),
        'received_per_second': _number(rates.get('received_per_second')),
    }


def busiest_of(snapshots: Sequence[Snapshot]) -> list[dict[str, Any]]:
    """Return the facilities with most deliveries, over all processes.

    Each process gets each message of a channel that it subscribes to, so messages are no sum.
    """
    found: dict[str, dict[str, Any]] = {}
    for snapshot in snapshots:
        for entry in snapshot.get('facilities') or ():
            if not isinstance(entry, list) or len(entry) != 3:
                continue
            name, messages, websockets = str(entry[0]), _number(entry[1]), _number(entry[2])
            facility = found.setdefault(
                name, {'name': name, 'messages_per_second': 0, 'websockets': 0}
            )
            facility['messages_per_second'] = max(facility['messages_per_second'], messages)
            facility['websockets'] += websockets
    return sorted(
        found.values(), key=lambda f: f['messages_per_second'] * f['websockets'], reverse=True
    )[:BUSIEST]


def past_of(snapshots: Sequence[Snapshot]) -> dict[str, list[float]]:
    """Return a point every ten seconds, the oldest first: sums, and the largest lag."""
    points = [
        [point for point in snapshot.get('past') or () if _is_point(point)]
        for snapshot in snapshots
    ]
    past: dict[str, list[float]] = {name: [] for name in PAST}
    # Processes begin at different times; what they have in common is the end.
    for age in range(max(map(len, points), default=0), 0, -1):
        now = [of_process[-age] for of_process in points if len(of_process) >= age]
        for place, name in enumerate(PAST):
            values = [point[place] for point in now]
            past[name].append(round(max(values) if name == 'lag' else sum(values), 4))
    return past


def census_of(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the connections that processes told, of the first users in the order of their names.

    ``after`` is where the next page begins; empty: there is none. Each process tells its own first
    users, so up to a name that is among the first of all, nobody is missing.
    """
    names = sorted({name for answer in answers for name in answer.get('names', ())})
    shown = set(names[:MAX_USERS])
    may_go_on = any(len(answer.get('names', ())) >= MAX_USERS for answer in answers)
    connections = [
        {**connection, 'process': answer.get('process', '')}
        for answer in answers
        for connection in answer.get('connections', ())
        if connection.get('user') in shown
    ]
    return {
        'open': sum(_number(answer.get('open')) for answer in answers),
        'connections': sorted(connections, key=lambda c: (c['user'], c.get('since', 0))),
        'after': max(shown) if shown and (may_go_on or len(names) > MAX_USERS) else '',
    }


def _is_point(point: object) -> bool:
    return (
        isinstance(point, list)
        and len(point) == len(PAST)
        and all(isinstance(value, int | float) for value in point)
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else 0
