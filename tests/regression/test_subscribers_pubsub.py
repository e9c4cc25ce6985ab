"""Subscribers that work with redis-py's PubSub, or subscribe while they send."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.http import HttpRequest
from django.test import override_settings

from tests.programs import RedisServer
from tests.serving import Served, served
from tests.timeouts import wait_until
from tests.websocket_client import RawWebSocket
from ws4redis.applications.wsgi import WebSocketServer
from ws4redis.handshake.connection_limits import connection_limits
from ws4redis.subscriber import RedisSubscriber, WebSocketProxy

pytestmark = pytest.mark.django_db(transaction=True)

OWN = 'broadcast:own'


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[Served]:
    with served(WebSocketServer()) as server:
        yield server
    assert connection_limits.taken == 0


class WithPubSub(RedisSubscriber):
    """As subclasses of earlier versions did."""

    latest: WithPubSub | None = None

    def set_pubsub_channels(self, request: HttpRequest, channels: Any) -> None:
        super().set_pubsub_channels(request, channels)
        self._subscription = self._connection.pubsub()
        self._subscription.subscribe(OWN)
        WithPubSub.latest = self


class SendsHistory(WithPubSub):
    def send_persisted_messages(self, websocket: WebSocketProxy) -> None:
        websocket.send('history')
        super().send_persisted_messages(websocket)


class ReadsItself(WithPubSub):
    def get_file_descriptor(self) -> int:
        fd: int = self._subscription.connection._sock.fileno()
        return fd

    def parse_response(self) -> Any:
        return self._subscription.parse_response()


class Shouts(WithPubSub):
    def parse_response(self) -> Any:
        kind, channel, payload = super().parse_response()
        return [kind, channel, payload.upper() if isinstance(payload, bytes) else payload]


@override_settings(WS4REDIS_SUBSCRIBER=SendsHistory)
def test_kept_messages_of_a_pubsubs_channels_are_sent_by_super(
    server: Served, redis_client: redis.Redis
) -> None:
    redis_client.set(OWN, 'kept')
    with RawWebSocket(f'{server.ws_url}/ws/x') as websocket:
        assert websocket.receive_many(2) == ['history', 'kept']
        redis_client.publish(OWN, 'live')
        assert websocket.receive() == 'live'


@override_settings(WS4REDIS_SUBSCRIBER=WithPubSub)
def test_after_a_pubsub_was_taken_over_its_subscriber_may_still_join_and_leave(
    server: Served, redis_client: redis.Redis
) -> None:
    redis_client.set('broadcast:later', 'kept later')
    with RawWebSocket(f'{server.ws_url}/ws/x') as websocket:
        assert WithPubSub.latest is not None
        WithPubSub.latest._subscription.subscribe('broadcast:later')
        assert websocket.receive() == 'kept later'
        WithPubSub.latest._subscription.unsubscribe(OWN)
        wait_until(lambda: redis_client.publish(OWN, 'for nobody') == 0)
        redis_client.publish('broadcast:later', 'live')
        seen = websocket.receive()
        while seen == 'for nobody':
            seen = websocket.receive()
        assert seen == 'live'


@pytest.mark.parametrize('own', [ReadsItself, Shouts])
def test_a_subscriber_that_reads_a_pubsub_of_its_own_keeps_it(
    server: Served, redis_client: redis.Redis, own: type[WithPubSub]
) -> None:
    redis_client.set(OWN, 'kept')
    with override_settings(WS4REDIS_SUBSCRIBER=own):
        with RawWebSocket(f'{server.ws_url}/ws/x') as websocket:
            assert websocket.receive() == 'kept'
            burst = [f'live {number}' for number in range(50)]
            with redis_client.pipeline() as pipeline:
                for message in burst:
                    pipeline.publish(OWN, message)
                pipeline.execute()
            expected = [m.upper() for m in burst] if own is Shouts else burst
            assert websocket.receive_many(50) == expected
        wait_until(lambda: redis_client.pubsub_numsub(OWN) == [(OWN.encode(), 0)])


class Patterns(RedisSubscriber):
    """Subscribe to what the loop knows nothing of."""

    def set_pubsub_channels(self, request: HttpRequest, channels: Any) -> None:
        super().set_pubsub_channels(request, channels)
        self._subscription.psubscribe('broadcast:all-*')


class PatternsOfPubSub(Patterns):
    """Do so by a PubSub of redis-py."""

    def set_pubsub_channels(self, request: HttpRequest, channels: Any) -> None:
        self._subscription = self._connection.pubsub()
        self._subscription.subscribe('broadcast:x')
        self._subscription.psubscribe('broadcast:all-*')


@pytest.mark.parametrize('subscriber', [Patterns, PatternsOfPubSub])
def test_a_subscriber_to_patterns_gets_what_matches_them_and_its_channels(
    server: Served, redis_client: redis.Redis, subscriber: type[Any]
) -> None:
    redis_client.set('broadcast:x', 'kept')
    with override_settings(WS4REDIS_SUBSCRIBER=subscriber):
        with RawWebSocket(f'{server.ws_url}/ws/x?subscribe-broadcast') as websocket:
            assert websocket.receive() == 'kept'
            redis_client.publish('broadcast:all-1', 'by pattern')
            redis_client.publish('broadcast:x', 'by name')
            assert websocket.receive_many(2) == ['by pattern', 'by name']
        wait_until(lambda: connection_limits.taken == 0)
        wait_until(lambda: redis_client.pubsub_numpat() == 0)


class SubscribesWhileItSends(RedisSubscriber):
    def send_persisted_messages(self, websocket: WebSocketProxy) -> None:
        self._subscription.subscribe('broadcast:more')
        super().send_persisted_messages(websocket)


@override_settings(WS4REDIS_SUBSCRIBER=SubscribesWhileItSends)
def test_channels_that_are_added_while_kept_messages_are_sent_are_joined(
    server: Served, redis_client: redis.Redis
) -> None:
    redis_client.set('broadcast:more', 'kept')
    with RawWebSocket(f'{server.ws_url}/ws/x?subscribe-broadcast') as websocket:
        assert websocket.receive() == 'kept'
        wait_until(lambda: redis_client.pubsub_numsub('broadcast:more')[0][1] == 1)
        redis_client.publish('broadcast:more', 'live')
        assert websocket.receive() == 'live'
