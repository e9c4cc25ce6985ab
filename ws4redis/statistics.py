"""Public names: what this process has done, as numbers."""

from __future__ import annotations

from ws4redis.servers.statistics import get_snapshots, get_statistics

__all__ = [
    'get_snapshots',
    'get_statistics',
]
