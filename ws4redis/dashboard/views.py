"""Views for monitoring: metrics, health, readiness."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from redis.exceptions import RedisError

from ws4redis.conf import conf
from ws4redis.dashboard.access import has_token, may_view
from ws4redis.dashboard.answers import metrics_answer, unauthorized_answer
from ws4redis.servers.statistics import get_snapshots

if TYPE_CHECKING:
    from django.http import HttpRequest


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Show the metrics of all processes to Prometheus.

    401 without the token of the settings, unless a user with the permission asks; 503 when Redis
    cannot be reached.
    """
    may_see = has_token(request) or may_view(request)
    answer = metrics_answer() if may_see else unauthorized_answer()
    return HttpResponse(
        answer.body,
        status=answer.status,
        headers=dict(answer.headers),
        content_type=answer.content_type,
    )


@never_cache
@require_safe
def health(request: HttpRequest) -> HttpResponse:
    """Say that this process serves: 200, without asking anybody else."""
    return HttpResponse('ok\n', content_type='text/plain')


@never_cache
@require_safe
def ready(request: HttpRequest) -> HttpResponse:
    """Say whether websockets work: 200 if Redis answers and a process holds them, else 503."""
    try:
        processes = [snapshot['statistics'] for snapshot in get_snapshots()]
    except (RedisError, OSError):
        return JsonResponse({'redis': False, 'processes': 0}, status=503)
    connected = sum(1 for statistics in processes if statistics.get('redis_connected'))
    # Without snapshots, there is no telling.
    is_ready = bool(connected) or conf.WS4REDIS_SNAPSHOT_INTERVAL is None
    return JsonResponse({'redis': True, 'processes': connected}, status=200 if is_ready else 503)
