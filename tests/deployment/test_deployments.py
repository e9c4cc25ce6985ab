"""Each deployment that the documentation shows, started with the real servers and used."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import quote

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.deployment.deployments import DEPLOYMENTS, Deployment
from tests.deployment.installation import PROXY_PATIENCE_SECONDS
from tests.programs import RedisServer
from tests.timeouts import SOON_SECONDS, scaled, wait_until

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(scaled(180))]

# Longer than the time-outs of all servers in front, uWSGI's socket-timeout of 10 seconds included.
IDLE_SECONDS = 3 * PROXY_PATIENCE_SECONDS


@pytest.fixture(scope='module')
def own_redis() -> Iterator[RedisServer]:
    """A Redis of this module's own, since its servers outlive a test."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def facility() -> str:
    """A facility that no other test has left a message in."""
    return secrets.token_hex(4)


@pytest.fixture(scope='module', params=DEPLOYMENTS)
def deployment(request: pytest.FixtureRequest, own_redis: RedisServer) -> Iterator[Deployment]:
    with DEPLOYMENTS[request.param](own_redis) as running:
        yield running


def receive(websocket: ClientConnection) -> str | bytes:
    return websocket.recv(timeout=SOON_SECONDS)


def test_a_page_says_where_its_websocket_is(deployment: Deployment) -> None:
    scheme = 'wss' if deployment.is_encrypted else 'ws'
    assert f'{scheme}://{deployment.address}/ws/' in deployment.get('/chat/')


def test_the_browsers_client_is_a_static_file(deployment: Deployment) -> None:
    assert 'WS4Redis' in deployment.get('/static/js/ws4redis.js')


def test_an_event_stream_passes_each_event_at_once(
    deployment: Deployment, own_redis: RedisServer, facility: str
) -> None:
    with own_redis.client() as client:
        client.set(f'broadcast:{facility}', 'kept')
        with deployment.event_stream(f'{facility}?subscribe-broadcast') as stream:
            assert stream.status == 200
            assert stream.headers['content-type'].startswith('text/event-stream')
            assert stream.receive().data == 'kept'
            for number in range(3):
                assert client.publish(f'broadcast:{facility}', number) >= 1
                assert stream.receive().data == str(number)


def test_a_client_of_a_stream_says_what_it_wants_in_requests(deployment: Deployment) -> None:
    connect = quote('{"id": 1, "connect": {}}')
    with deployment.event_stream(f'connection/sse?cf_connect={connect}') as stream:
        told = json.loads(stream.receive().data)['connect']
        # Where there are two websocket processes, some of these go to the other one.
        for number in range(2, 6):
            said = {
                'session': told['session'],
                'node': told['node'],
                'data': json.dumps({'id': number, 'ping': {}}),
            }
            assert deployment.post('/ws/connection/emulation', said) == 200
            assert json.loads(stream.receive().data) == {'id': number, 'ping': {}}


def test_a_published_message_reaches_all_websockets(
    deployment: Deployment, own_redis: RedisServer, facility: str
) -> None:
    with ExitStack() as websockets, own_redis.client() as client:
        # Where there are two websocket processes, each gets some of them.
        opened = [websockets.enter_context(deployment.websocket(facility)) for _ in range(4)]
        client.publish(f'broadcast:{facility}', 'hello, wörld')
        assert [receive(websocket) for websocket in opened] == ['hello, wörld'] * 4


def test_a_kept_message_is_there_at_once(
    deployment: Deployment, own_redis: RedisServer, facility: str
) -> None:
    with own_redis.client() as client:
        client.set(f'broadcast:{facility}', 'still here', ex=60)
    with deployment.websocket(facility) as websocket:
        assert receive(websocket) == 'still here'


def test_what_a_browser_sends_reaches_others(deployment: Deployment, facility: str) -> None:
    options = 'subscribe-broadcast&publish-broadcast'
    with (
        deployment.websocket(facility, options) as sender,
        deployment.websocket(facility) as listener,
    ):
        sender.send('x' * 100_000)
        assert receive(listener) == 'x' * 100_000


def test_a_reload_loses_no_message(
    deployment: Deployment, own_redis: RedisServer, facility: str
) -> None:
    channel = f'broadcast:{facility}'
    with deployment.websocket(facility) as websocket, own_redis.client() as client:
        client.set(channel, 'before', ex=60)
        client.publish(channel, 'before')
        assert receive(websocket) == 'before'
        deployment.reload()
        with pytest.raises(ConnectionClosed) as closed:
            receive(websocket)
        if deployment.passes_the_farewell_on:
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        client.set(channel, 'meanwhile', ex=60)
        client.publish(channel, 'meanwhile')
    with deployment.websocket(facility) as websocket, own_redis.client() as client:
        assert receive(websocket) == 'meanwhile'
        client.publish(channel, 'after')
        assert receive(websocket) == 'after'


@pytest.mark.slow
@pytest.mark.timeout(scaled(240))
def test_idle_websockets_outlive_the_patience_of_proxies(own_redis: RedisServer) -> None:
    with ExitStack() as stack, own_redis.client() as client:
        websockets = {}
        for name, start in DEPLOYMENTS.items():
            running = stack.enter_context(start(own_redis))
            websockets[name] = stack.enter_context(running.websocket('idle'))
        deadline = time.monotonic() + IDLE_SECONDS
        for websocket in websockets.values():
            # All of them wait at once; only the first one's time-out takes its time.
            with pytest.raises(TimeoutError):
                websocket.recv(timeout=max(0.01, deadline - time.monotonic()))
        wait_until(lambda: time.monotonic() >= deadline)
        client.publish('broadcast:idle', 'wake up')
        for name, websocket in websockets.items():
            assert (name, receive(websocket)) == (name, 'wake up')
