"""Processes that are not there: their snapshots."""

from __future__ import annotations

from typing import Any

import redis

from ws4redis.broker.snapshots import snapshot_commands
from ws4redis.loop.lag import LAG


def snapshot(pid: int = 1, **statistics: Any) -> dict[str, Any]:
    return {
        'host': 'web',
        'pid': pid,
        'begun': 1_800_000_000,
        'statistics': {
            'pid': pid,
            'open': 100,
            'handshakes': {'101': 120, '403': 2},
            'closes': {'1000': 20},
            'gaps': {'trimmed': 3},
            'messages_sent': 5000,
            'queued_bytes_max': 10 * pid,
            'redis_connected': True,
            **statistics,
        },
        'metrics': {
            'loop_lag_seconds': {'counts': [1] * (len(LAG.declaration.bounds) + 1), 'sum': 0.5},
            'facility_messages': {'chat/*': 7, '': 1},
        },
        'rates': {'load': 0.25, 'redis_seconds': 0.0002, 'lag_p99': 0.002},
        'past': [[100, 5.0, 1.0, 0.001]],
        'facilities': [['chat/7', 12.5, 100]],
    }


def tell(client: redis.Redis, *snapshots: dict[str, Any], seconds: float = 60) -> None:
    """Tell snapshots as their processes would."""
    for item in snapshots:
        for command in snapshot_commands(f'web-{item["pid"]}-x', item, seconds):
            client.execute_command(*command)
