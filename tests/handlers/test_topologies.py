"""Handlers in other processes on a Cluster, whose masters change."""

from __future__ import annotations

import pytest
from redis.crc import key_slot

from tests.standalone.server import WEBSOCKET_URL, StandaloneServer, settings_with_handlers
from tests.timeouts import SERVER_SECONDS, wait_until
from tests.topologies import ClusterOfRedis, require_cluster
from tests.websocket_client import HandshakeRefused, RawWebSocket

pytestmark = pytest.mark.slow

KEY = b'{ws4redis-handlers}'


def echoes(server: StandaloneServer) -> bool:
    try:
        with RawWebSocket(f'{server.ws_url}/socket/echo') as websocket:
            websocket.send('hello')
            return bool(websocket.receive() == 'hello')
    except (HandshakeRefused, OSError):
        return False


def test_handlers_in_other_processes_follow_their_keys(django_db_setup: None) -> None:
    require_cluster()
    with ClusterOfRedis() as cluster:
        settings = settings_with_handlers(WS4REDIS_CONNECTION=cluster.connection)
        with StandaloneServer(
            *('--multiprocess', '--handler-processes', '1', '--websocket-url', WEBSOCKET_URL),
            redis_server=None,
            django_settings=settings,
        ) as server:
            wait_until(lambda: echoes(server), timeout=SERVER_SECONDS)

            owner = cluster.owner_of(key_slot(KEY))
            cluster.fail_over(cluster.replicas_of(owner)[0])
            cluster.wait_until_whole()

            wait_until(lambda: echoes(server), timeout=SERVER_SECONDS)
