"""What is kept, echoed and converted on its way, on every kind of server."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import redis
from django.http import HttpRequest

from tests.e2e.conftest import Connect
from tests.e2e.kinds import KINDS, Server
from tests.programs import RedisServer
from tests.redis_keys import stored_keys
from tests.websocket_client import BINARY, TEXT, RawWebSocket, WebSocketCrowd
from ws4redis.publisher import RedisPublisher

pytestmark = pytest.mark.django_db(transaction=True)

# The development server listens with a queue of ten; beyond it TCP tries again after a second.
AT_ONCE = 8


def drain(websocket: RawWebSocket, last: str) -> list[str | bytes]:
    """Return all messages up to the last one."""
    messages = [websocket.receive()]
    while messages[-1] != last:
        messages.append(websocket.receive())
    return messages


# Kept messages


def test_a_kept_message_is_sent_right_after_opening_once_then_what_is_live(
    server: Server, connect: Connect
) -> None:
    publisher = RedisPublisher(facility='foo', broadcast=True)
    publisher.publish_message('first')
    publisher.publish_message('kept')
    websocket = connect(server, 'foo?subscribe-broadcast')
    publisher.publish_message('live')
    assert websocket.receive_many(2) == ['kept', 'live']


def test_each_channel_has_its_kept_message(
    gevent_server: Server, connect: Connect, john: HttpRequest
) -> None:
    kept: dict[str, dict[str, Any]] = {
        'broadcast': {'broadcast': True},
        'user': {'users': ['john']},
        'group': {'groups': ['chatters']},
        'session': {'sessions': [john.session.session_key]},
    }
    for name, audience in kept.items():
        RedisPublisher(facility='foo', **audience).publish_message(f'kept for {name}')
    options = '&'.join(f'subscribe-{name}' for name in kept)
    websocket = connect(gevent_server, f'foo?{options}', request=john)
    assert sorted(map(str, websocket.receive_many(4))) == sorted(f'kept for {n}' for n in kept)
    websocket.expect_silence(0.05)


def test_a_message_is_kept_for_as_long_as_it_says(
    gevent_server: Server, connect: Connect, redis_client: redis.Redis
) -> None:
    publisher = RedisPublisher(facility='foo', broadcast=True)
    publisher.publish_message('not kept', expire=0)
    websocket = connect(gevent_server, 'foo?subscribe-broadcast')
    publisher.publish_message('short', expire=1)
    assert websocket.receive() == 'short'
    assert 0 < int(redis_client.pttl('broadcast:foo')) <= 1000
    while redis_client.exists('broadcast:foo'):
        time.sleep(0.05)
    publisher.publish_message('not kept either', expire=0)
    late = connect(gevent_server, 'foo?subscribe-broadcast')
    publisher.publish_message('live')
    assert late.receive() == 'live'


def test_what_a_websocket_sends_is_kept_for_the_expiry_of_the_settings(
    start: Any, connect: Connect, redis_client: redis.Redis
) -> None:
    server = start(WS4REDIS_EXPIRE=100)
    websocket = connect(server, 'foo?subscribe-broadcast&publish-broadcast&echo')
    websocket.send('hello')
    assert websocket.receive() == 'hello'
    assert 90 < int(redis_client.ttl('broadcast:foo')) <= 100


def test_without_an_expiry_nothing_is_kept(
    start: Any, connect: Connect, redis_client: redis.Redis
) -> None:
    server = start(WS4REDIS_EXPIRE=None)
    websocket = connect(server, 'foo?subscribe-broadcast&publish-broadcast&echo')
    websocket.send('hello')
    assert websocket.receive() == 'hello'
    assert stored_keys(redis_client) == []


def test_websockets_that_open_while_messages_stream_miss_and_repeat_nothing(
    server: Server, connect: Connect
) -> None:
    published = 0
    stop = threading.Event()

    def publish() -> None:
        nonlocal published
        publisher = RedisPublisher(facility='stream', broadcast=True)
        while not stop.is_set():
            published += 1
            publisher.publish_message(str(published))

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        websockets = [connect(server, 'stream?subscribe-broadcast') for _ in range(20)]
    finally:
        stop.set()
        thread.join()
    last = published
    for websocket in websockets:
        numbers = [int(message) for message in drain(websocket, str(last))]
        assert numbers == list(range(numbers[0], last + 1))


# Echo


def test_with_echo_it_is_sent_its_own_messages_too(server: Server, connect: Connect) -> None:
    websocket = connect(server, 'foo?subscribe-broadcast&publish-broadcast&echo')
    for number in range(20):
        websocket.send(f'message {number}')
    assert websocket.receive_many(20) == [f'message {number}' for number in range(20)]


def test_without_echo_none_of_several_own_messages_in_flight_comes_back(
    server: Server, connect: Connect
) -> None:
    sender = connect(server, 'foo?subscribe-broadcast&publish-broadcast')
    other = connect(server, 'foo?subscribe-broadcast')
    for number in range(50):
        sender.send(f'message {number}')
    assert other.receive_many(50) == [f'message {number}' for number in range(50)]
    RedisPublisher(facility='foo', broadcast=True).publish_message('from a view')
    assert sender.receive() == 'from a view'


def test_without_echo_the_same_content_sent_again_does_not_come_back_either(
    gevent_server: Server, connect: Connect
) -> None:
    sender = connect(gevent_server, 'foo?subscribe-broadcast&publish-broadcast')
    other = connect(gevent_server, 'foo?subscribe-broadcast')
    for _ in range(10):
        sender.send('ping')
    assert other.receive_many(10) == ['ping'] * 10
    # Whoever sends it: its content equals what this websocket sent.
    RedisPublisher(facility='foo', broadcast=True).publish_message('ping')
    RedisPublisher(facility='foo', broadcast=True).publish_message('end')
    assert sender.receive() == 'end'


def test_without_echo_a_message_on_several_channels_comes_back_on_none(
    gevent_server: Server, connect: Connect, john: HttpRequest
) -> None:
    options = '&'.join(
        f'{verb}-{a}' for verb in ('subscribe', 'publish') for a in ('user', 'group')
    )
    sender = connect(gevent_server, f'foo?{options}', request=john)
    other = connect(gevent_server, 'foo?subscribe-user&subscribe-group', request=john)
    sender.send('one')
    sender.send('two')
    # On the channels of the user and of both groups.
    assert sorted(map(str, other.receive_many(6))) == ['one'] * 3 + ['two'] * 3
    RedisPublisher(facility='foo', users=['john']).publish_message('end')
    assert sender.receive() == 'end'


# Text and binary


@pytest.mark.parametrize(
    ('payload', 'opcode'),
    [
        (b'text', TEXT),
        ('Grüße, 世界 🎉'.encode(), TEXT),
        (b'', TEXT),
        (b'nul \x00 is text', TEXT),
        (b'\xff\xfe', BINARY),
        (b'cut off \xc3', BINARY),
        (b'\xed\xa0\x80', BINARY),
        (bytes(range(256)) * 300, BINARY),
    ],
    ids=['ascii', 'unicode', 'empty', 'nul', 'invalid', 'cut off', 'surrogate', 'large'],
)
def test_text_stays_text_and_anything_else_is_binary(
    server: Server, connect: Connect, payload: bytes, opcode: int
) -> None:
    kept = RedisPublisher(facility='foo', broadcast=True)
    kept.publish_message(payload)
    websocket = connect(server, 'foo?subscribe-broadcast&publish-broadcast&echo')
    websocket.send_frame(opcode, payload)
    for _ in range(2):
        frame = websocket.receive_frame()
        assert (frame.opcode, frame.payload, frame.fin) == (opcode, payload, True)


def test_a_fragmented_message_is_published_whole(server: Server, connect: Connect) -> None:
    websocket = connect(server, 'foo?subscribe-broadcast&publish-broadcast&echo')
    websocket.send_fragments(TEXT, [b'Gr\xc3', b'\xbc\xc3\x9f', b'e'])
    assert websocket.receive() == 'Grüße'


def test_pings_are_answered_and_a_close_is_echoed(server: Server, connect: Connect) -> None:
    websocket = connect(server, 'foo?subscribe-broadcast')
    websocket.send_ping(b'payload')
    assert websocket.receive_frame().payload == b'payload'
    assert websocket.close(4000, 'bye')[0] == 4000


def test_a_violation_of_the_protocol_ends_that_websocket_alone(
    server: Server, connect: Connect
) -> None:
    other = connect(server, 'foo?subscribe-broadcast')
    broken = connect(server, 'foo?subscribe-broadcast')
    broken.send_frame(TEXT, b'unmasked', mask=None)
    assert broken.receive_close()[0] == 1002
    RedisPublisher(facility='foo', broadcast=True).publish_message('still here')
    assert other.receive() == 'still here'


# Many


def test_a_burst_of_1000_messages_arrives_whole_and_in_order_at_200_websockets(
    server: Server, redis_server: RedisServer
) -> None:
    url = f'{server.ws_url}/ws/burst?subscribe-broadcast'
    expected = [f'message {number} {"x" * 80}' for number in range(1000)]
    with (
        WebSocketCrowd([url] * 200, timeout=60, at_once=AT_ONCE) as crowd,
        redis_server.client() as client,
    ):
        with client.pipeline(transaction=False) as pipeline:
            for message in expected:
                pipeline.publish('broadcast:burst', message)
            pipeline.execute()
        received = crowd.receive(1000)
        assert all(messages == expected for messages in received)
        assert crowd.number_open == 200


@pytest.mark.parametrize('kind', KINDS)
def test_a_server_of_its_own_has_exactly_two_connections(
    start: Any, redis_server: RedisServer, kind: str
) -> None:
    before = redis_server.number_of_clients()
    server = start(KINDS[kind])
    url = f'{server.ws_url}/ws/foo?subscribe-broadcast&publish-broadcast&echo'
    with WebSocketCrowd([url] * 100, at_once=AT_ONCE) as crowd:
        for index in range(100):
            crowd[index].send(f'from {index}')
        crowd.receive(100)
        assert redis_server.number_of_clients() - before == 2
