from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from tests.hub.presence_rig import Database, Process
from tests.hub.rig import Home
from ws4redis.hub import mirrors
from ws4redis.hub import presence as module
from ws4redis.servers.process import connect_to_redis


@pytest.fixture
def database(redis_client: redis.Redis) -> Database:
    return Database(redis_client)


@pytest.fixture
def process(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    monkeypatch.setattr(module, 'RENEWAL_SECONDS', 0.05)
    monkeypatch.setattr(module, 'VERIFICATION_SECONDS', 0.5)
    monkeypatch.setattr(module, 'GRACE_SECONDS', 0.1)
    monkeypatch.setattr(module, 'BURIAL_AGE_SECONDS', 0.1)
    monkeypatch.setattr(module, 'REFUSED_SECONDS', 0.2)
    monkeypatch.setattr(mirrors, 'RETRY_SECONDS', 0.05)
    with Home(connect=connect_to_redis) as hub:
        hub.turn_until(lambda: hub.links.commands.is_connected)
        process = Process(hub, redis_client)
        with process.pubsub:
            yield process
