"""The figures on the start page, which asks for them by its websocket."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from showcase import tasks
from showcase.models import Order
from showcase.rooms import ROOMS
from ws4redis.live import unread_count
from ws4redis.presence import counts
from ws4redis.statistics import get_snapshots


def figures(request: HttpRequest, data: Any) -> dict[str, Any]:
    """Return what each card shows: `WS4REDIS_RPC` calls this in a thread."""
    here = counts([*(f'here/{room}' for room in ROOMS), 'ticker'])
    snapshots = get_snapshots()
    return {
        'room': sum(here[f'here/{room}'] for room in ROOMS),
        'tasks': tasks.running(),
        'orders': Order.objects.exclude(state=Order.State.SENT).count(),
        'unread': unread_count(request.user) if request.user.is_authenticated else None,
        'breaking': here['ticker'],
        'websockets': _sum(snapshots, 'statistics', 'open'),
        'per_second': round(_sum(snapshots, 'rates', 'sent_per_second'), 1),
    }


def _sum(snapshots: list[dict[str, Any]], part: str, name: str) -> float:
    return sum((snapshot.get(part) or {}).get(name) or 0 for snapshot in snapshots)
