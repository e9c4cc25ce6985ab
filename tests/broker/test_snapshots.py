from __future__ import annotations

import redis

from tests.dashboard.snapshots import snapshot, tell
from tests.programs import RedisServer
from tests.timeouts import wait_until
from ws4redis.broker.snapshots import index_key, read_snapshots, snapshot_key
from ws4redis.statistics import get_snapshots, get_statistics


def test_what_processes_tell_can_be_read_anywhere(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    assert get_snapshots() == []
    assert get_statistics() == {}
    tell(redis_client, snapshot(1), snapshot(2, open=50, redis_connected=False))
    assert [found['pid'] for found in get_snapshots()] == [1, 2]
    statistics = get_statistics()
    assert statistics['processes'] == 2
    assert statistics['open'] == 150
    assert statistics['handshakes'] == {101: 240, 403: 4}
    assert statistics['gaps'] == {'trimmed': 6}
    assert statistics['queued_bytes_max'] == 20
    assert statistics['redis_connected'] is False
    assert 'pid' not in statistics


def test_a_process_that_died_is_forgotten(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    tell(redis_client, snapshot(1), seconds=60)
    tell(redis_client, snapshot(2), seconds=0.01)
    wait_until(lambda: [found['pid'] for found in get_snapshots()] == [1])
    assert redis_client.smembers(index_key()) == {b'web-1-x'}


def test_what_is_no_snapshot_is_left_out(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    tell(redis_client, *(snapshot(pid) for pid in range(5)))
    for pid, value in enumerate((b'{', b'[]', b'{"statistics": 7}', b'\xff')):
        redis_client.set(snapshot_key(f'web-{pid}-x'), value)
    assert [found['pid'] for found in read_snapshots(redis_client)] == [4]
