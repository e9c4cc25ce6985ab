"""The control channel in a Redis Cluster, and the channels that the server API finds there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth import logout
from django.test import override_settings
from redis.crc import key_slot

from tests.django_requests import logged_in_request, make_user
from tests.serving import Served, served
from tests.timeouts import SERVER_SECONDS, SOON_SECONDS, wait_until
from tests.topologies import ClusterOfRedis, require_cluster
from tests.websocket_client import RawWebSocket
from ws4redis.api.methods import run
from ws4redis.applications.wsgi import WebSocketServer
from ws4redis.broker.connections import drop_client
from ws4redis.broker.control import control_keys
from ws4redis.control import adisconnect, disconnect, unsubscribe
from ws4redis.protocol.end_codes import EndCode

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture(scope='module')
def running() -> Iterator[ClusterOfRedis]:
    require_cluster()
    with ClusterOfRedis(replicas=0) as running:
        yield running


@pytest.fixture
def cluster(running: ClusterOfRedis) -> Iterator[ClusterOfRedis]:
    running.wait_until_whole()
    # No sweep: what a message does not end stays.
    settings = {'WS4REDIS_CONNECTION': running.connection, 'WS4REDIS_REVALIDATE_SECONDS': None}
    with override_settings(**settings):
        yield running
        drop_client()


@pytest.fixture
def server(cluster: ClusterOfRedis) -> Iterator[Served]:
    with served(WebSocketServer()) as server:
        yield server


def connect(server: Served, request: Any) -> RawWebSocket:
    cookie = f'sessionid={request.session.session_key}'
    address = f'{server.ws_url}/ws/inbox?subscribe=user,broadcast'
    return RawWebSocket(address, headers={'Cookie': cookie})


def owner_of_control(cluster: ClusterOfRedis) -> Any:
    return cluster.owner_of(key_slot(control_keys('').plain))


def has_listener(node: Any) -> bool:
    with node.client() as client:
        reply = client.execute_command(b'PUBSUB', 'SHARDNUMSUB', control_keys('').plain)
    return bool(reply[1])


def from_a_coroutine(request: Any) -> None:
    asyncio.run(adisconnect(user='mary'))


ENDS: dict[str, tuple[Callable[[Any], object], int]] = {
    'logout': (logout, EndCode.LOGGED_OUT),
    'disconnect': (lambda request: disconnect(user='mary'), EndCode.DISCONNECTED),
    'adisconnect': (from_a_coroutine, EndCode.DISCONNECTED),
}


@pytest.mark.parametrize('end', ENDS)
def test_a_websocket_ends_with_what_it_was_granted_for(
    cluster: ClusterOfRedis, server: Served, end: str
) -> None:
    request = logged_in_request(make_user('mary'))
    with connect(server, request) as websocket:
        wait_until(lambda: has_listener(owner_of_control(cluster)))
        what_ends, code = ENDS[end]
        what_ends(request)
        assert websocket.receive_close(timeout=SOON_SECONDS)[0] == code


def test_the_api_finds_the_channels_of_all_nodes_and_whoever_unsubscribes_is_gone(
    cluster: ClusterOfRedis, server: Served
) -> None:
    def found() -> dict[str, int]:
        channels = run('channels', {'pattern': '*inbox'})['channels']
        return {name: channel['num_clients'] for name, channel in channels.items()}

    names = ('broadcast:inbox', 'user:mary:inbox')
    assert len({cluster.owner_of(key_slot(name.encode())).port for name in names}) == 2
    with connect(server, logged_in_request(make_user('mary'))):
        wait_until(lambda: has_listener(owner_of_control(cluster)))
        assert found() == dict.fromkeys(names, 1)
        unsubscribe('inbox', user='mary')
        wait_until(lambda: found() == {'broadcast:inbox': 1})


def test_the_control_channel_is_heard_on_the_node_that_its_slot_moves_to(
    cluster: ClusterOfRedis, server: Served
) -> None:
    with connect(server, logged_in_request(make_user('mary'))) as websocket:
        wait_until(lambda: has_listener(owner_of_control(cluster)))
        owner = owner_of_control(cluster)
        target = next(node for node in cluster.masters() if node is not owner)
        cluster.migrate(key_slot(control_keys('').plain), target)
        wait_until(lambda: has_listener(target), timeout=SERVER_SECONDS)
        disconnect(user='mary')
        assert websocket.receive_close(timeout=SOON_SECONDS)[0] == EndCode.DISCONNECTED


def test_a_process_that_reads_of_a_broken_chain_tells_the_others(
    cluster: ClusterOfRedis, server: Served
) -> None:
    keys = control_keys('')
    with connect(server, logged_in_request(make_user('mary'))):
        wait_until(lambda: has_listener(owner_of_control(cluster)))
        with owner_of_control(cluster).client() as client:
            wait_until(lambda: client.exists(keys.position))
            pubsub: Any = client.pubsub()
            pubsub.execute_command('SSUBSCRIBE', keys.events)
            assert pubsub.parse_response(block=False, timeout=SERVER_SECONDS)
            client.hset(keys.position, 't', 'another')
            client.execute_command('SPUBLISH', keys.plain, '')
            told = pubsub.parse_response(block=False, timeout=SOON_SECONDS)
    assert told is not None, 'nothing was told'
    assert (told[0], told[2][:2]) == (b'smessage', b'E ')
