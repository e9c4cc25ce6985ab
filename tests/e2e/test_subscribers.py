"""Subscribers that a project writes itself."""

from __future__ import annotations

import re
from typing import Any

import pytest
import redis

from tests.e2e.conftest import Connect, post
from tests.e2e.kinds import KINDS
from tests.timeouts import wait_until
from tests.websocket_client import ConnectionEnded
from ws4redis.publisher import RedisPublisher

pytestmark = pytest.mark.django_db(transaction=True)


def subscriber(name: str) -> str:
    return f'tests.e2e.subscribers.{name}'


def channels(redis_client: redis.Redis) -> set[str]:
    names: Any = redis_client.pubsub_channels()
    # The control channel is the process's own.
    return {name.decode() for name in names if not name.endswith(b'ws4redis:control')}


@pytest.mark.parametrize('prefix', ['', 'app'])
def test_channels_that_a_subscriber_adds_are_subscribed_and_others_published(
    start: Any, connect: Connect, redis_client: redis.Redis, prefix: str
) -> None:
    server = start(WS4REDIS_SUBSCRIBER=subscriber('AddsChannels'), WS4REDIS_PREFIX=prefix)
    colon = f'{prefix}:' if prefix else ''
    redis_client.set(f'{colon}broadcast:news', 'kept news')
    websocket = connect(server, 'foo?subscribe-broadcast&publish-broadcast')
    assert websocket.receive() == 'kept news'
    redis_client.publish(f'{colon}broadcast:news', 'news')
    redis_client.publish(f'{colon}broadcast:foo', 'foo')
    assert websocket.receive_many(2) == ['news', 'foo']
    websocket.send('for the audit')
    wait_until(lambda: redis_client.get(f'{colon}broadcast:audit') == b'for the audit')
    assert redis_client.get(f'{colon}broadcast:foo') is None


def test_a_subscriber_joins_and_leaves_channels_while_its_websocket_is_open(
    start: Any, connect: Connect, redis_client: redis.Redis
) -> None:
    server = start(WS4REDIS_SUBSCRIBER=subscriber('Registered'))
    websocket = connect(server, 'foo?subscribe-broadcast')
    redis_client.set('broadcast:later', 'kept later')
    post(server, '/subscribe/', facility='foo', channel='broadcast:later')
    assert websocket.receive() == 'kept later'
    redis_client.publish('broadcast:later', 'live')
    assert websocket.receive() == 'live'
    post(server, '/subscribe/', facility='foo', channel='broadcast:later', leave='1')
    wait_until(lambda: channels(redis_client) == {'broadcast:foo'})
    redis_client.publish('broadcast:later', 'not for us')
    redis_client.publish('broadcast:foo', 'still here')
    assert websocket.receive() == 'still here'
    websocket.close()
    wait_until(lambda: channels(redis_client) == set())
    # Too late is no error.
    post(server, '/subscribe/', facility='foo', channel='broadcast:later')
    assert channels(redis_client) == set()


def test_a_subscriber_sends_messages_of_its_own_before_the_kept_ones(
    start: Any, connect: Connect, redis_client: redis.Redis
) -> None:
    server = start(WS4REDIS_SUBSCRIBER=subscriber('SendsHistory'))
    redis_client.set('broadcast:foo', 'kept')
    websocket = connect(server, 'foo?subscribe-broadcast')
    assert websocket.receive_many(4) == ['history 0', 'history 1', 'history 2', 'kept']
    redis_client.publish('broadcast:foo', 'live')
    assert websocket.receive() == 'live'


def test_the_old_spelling_of_sending_kept_messages_is_understood(
    start: Any, connect: Connect, redis_client: redis.Redis
) -> None:
    server = start(WS4REDIS_SUBSCRIBER=subscriber('SendsHistoryInOldSpelling'))
    redis_client.set('broadcast:foo', 'kept')
    websocket = connect(server, 'foo?subscribe-broadcast')
    assert websocket.receive_many(2) == ['history in the old spelling', 'kept']
    redis_client.publish('broadcast:foo', 'live')
    assert websocket.receive() == 'live'


