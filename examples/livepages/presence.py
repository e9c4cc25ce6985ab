"""Who is here now, kept in Redis, so that all processes know the same.

Each visitor has a line in a hash, and the time of the last sign of life in a sorted set. A process
that crashed cannot say goodbye for its visitors: they go when they have given no sign for a while.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from ws4redis.broker.connections import get_client
from ws4redis.conf import conf

if TYPE_CHECKING:
    from django.http import HttpRequest

FACILITY = 'visitors'
GONE_AFTER_SECONDS = 60
MOST_VISITORS_NAMED = 200

ADJECTIVES = ('Brave', 'Calm', 'Curious', 'Eager', 'Gentle', 'Merry', 'Quick', 'Quiet', 'Witty')
ANIMALS = ('Badger', 'Crane', 'Heron', 'Lynx', 'Marten', 'Otter', 'Owl', 'Seal', 'Wren')


@dataclass(frozen=True)
class Visitor:
    """Somebody with a page open."""

    id: str
    name: str
    is_guest: bool

    @classmethod
    def of(cls, request: HttpRequest) -> Self:
        """Return the visitor of a handshake: a user, or a guest with a name of our choice."""
        user: Any = request.user
        if user.is_authenticated:
            return cls(secrets.token_hex(8), user.get_username(), is_guest=False)
        name = f'{secrets.choice(ADJECTIVES)} {secrets.choice(ANIMALS)}'
        return cls(secrets.token_hex(8), name, is_guest=True)


def _key(name: str) -> str:
    prefix = conf.WS4REDIS_PREFIX
    return f'{prefix}:livepages:{name}' if prefix else f'livepages:{name}'


def arrive(visitor: Visitor) -> None:
    with get_client().pipeline() as pipeline:
        pipeline.hset(_key('visitors'), visitor.id, json.dumps(asdict(visitor)))
        pipeline.zadd(_key('seen'), {visitor.id: time.time()})
        pipeline.execute()


def stay(visitor: Visitor) -> None:
    get_client().zadd(_key('seen'), {visitor.id: time.time()})


def leave(*visitors: Visitor) -> None:
    _forget([visitor.id for visitor in visitors])


def _forget(ids: list[Any]) -> None:
    with get_client().pipeline() as pipeline:
        pipeline.hdel(_key('visitors'), *ids)
        pipeline.zrem(_key('seen'), *ids)
        pipeline.execute()


def here() -> list[dict[str, Any]]:
    """Return who is here, those who came first before the others."""
    client = get_client()
    gone: Any = client.zrangebyscore(_key('seen'), '-inf', time.time() - GONE_AFTER_SECONDS)
    if gone:
        _forget(gone)
    lines: Any = client.hgetall(_key('visitors'))
    return sorted((json.loads(line) for line in lines.values()), key=lambda line: line['name'])


def as_json() -> str:
    """Return what browsers are told."""
    visitors = here()
    return json.dumps({'count': len(visitors), 'visitors': visitors[:MOST_VISITORS_NAMED]})
