"""Plain websockets on facilities with a history: ``since``, and what stays as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from tests.e2e.conftest import Connect
from tests.e2e.kinds import Server, runserver, uwsgi
from tests.programs import RedisServer
from tests.websocket_client import RawWebSocket
from ws4redis.broker.keys import keys_of
from ws4redis.history import get_position, history
from ws4redis.publisher import RedisPublisher

pytestmark = pytest.mark.django_db(transaction=True)

FACILITIES = {'chat*': {'HISTORY_SIZE': 5}}
SUBSCRIBE = 'chat?subscribe-broadcast'


@pytest.fixture(autouse=True)
def _facilities(settings: Any) -> None:
    settings.WS4REDIS_FACILITIES = FACILITIES


@pytest.fixture(scope='module')
def histories(redis_server: RedisServer, django_db_setup: None) -> Iterator[Server]:
    """A server whose facilities have histories."""
    with uwsgi(redis_server, {'WS4REDIS_FACILITIES': FACILITIES}) as server:
        yield server


def publish(*messages: str) -> None:
    for message in messages:
        RedisPublisher(facility='chat', broadcast=True).publish_message(message)


def header(websocket: RawWebSocket, name: str) -> str | None:
    assert websocket.response is not None
    return websocket.response.headers.get(name.lower())


def test_a_page_misses_nothing_between_its_queries_and_its_subscription(
    histories: Server, connect: Connect
) -> None:
    publish('before')
    position = get_position('chat')
    publish('1', '2')
    websocket = connect(histories, f'{SUBSCRIBE}&since={position}')
    publish('3')
    assert websocket.receive_many(3) == ['1', '2', '3']
    assert header(websocket, 'WS4Redis-Gap') is None


def test_the_answer_tells_from_where_the_messages_go_on(
    histories: Server, connect: Connect
) -> None:
    publish('1')
    first = connect(histories, f'{SUBSCRIBE}&since=')
    position = header(first, 'WS4Redis-Position')
    assert position == get_position('chat')
    publish('2')
    assert first.receive() == '2'
    first.close()
    publish('3', '4')
    second = connect(histories, f'{SUBSCRIBE}&since={position}')
    assert second.receive_many(3) == ['2', '3', '4']


@pytest.mark.parametrize('since', ['nonsense', 'a.b.c~', '%00%FF', 'x' * 1000])
def test_nonsense_is_a_gap(histories: Server, connect: Connect, since: str) -> None:
    publish('1')
    websocket = connect(histories, f'{SUBSCRIBE}&since={since}')
    assert header(websocket, 'WS4Redis-Gap') == 'epoch'
    assert header(websocket, 'WS4Redis-Position') == get_position('chat')
    publish('2')
    assert websocket.receive() == '2'


def test_what_is_not_kept_any_more_is_a_gap(histories: Server, connect: Connect) -> None:
    publish('0')
    position = get_position('chat')
    publish(*'123456')
    websocket = connect(histories, f'{SUBSCRIBE}&since={position}')
    assert header(websocket, 'WS4Redis-Gap') == 'trimmed'
    publish('7')
    assert websocket.receive() == '7'


def test_a_gap_that_comes_up_later_ends_a_websocket_that_named_a_position(
    histories: Server, connect: Connect, redis_client: redis.Redis
) -> None:
    publish('1')
    positioned = connect(histories, f'{SUBSCRIBE}&since={get_position("chat")}')
    plain = connect(histories, SUBSCRIBE)
    assert plain.receive() == '1'
    redis_client.flushall()
    publish('2')
    assert positioned.receive_close() == (3010, 'gap: epoch')
    # It goes on with the newest, as it would without a history.
    assert plain.receive() == '2'
    again = connect(histories, f'{SUBSCRIBE}&since={get_position("chat")}')
    publish('3')
    assert again.receive() == plain.receive() == '3'


# What stays as it was


def test_plain_websockets_go_on_as_before(
    histories: Server, connect: Connect, redis_client: redis.Redis
) -> None:
    publish('1', '2')
    websocket = connect(histories, SUBSCRIBE)
    assert websocket.receive() == '2'
    assert header(websocket, 'WS4Redis-Position') is None
    publish('3')
    assert websocket.receive() == '3'
    assert redis_client.get('broadcast:chat') == b'3'
    assert RedisPublisher().fetch_message(None, 'chat', 'broadcast') == b'3'


def test_a_plain_publish_by_others_is_delivered_between_publications(
    histories: Server, connect: Connect, redis_client: redis.Redis
) -> None:
    publish('1')
    websocket = connect(histories, f'{SUBSCRIBE}&since={get_position("chat")}')
    publish('2')
    redis_client.publish('broadcast:chat', 'from redis-cli')
    publish('3')
    assert websocket.receive_many(3) == ['2', 'from redis-cli', '3']
    assert [message.text for message in history('chat').messages] == ['1', '2', '3']


def test_own_messages_come_back_with_echo_alone(histories: Server, connect: Connect) -> None:
    options = 'subscribe-broadcast&publish-broadcast'
    sender = connect(histories, f'chat?{options}')
    echoing = connect(histories, f'chat?{options}&echo')
    other = connect(histories, SUBSCRIBE)
    for number in range(3):
        sender.send(f'{number}')
        assert echoing.receive() == other.receive() == f'{number}'
    echoing.send('echoed')
    assert echoing.receive() == other.receive() == sender.receive() == 'echoed'
    assert [message.text for message in history('chat').messages] == ['0', '1', '2', 'echoed']


def test_an_old_listener_in_redis_gets_payloads_alone(
    histories: Server, connect: Connect, redis_client: redis.Redis
) -> None:
    with redis_client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe('broadcast:chat')
        pubsub.get_message(timeout=5)
        sender = connect(histories, 'chat?publish-broadcast')
        sender.send('hi')
        publish('ho')
        received = [pubsub.get_message(timeout=5)['data'] for _ in range(2)]
    assert received == [b'hi', b'ho']


def test_subscribers_of_a_project_work_with_and_without_a_history(
    start: Callable[..., Server], connect: Connect, redis_client: redis.Redis
) -> None:
    server = start(
        WS4REDIS_FACILITIES=FACILITIES,
        WS4REDIS_SUBSCRIBER='tests.e2e.subscribers.SendsHistory',
    )
    for facility in ('chat', 'plain'):
        websocket = connect(server, f'{facility}?subscribe-broadcast')
        RedisPublisher(facility=facility, broadcast=True).publish_message('live')
        messages = [websocket.receive()]
        while messages[-1] != 'live':
            messages.append(websocket.receive())
        assert len(messages) > 1


def test_every_kind_of_server_knows_since(
    start: Callable[..., Server], connect: Connect, redis_client: redis.Redis
) -> None:
    server = start(runserver, WS4REDIS_FACILITIES=FACILITIES)
    position = get_position('chat')
    publish('1')
    websocket = connect(server, f'{SUBSCRIBE}&since={position}')
    assert websocket.receive() == '1'
    assert redis_client.exists(keys_of(b'broadcast:chat').stream)
