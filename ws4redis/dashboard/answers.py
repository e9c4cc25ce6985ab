"""What monitoring is answered, whoever serves it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from redis.exceptions import RedisError

from ws4redis.servers.statistics import get_snapshots

logger = logging.getLogger('ws4redis')

TEXT: Final = 'text/plain; charset=utf-8'


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    body: bytes
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


def metrics_answer() -> Answer:
    """Return the metrics of all processes; 503 when Redis cannot be reached."""
    from ws4redis.dashboard.metrics import CONTENT_TYPE_LATEST, exposition

    try:
        snapshots = get_snapshots()
    except (RedisError, OSError) as exc:
        logger.warning('the metrics cannot be read from Redis: %s', exc)
        return Answer(503, b'Redis is away\n')
    return Answer(200, exposition(snapshots), CONTENT_TYPE_LATEST)


def unauthorized_answer() -> Answer:
    """Return the answer to who has not sent the token."""
    return Answer(
        401,
        'Set WS4REDIS_METRICS_TOKEN, and send it: Authorization: Bearer …\n'.encode(),
        headers={'WWW-Authenticate': 'Bearer'},
    )