@pytest.mark.parametrize('kind', ['gevent', 'runserver'])
def test_a_subscriber_brings_messages_in_by_a_descriptor_of_its_own(
    start: Any, connect: Connect, redis_client: redis.Redis, kind: str
) -> None:
    from tests.e2e.kinds import KINDS

    server = start(KINDS[kind], WS4REDIS_SUBSCRIBER=subscriber('BringsPipe'))
    websocket = connect(server, 'foo?subscribe-broadcast')
    for number in range(3):
        post(server, '/write/', facility='foo', message=f'through the pipe {number}')
        assert websocket.receive() == f'through the pipe {number}'
        RedisPublisher(facility='foo', broadcast=True).publish_message(f'through Redis {number}')
        assert websocket.receive() == f'through Redis {number}'
    assert redis_client.get('released foo') is None
    websocket.close()
    wait_until(lambda: redis_client.get('released foo'))
    assert redis_client.get('released foo') == b'1'


def test_a_subscriber_may_change_what_its_own_connection_brings(
    start: Any, connect: Connect, redis_client: redis.Redis
) -> None:
    server = start(WS4REDIS_SUBSCRIBER=subscriber('Shouts'))
    redis_client.set('broadcast:foo', 'kept')
    websocket = connect(server, 'foo?subscribe-broadcast')
    assert websocket.receive() == 'kept'
    for word in ('one', 'two'):
        redis_client.publish('broadcast:foo', word)
    assert websocket.receive_many(2) == ['ONE', 'TWO']
    # All of a burst, of which redis-py reads more at once than it hands out.
    words = [f'word {number}' for number in range(200)]
    with redis_client.pipeline() as pipeline:
        for word in words:
            pipeline.publish('broadcast:foo', word)
        pipeline.execute()
    assert websocket.receive_many(200) == [word.upper() for word in words]
    websocket.expect_silence(0.05)
    websocket.close()
    wait_until(lambda: channels(redis_client) == set())


def test_a_subscriber_publishes_itself_in_order_and_is_released_once(
    start: Any, connect: Connect, redis_client: redis.Redis
) -> None:
    server = start(WS4REDIS_SUBSCRIBER=subscriber('PublishesItself'))
    listener = connect(server, 'foo?subscribe-broadcast')
    sender = connect(server, 'foo?publish-broadcast')
    for number in range(50):
        sender.send(str(number))
    sender.send_close()
    assert listener.receive_many(50) == [f'<{number}>' for number in range(50)]
    assert redis_client.get('broadcast:foo') == b'<49>'
    wait_until(lambda: redis_client.get('released foo'))
    listener.close()
    wait_until(lambda: redis_client.get('released foo') == b'2')


def test_an_exception_while_publishing_closes_that_websocket_with_1011_and_is_logged(
    start: Any, connect: Connect, redis_client: redis.Redis
) -> None:
    server = start(WS4REDIS_SUBSCRIBER=subscriber('PublishesItself'))
    other = connect(server, 'bar?subscribe-broadcast')
    sender = connect(server, 'foo?publish-broadcast')
    sender.send('refuse me')
    with pytest.raises(ConnectionEnded) as caught:
        sender.receive()
    assert caught.value.code == 1011
    assert 'project' not in caught.value.reason
    server.wait_for_log(re.escape('ValueError: refused by the project'))
    wait_until(lambda: redis_client.get('released foo'))
    redis_client.publish('broadcast:bar', 'still here')
    assert other.receive() == 'still here'


def test_a_refused_handshake_releases_its_subscriber(
    start: Any, connect: Connect, redis_client: redis.Redis
) -> None:
    from tests.e2e.conftest import refused

    server = start(WS4REDIS_SUBSCRIBER=subscriber('PublishesItself'))
    answer = refused(
        server, '/ws/foo?subscribe-broadcast', Sec_WebSocket_Extensions='permessage-deflate; ;='
    )
    assert answer.status == 400
    wait_until(lambda: redis_client.get('released foo'))
    assert redis_client.get('released foo') == b'1'


@pytest.mark.parametrize(
    ('kind', 'name'),
    [
        *(
            (kind, 'PublishesInTimers')
            for kind in ('gevent', 'threads', 'patched-early', 'runserver')
        ),
        *((kind, 'PublishesInGreenlets') for kind in ('gevent', 'patched-early')),
    ],
)
def test_what_a_subscriber_starts_beside_itself_runs(
    start: Any, connect: Connect, kind: str, name: str
) -> None:
    server = start(KINDS[kind], WS4REDIS_SUBSCRIBER=subscriber(name))
    websocket = connect(server, 'foo?subscribe-broadcast&publish-broadcast&echo')
    for number in range(3):
        websocket.send(str(number))
    assert sorted(websocket.receive_many(3)) == ['0', '1', '2']
