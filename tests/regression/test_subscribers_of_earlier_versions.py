"""Subscribers whose methods were written when each had a PubSub of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.test import override_settings

from tests.programs import RedisServer
from tests.serving import Served, served
from tests.timeouts import SOON_SECONDS, wait_until
from tests.websocket_client import HandshakeRefused, RawWebSocket
from ws4redis.applications.wsgi import WebSocketServer
from ws4redis.broker.connections import get_client
from ws4redis.handshake.connection_limits import connection_limits
from ws4redis.handshake.subscriber import Subscription
from ws4redis.publisher import RedisPublisher
from ws4redis.redis_store import RedisMessage, RedisStore
from ws4redis.settings.checks import validate_settings
from ws4redis.subscriber import RedisSubscriber

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[Served]:
    with served(WebSocketServer()) as server:
        yield server
    assert connection_limits.taken == 0


def use(subscriber: type[Any]) -> override_settings:
    return override_settings(WS4REDIS_SUBSCRIBER=subscriber)


class Copies(RedisSubscriber):
    """Do by hand what the stock class of 0.6 did."""

    def __init__(self, connection: redis.Redis) -> None:
        super().__init__(connection)
        self._connection = connection

    def parse_response(self) -> Any:
        return self._subscription.parse_response()

    def get_file_descriptor(self) -> int | None:
        connection = self._subscription.connection
        return connection._sock.fileno() if connection else None

    def send_persited_messages(self, websocket: Any) -> None:
        assert not websocket.closed
        for channel in self._subscription.channels:
            message = RedisMessage(self._connection.get(channel))
            if message:
                websocket.send(message)

    def release(self) -> None:
        if self._subscription and self._subscription.subscribed:
            self._subscription.unsubscribe()
            self._subscription.reset()
        self._connection.incr('released')


def test_a_copy_of_all_stock_methods_delivers_and_releases(
    server: Served, redis_client: redis.Redis
) -> None:
    redis_client.set('broadcast:x', 'kept')
    with use(Copies):
        with RawWebSocket(f'{server.ws_url}/ws/x?subscribe-broadcast') as websocket:
            assert websocket.receive() == 'kept'
            redis_client.publish('broadcast:x', 'live')
            assert websocket.receive() == 'live'
        wait_until(lambda: redis_client.get('released') == b'1')
    wait_until(lambda: redis_client.pubsub_numsub('broadcast:x') == [(b'broadcast:x', 0)])


class Leaving(RedisSubscriber):
    def release(self) -> None:
        if self._subscription.subscribed:
            self._subscription.reset()
        self._connection.incr('released')


def test_a_release_that_only_resets_comes_to_its_end(
    server: Served, redis_client: redis.Redis
) -> None:
    with use(Leaving):
        RawWebSocket(f'{server.ws_url}/ws/x?subscribe-broadcast').close()
        wait_until(lambda: redis_client.get('released') == b'1')


class OfOldSpelling(RedisStore):
    """Have what was needed, without the stock class."""

    subscription_channels = publish_channels = ('subscribe-broadcast',)

    def set_pubsub_channels(self, request: HttpRequest, channels: Any) -> None:
        self._pubsub = self._connection.pubsub()
        self._pubsub.subscribe('broadcast:x')

    def send_persited_messages(self, websocket: Any) -> None:
        websocket.send('welcome', True)

    def get_file_descriptor(self) -> int:
        fd: int = self._pubsub.connection._sock.fileno()
        return fd

    def parse_response(self) -> Any:
        return self._pubsub.parse_response()

    def release(self) -> None:
        self._pubsub.reset()


@use(OfOldSpelling)
def test_a_class_that_has_only_the_old_spelling_works(
    server: Served, redis_client: redis.Redis
) -> None:
    validate_settings()
    with RawWebSocket(f'{server.ws_url}/ws/x?subscribe-broadcast') as websocket:
        assert websocket.receive() == b'welcome'
        # What redis-py reads in one go does not make the descriptor readable a second time.
        pipeline = redis_client.pipeline()
        for number in range(5):
            pipeline.publish('broadcast:x', f'live {number}')
        pipeline.execute()
        assert websocket.receive_many(5) == [f'live {number}' for number in range(5)]
    wait_until(lambda: redis_client.pubsub_numsub('broadcast:x') == [(b'broadcast:x', 0)])


class Farewell(RedisSubscriber):
    def send_persisted_messages(self, websocket: Any) -> None:
        websocket.send('sorry')
        websocket.close(4001, 'full')


@use(Farewell)
def test_a_subscriber_may_close_what_it_sends_to(server: Served) -> None:
    websocket = RawWebSocket(f'{server.ws_url}/ws/x?subscribe-broadcast')
    assert websocket.receive() == 'sorry'
    assert websocket.receive_close() == (4001, 'full')
    websocket.reset()
    wait_until(lambda: connection_limits.taken == 0)


class RefusesAndFails(RedisSubscriber):
    def set_pubsub_channels(self, request: HttpRequest, channels: Any) -> None:
        raise PermissionDenied

    def release(self) -> None:
        raise AttributeError('nothing to release yet')


@use(RefusesAndFails)
def test_a_release_that_fails_does_not_mask_why_a_handshake_is_refused(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(HandshakeRefused) as caught:
        RawWebSocket(f'{server.ws_url}/ws/x')
    assert caught.value.response.status == 403
    assert 'release() of RefusesAndFails failed' in caplog.text


def tell(request: HttpRequest) -> None:
    if 'tell' in request.GET:
        RedisPublisher(facility='x', broadcast=True).publish_message('joined', 0)


class TellsBeforeItJoins(RedisSubscriber):
    def set_pubsub_channels(self, request: HttpRequest, channels: Any) -> None:
        super().set_pubsub_channels(request, channels)
        tell(request)


class TellsOnceItHasJoined(RedisSubscriber):
    def send_persisted_messages(self, websocket: Any) -> None:
        assert self.request is not None
        tell(self.request)


@pytest.mark.parametrize(
    ('subscriber', 'hears_itself'), [(TellsBeforeItJoins, False), (TellsOnceItHasJoined, True)]
)
def test_who_tells_that_it_has_joined_hears_itself_only_after_it_has(
    server: Served, redis_client: redis.Redis, subscriber: type[Any], hears_itself: bool
) -> None:
    url = f'{server.ws_url}/ws/x?subscribe-broadcast'
    with use(subscriber), RawWebSocket(url) as member, RawWebSocket(f'{url}&tell') as newcomer:
        assert member.receive() == 'joined'
        redis_client.publish('broadcast:x', 'next')
        assert newcomer.receive() == ('joined' if hears_itself else 'next')


# What stands for a PubSub


def test_a_subscription_can_be_reset_and_used_again(redis_client: redis.Redis) -> None:
    subscription = Subscription(lambda: redis_client)
    assert not subscription.subscribed
    assert subscription.connection is None
    assert subscription.patterns == {}
    subscription.subscribe('a')
    subscription.psubscribe('b*')
    assert subscription.subscribed
    assert subscription.patterns == {b'b*': None}
    assert subscription.connection._sock.fileno() == subscription.get_file_descriptor()
    assert subscription.get_message(timeout=SOON_SECONDS)['channel'] == b'a'
    subscription.reset()
    assert not subscription.subscribed
    assert not subscription.has_own_connection
    subscription.subscribe('c')
    assert subscription.names == ['c']


def test_once_the_loop_has_subscribed_no_connection_is_made(redis_client: redis.Redis) -> None:
    subscription = Subscription(lambda: redis_client)
    subscription.subscribe('a')
    subscription.follow(lambda added, removed: None)
    assert subscription.connection is None


def test_a_store_takes_another_connection_and_has_a_prefix_without_an_instance() -> None:
    store = RedisStore()
    assert store._connection is get_client()
    other = redis.Redis()
    store._connection = other
    assert store._connection is other
    with override_settings(WS4REDIS_PREFIX='site'):
        assert RedisStore.get_prefix() == RedisSubscriber.get_prefix() == 'site:'
