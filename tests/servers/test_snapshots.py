from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from django.test import override_settings

from tests.programs import RedisServer, UwsgiServer
from tests.timeouts import wait_until
from tests.websocket_client import RawWebSocket
from ws4redis.loop.metrics import declarations
from ws4redis.publisher import RedisPublisher
from ws4redis.statistics import get_snapshots, get_statistics

pytestmark = pytest.mark.slow
SETTINGS = {
    'WS4REDIS_SNAPSHOT_INTERVAL': 0.2,
    'WS4REDIS_FACILITIES': {'chat/*': {}},
    'WS4REDIS_DRAIN_SECONDS': 0,
}


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[UwsgiServer]:
    with UwsgiServer(redis_server=redis_server, django_settings=SETTINGS) as server:
        yield server


def test_django_sees_what_the_websocket_loop_does(
    server: UwsgiServer, redis_client: redis.Redis
) -> None:
    with RawWebSocket(server.ws_url + '/ws/chat/7?subscribe-broadcast'):
        wait_until(lambda: get_statistics().get('open') == 1)
        publisher = RedisPublisher(facility='chat/7', broadcast=True)
        for _ in range(20):
            publisher.publish_message('hello')
        wait_until(lambda: get_statistics()['messages_sent'] == 20)
        (snapshot,) = get_snapshots()
        assert snapshot['metrics']['facility_messages'] == {'chat/*': 20}
        wait_until(lambda: get_snapshots()[0]['rates']['redis_seconds'])
        assert 0 <= snapshot['rates']['lag_p50'] <= snapshot['rates']['lag_p99'] < 5
    told = snapshot['statistics'].keys() | snapshot['metrics'].keys()
    assert told - {'pid'} <= declarations.keys()
    server.kill()
    wait_until(lambda: get_snapshots() == [])


def test_the_busiest_facilities_are_named(server: UwsgiServer, redis_client: redis.Redis) -> None:
    publisher = RedisPublisher(facility='chat/busy', broadcast=True)

    def is_named() -> bool:
        publisher.publish_message('hello')
        return any(
            facility[0] == 'chat/busy' and facility[1] > 0 and facility[2] == 1
            for snapshot in get_snapshots()
            for facility in snapshot['facilities']
        )

    with RawWebSocket(server.ws_url + '/ws/chat/busy?subscribe-broadcast'):
        wait_until(is_named)


def test_without_an_interval_nothing_is_told(redis_server: RedisServer) -> None:
    with override_settings(WS4REDIS_SNAPSHOT_INTERVAL=None):
        assert get_snapshots() == []
