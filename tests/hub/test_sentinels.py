"""The loop under real Sentinels: it follows the master, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test import override_settings

from tests.hub.rig import Home, bus_link_of
from tests.timeouts import SERVER_SECONDS, wait_until
from tests.topologies import RedisWithSentinels
from ws4redis.broker.connections import drop_client
from ws4redis.broker.masters import ask_sentinel
from ws4redis.publisher import RedisPublisher
from ws4redis.servers.process import (
    connect_to_redis,
    options_from_settings,
    publication_packer,
    what_finds_redis,
)
from ws4redis.settings.topologies import target_of

pytestmark = pytest.mark.slow

FACILITIES = {'hist*': {'HISTORY_SIZE': 5000}}


@pytest.fixture(scope='module')
def servers() -> Iterator[RedisWithSentinels]:
    with RedisWithSentinels(password='secret', sentinel_password='other') as running:
        yield running


@pytest.fixture
def service(servers: RedisWithSentinels) -> Iterator[RedisWithSentinels]:
    servers.wait_until_whole()
    settings = {
        'WS4REDIS_CONNECTION': servers.connection,
        'WS4REDIS_FACILITIES': FACILITIES,
        'WS4REDIS_PING_INTERVAL': None,
        'WS4REDIS_REDIS_TIMEOUT': 60,
    }
    with override_settings(**settings):
        yield servers
        drop_client()


@pytest.fixture
def hub(service: RedisWithSentinels) -> Iterator[Home]:
    with Home(
        connect=connect_to_redis,
        pack=publication_packer(),
        options=options_from_settings(),
        **what_finds_redis(),
    ) as hub:
        hub.turn_until(lambda: hub.links.is_connected)
        yield hub


def publish(message: str) -> None:
    RedisPublisher(facility='hist', broadcast=True).publish_message(message, expire=0)


def test_a_failover_is_followed(hub: Home, service: RedisWithSentinels) -> None:
    peer = hub.peer()
    joined: list[bool] = []
    hub.join_names(peer.websocket, ['broadcast:hist'], lambda: joined.append(True))
    hub.turn_until(lambda: joined)
    publish('before')

    service.fail_over()
    hub.turn_until(lambda: bus_link_of(hub).reconnects and bus_link_of(hub).is_subscribed)
    service.wait_until_whole()
    hub.turn_until(lambda: bus_link_of(hub).is_subscribed)
    drop_client()
    publish('after')

    messages: list[str | bytes] = []

    def have_come() -> bool:
        messages.extend(peer.messages())
        return len(messages) >= 2

    hub.turn_until(have_come)
    assert messages == ['before', 'after']
    assert not hub.statistics.gaps


def test_what_leads_a_failover_names_the_new_master_as_soon_as_the_others_do(
    service: RedisWithSentinels,
) -> None:
    target = target_of(service.connection)
    before = service.master().announced_port
    leader = service.sentinels[0]
    with leader.client() as client:
        client.execute_command('SENTINEL', 'FAILOVER', 'main')

    def all_name_another() -> bool:
        by_epoch: dict[int, set[int]] = {}
        for node in target.nodes:
            epoch, _, (_, port) = ask_sentinel(target, node)
            by_epoch.setdefault(epoch, set()).add(port)
        assert all(len(ports) == 1 for ports in by_epoch.values())
        return before not in {port for ports in by_epoch.values() for port in ports}

    wait_until(all_name_another, timeout=SERVER_SECONDS, message='no failover')


def test_a_master_that_hangs_is_left_as_soon_as_the_sentinels_say_so(
    hub: Home, service: RedisWithSentinels, caplog: pytest.LogCaptureFixture
) -> None:
    before = service.master()
    reconnects = bus_link_of(hub).reconnects
    before.pause()
    try:
        hub.turn_until(lambda: service.master() is not before, message='no failover')
        hub.turn_until(
            lambda: bus_link_of(hub).reconnects > reconnects and bus_link_of(hub).is_connected
        )
    finally:
        before.resume()

    # It is left because of what they say, and no time-out of the connection, which is a minute,
    # was waited for.
    words = [record.getMessage() for record in caplog.records]
    (told,) = (at for at, line in enumerate(words) if 'the Sentinels name another master' in line)
    lost = [at for at, line in enumerate(words) if 'lost the connection to Redis (pub/sub)' in line]
    assert lost
    assert told < lost[0]
    assert 'no answer for' not in caplog.text
