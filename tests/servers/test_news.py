"""What processes tell those who look at the live page."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import pytest
import redis

from tests.dashboard.snapshots import snapshot, tell
from ws4redis.broker.watchers import read_watchers, take_turn, watch
from ws4redis.servers import news

CHANNEL = 'user:mary:ws4redis-live'


@pytest.fixture
def told(redis_client: redis.Redis) -> Any:
    """Return what is published to a user: a list, or an empty one."""
    pubsub: Any = redis_client.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe(CHANNEL)
    pubsub.get_message(timeout=5)

    def messages() -> list[Any]:
        redis_client.publish(CHANNEL, 'null')
        found: list[Any] = []
        while True:
            message = pubsub.get_message(timeout=5)
            if message is None:
                continue
            value = json.loads(message['data'])
            if value is None:
                return found
            found.append(value)

    yield messages
    pubsub.close()


def test_who_watches_is_told_the_overview_by_one_process(
    redis_client: redis.Redis, told: Any
) -> None:
    tell(redis_client, snapshot(1), snapshot(2))
    watch(redis_client, 'mary')
    news.tell('one', 60)
    news.tell('two', 60)
    (overview,) = told()
    assert overview['totals']['open'] == 200
    assert redis_client.get(CHANNEL) is None


def test_nobody_is_told_who_does_not_watch(redis_client: redis.Redis, told: Any) -> None:
    watch(redis_client, 'john')
    with patch.object(news, 'read_snapshots', return_value=[]) as read:
        news.tell('one', 60)
    assert read.called
    assert told() == []


def test_nothing_is_put_together_while_nobody_watches(redis_client: redis.Redis) -> None:
    with patch.object(news, 'read_snapshots') as read:
        news.tell('one', 60)
    assert not read.called
    assert take_turn(redis_client, 'one', 60)


def test_who_has_stopped_watching_is_forgotten(redis_client: redis.Redis) -> None:
    for user in ('mary', 'jörg', ''):
        watch(redis_client, user)
    redis_client.delete('ws4redis:{processes}:watchers:mary')
    assert read_watchers(redis_client) == ['', 'jörg']
    assert redis_client.scard('ws4redis:{processes}:watchers') == 2
    assert 0 < redis_client.ttl('ws4redis:{processes}:watchers:jörg') <= 90


def test_without_redis_nothing_is_told_and_nothing_raised(settings: Any) -> None:
    settings.WS4REDIS_CONNECTION = {'host': '127.0.0.1', 'port': 1}
    news.tell('one', 60)
