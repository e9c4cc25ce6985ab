"""The loop on a real Cluster: channels follow their slots, and nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
import redis
from django.test import override_settings
from redis.crc import key_slot

from tests.hub.rig import Home, Peer
from tests.timeouts import SERVER_SECONDS, scaled
from tests.topologies import ClusterOfRedis, require_cluster
from ws4redis.broker.connections import drop_client, redis_target
from ws4redis.hub.cluster_links import ClusterLinks
from ws4redis.hub.identity import Identity
from ws4redis.presence import counts
from ws4redis.publisher import RedisPublisher
from ws4redis.servers.process import (
    Cluster,
    connect_to_redis,
    options_from_settings,
    publication_packer,
)
from ws4redis.settings.topologies import Node

pytestmark = pytest.mark.slow

FACILITIES = {'hist*': {'HISTORY_SIZE': 5000}, 'room*': {'PRESENCE': True}}


@pytest.fixture(scope='module')
def servers() -> Iterator[ClusterOfRedis]:
    require_cluster()
    with ClusterOfRedis() as running:
        yield running


@pytest.fixture
def cluster(servers: ClusterOfRedis) -> Iterator[ClusterOfRedis]:
    servers.wait_until_whole()
    settings = {
        'WS4REDIS_CONNECTION': servers.connection,
        'WS4REDIS_FACILITIES': FACILITIES,
        'WS4REDIS_PING_INTERVAL': None,
    }
    with override_settings(**settings):
        yield servers
        drop_client()


@pytest.fixture
def hub(cluster: ClusterOfRedis) -> Iterator[Home]:
    with Home(
        connect=connect_to_redis,
        cluster=Cluster(redis_target()),
        pack=publication_packer(),
        options=options_from_settings(),
    ) as hub:
        hub.turn_until(lambda: hub.links.is_connected)
        yield hub


def links_of(hub: Home) -> ClusterLinks:
    assert isinstance(hub.links, ClusterLinks)
    return hub.links


def join(hub: Home, *facilities: str) -> Peer:
    peer = hub.peer()
    joined: list[bool] = []
    names = [f'broadcast:{facility}' for facility in facilities]
    hub.join_names(peer.websocket, names, lambda: joined.append(True))
    hub.turn_until(lambda: joined)
    hub.turn_until(
        lambda: all(channel.holds(peer.websocket) for channel in hub.bus.channels.values())
    )
    return peer


def publish(facility: str, *messages: str) -> None:
    publisher = RedisPublisher(facility=facility, broadcast=True)
    for message in messages:
        publisher.publish_message(message, expire=0)


def slot_of(facility: str) -> int:
    return key_slot(f'broadcast:{facility}'.encode())


def receive(hub: Home, peer: Peer, number: int) -> list[str | bytes]:
    """Turn until so many messages have come, and a bit longer, for those that should not."""
    messages: list[str | bytes] = []

    def have_come() -> bool:
        messages.extend(peer.messages())
        return len(messages) >= number

    hub.turn_until(have_come)
    hub.turn_for(0.1)
    return messages + peer.messages()


class Publishing(threading.Thread):
    """Publish numbers until it is told to stop."""

    def __init__(self, *facilities: str) -> None:
        super().__init__()
        self.facilities = facilities
        self.published = 0
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.003):
            for facility in self.facilities:
                publish(facility, str(self.published))
            self.published += 1

    def finish(self) -> list[str]:
        """Stop, and return what was published on each facility."""
        self._done.set()
        self.join(SERVER_SECONDS)
        return [str(number) for number in range(self.published)]


def meanwhile(hub: Home, action: threading.Thread) -> None:
    """Turn the loop until a thread has done its work."""
    action.start()
    hub.turn_until(lambda: not action.is_alive())


@pytest.mark.parametrize('kind', ['hist', 'plain'])
def test_channels_of_all_nodes_are_heard(hub: Home, cluster: ClusterOfRedis, kind: str) -> None:
    facilities = [f'{kind}/{number}' for number in range(20)]
    owners = {cluster.owner_of(slot_of(facility)).port for facility in facilities}
    assert len(owners) == 3
    peer = join(hub, *facilities)

    for facility in facilities:
        publish(facility, facility)

    assert sorted(map(str, receive(hub, peer, 20))) == sorted(facilities)
    assert len(links_of(hub).nodes) == 3


def test_a_process_has_two_connections_to_each_master(hub: Home, cluster: ClusterOfRedis) -> None:
    join(hub, *(f'plain/{number}' for number in range(50)))

    for node in cluster.masters():
        with node.client() as client:
            names = [each['cmd'] for each in client.client_list() if each['flags'] in 'NP']
        # One of them asks.
        assert len(names) <= 3 + 1


@pytest.mark.parametrize('pause_seconds', [0.0, 0.3])
def test_a_slot_that_moves_under_traffic_loses_nothing(
    hub: Home, cluster: ClusterOfRedis, pause_seconds: float
) -> None:
    facility = f'hist/moves/{pause_seconds}'
    peer = join(hub, facility)
    publishing = Publishing(facility)
    publishing.start()

    def move() -> None:
        for _ in range(4):
            owner = cluster.owner_of(slot_of(facility))
            target = next(node for node in cluster.masters() if node is not owner)
            cluster.migrate(slot_of(facility), target, pause_seconds=pause_seconds)

    meanwhile(hub, threading.Thread(target=move))
    published = publishing.finish()

    assert receive(hub, peer, len(published)) == published
    assert not hub.statistics.gaps


def test_a_failover_by_hand_loses_nothing(hub: Home, cluster: ClusterOfRedis) -> None:
    facility = 'hist/failover'
    peer = join(hub, facility)
    publishing = Publishing(facility)
    publishing.start()
    master = cluster.owner_of(slot_of(facility))
    replica = cluster.replicas_of(master)[0]

    def change() -> None:
        cluster.fail_over(replica)
        cluster.wait_until_whole()
        threading.Event().wait(0.3)

    meanwhile(hub, threading.Thread(target=change))
    published = publishing.finish()

    assert receive(hub, peer, len(published)) == published
    assert not hub.statistics.gaps
    link = hub.bus.channels[f'broadcast:{facility}'.encode()].link
    assert link is links_of(hub).nodes[Node(replica.host, replica.port)].bus_link


def test_who_is_killed_is_replaced(hub: Home, cluster: ClusterOfRedis) -> None:
    facility = 'hist/killed'
    peer = join(hub, facility, 'plain/killed')
    publish(facility, 'before')
    assert receive(hub, peer, 1) == ['before']
    master = cluster.owner_of(slot_of(facility))
    replica = cluster.replicas_of(master)[0]

    master.kill()
    hub.turn_until(lambda: cluster.is_master(replica), message='no failover')
    meanwhile(hub, threading.Thread(target=publish, args=(facility, 'after')))

    assert receive(hub, peer, 1) == ['after']
    assert not hub.statistics.gaps
    master.start()
    cluster.wait_until_whole()


def test_what_a_websocket_publishes_keeps_its_order_while_the_slot_moves(
    hub: Home, cluster: ClusterOfRedis
) -> None:
    facility = 'hist/own'
    names = (f'broadcast:{facility}',)
    sender, listener = hub.peer(), join(hub, facility)
    sent: list[str] = []
    stop = threading.Event()

    def send() -> None:
        if not stop.is_set():
            for _ in range(5):
                text = str(len(sent))
                sent.append(text)
                hub.publications.publish(sender.websocket, names, text.encode())
            hub.loop.call_later(0.005, send)

    send()

    def move() -> None:
        for _ in range(4):
            owner = cluster.owner_of(slot_of(facility))
            target = next(node for node in cluster.masters() if node is not owner)
            cluster.migrate(slot_of(facility), target, pause_seconds=0.1)
        stop.set()

    meanwhile(hub, threading.Thread(target=move))

    assert receive(hub, listener, len(sent)) == sent
    assert hub.publications.unanswered == 0


def test_a_message_on_several_channels_goes_to_all_of_their_nodes(hub: Home) -> None:
    facilities = [f'plain/several/{number}' for number in range(6)]
    peer = join(hub, *facilities)
    names = tuple(f'broadcast:{facility}' for facility in facilities)
    done: list[object] = []

    hub.publications.publish(
        peer.websocket, names, b'all', done=lambda *answer: done.append(answer)
    )

    hub.turn_until(lambda: done)
    assert done == [({}, None)]


def test_a_plain_publish_of_others_is_not_heard_and_spublish_is(
    hub: Home, cluster: ClusterOfRedis
) -> None:
    peer = join(hub, 'plain/others')
    node = cluster.owner_of(slot_of('plain/others'))

    with node.client() as client:
        client.execute_command('PUBLISH', 'broadcast:plain/others', 'unheard')
        client.execute_command('SPUBLISH', 'broadcast:plain/others', 'heard')

    assert receive(hub, peer, 1) == ['heard']


def test_a_kept_message_reaches_a_newcomer(hub: Home) -> None:
    RedisPublisher(facility='plain/kept', broadcast=True).publish_message('kept', expire=60)

    peer = join(hub, 'plain/kept')

    assert receive(hub, peer, 1) == ['kept']


def test_all_nodes_down_and_up_again(hub: Home, cluster: ClusterOfRedis) -> None:
    facility = 'hist/down'
    peer = join(hub, facility)
    publish(facility, 'before')
    assert receive(hub, peer, 1) == ['before']

    for node in cluster.nodes:
        node.stop()
    hub.turn_for(0.5)
    for node in cluster.nodes:
        node.spawn()
    for node in cluster.nodes:
        node.wait_until_ready(0)
    meanwhile(
        hub,
        threading.Thread(target=cluster.wait_until_whole, args=(scaled(60),)),
    )
    meanwhile(hub, threading.Thread(target=publish, args=(facility, 'after')))

    assert receive(hub, peer, 1) == ['after']


def test_presence_follows_moved_slots_and_failovers_and_nothing_is_told_of_them(
    hub: Home, cluster: ClusterOfRedis
) -> None:
    facilities = [f'room/{number}' for number in range(12)]
    assert len({cluster.owner_of(slot_of(facility)).port for facility in facilities}) == 3
    told: list[str] = []

    def watch(facility: str) -> None:
        hub.mirrors.listen(
            f'broadcast:{facility}'.encode(),
            lambda channel, kind, who: told.append(f'{kind} {channel.decode()} {who.user}'),
            lambda members: None,
        )

    def enter(user: str) -> Peer:
        peer = hub.peer()
        peer.websocket.identity = Identity(user=user)
        names = [f'broadcast:{facility}' for facility in facilities]
        hub.join_names(peer.websocket, names, lambda: None)
        return peer

    def are_counted(number: int) -> bool:
        # A Cluster that fails over has no answer for a moment.
        with suppress(redis.RedisError):
            return set(counts(facilities).values()) == {number}
        return False

    enter('john')
    hub.turn_until(lambda: are_counted(1))
    for facility in facilities:
        watch(facility)
    hub.turn_until(lambda: all(m.version is not None for m in hub.mirrors._mirrors.values()))
    told.clear()

    slot = slot_of('room/1')
    target = next(node for node in cluster.masters() if node is not cluster.owner_of(slot))
    meanwhile(hub, threading.Thread(target=cluster.migrate, args=(slot, target)))
    (replica,) = cluster.replicas_of(cluster.owner_of(slot_of('room/2')))
    meanwhile(hub, threading.Thread(target=cluster.fail_over, args=(replica,)))
    mary = enter('mary')
    hub.turn_until(lambda: are_counted(2))
    hub.turn_until(lambda: len(told) >= len(facilities))
    hub.turn_for(0.5)
    assert sorted(told) == sorted(f'J broadcast:{facility} mary' for facility in facilities)
    told.clear()
    hub.leave(mary.websocket, [f'broadcast:{facility}' for facility in facilities])
    hub.turn_until(lambda: are_counted(1))
    hub.turn_until(lambda: len(told) >= len(facilities))
    assert sorted(told) == sorted(f'L broadcast:{facility} mary' for facility in facilities)
