"""The subscriber and its subscription: names of channels, and on demand a connection of its own."""

from __future__ import annotations

import select

import pytest
import redis
from django.http import HttpRequest
from django.test import RequestFactory, override_settings

from tests.django_requests import anonymous_request, logged_in_request, make_user
from tests.programs import RedisServer
from ws4redis.handshake.subscriber import RedisSubscriber, Subscription
from ws4redis.redis_store import RedisMessage, RedisStore


def no_connection() -> redis.Redis:
    raise AssertionError('a connection was asked for')


class Recorder:
    def __init__(self) -> None:
        self.changes: list[tuple[list[str], list[str]]] = []
        self.sent: list[str | bytes] = []

    def follow(self, added: list[str], removed: list[str]) -> None:
        self.changes.append((added, removed))

    closed = False

    def send(self, message: str | bytes, binary: bool | None = None) -> None:
        self.sent.append(message)

    def close(self, code: int = 1000, message: str | bytes = '') -> None:
        raise NotImplementedError


# The subscription


def test_channels_are_added_once_in_order_without_a_connection() -> None:
    subscription = Subscription(no_connection)
    subscription.subscribe('b', 'a')
    subscription.subscribe(b'a', 'grüße')
    assert subscription.names == ['b', 'a', 'grüße']
    assert list(subscription.channels) == [b'b', b'a', 'grüße'.encode()]
    assert not subscription.has_own_connection
    assert not subscription.has_more()


def test_channels_are_removed_one_by_one_or_all_at_once() -> None:
    subscription = Subscription(no_connection)
    subscription.subscribe('a', 'b', 'c')
    subscription.unsubscribe('b', 'never there')
    assert subscription.names == ['a', 'c']
    subscription.unsubscribe()
    assert subscription.names == []


def test_changes_are_told_from_when_they_are_followed_until_it_is_closed() -> None:
    subscription, recorder = Subscription(no_connection), Recorder()
    subscription.subscribe('before')
    subscription.follow(recorder.follow)
    subscription.subscribe('before', 'later')
    subscription.unsubscribe('before')
    subscription.unsubscribe('before')
    subscription.close()
    subscription.subscribe('after')
    assert recorder.changes == [(['later'], []), ([], ['before'])]


def test_its_own_connection_subscribes_to_all_and_follows_changes(
    redis_client: redis.Redis,
) -> None:
    subscription = Subscription(lambda: redis_client)
    subscription.subscribe('a')
    fd = subscription.get_file_descriptor()
    assert subscription.has_own_connection
    assert subscription.get_file_descriptor() == fd
    assert subscription.parse_response()[:2] == [b'subscribe', b'a']
    subscription.subscribe('b')
    assert subscription.parse_response()[:2] == [b'subscribe', b'b']
    redis_client.publish('b', 'hello')
    assert select.select([fd], [], [], 5)[0]
    assert subscription.parse_response() == [b'message', b'b', b'hello']
    with redis_client.pipeline() as pipeline:
        pipeline.publish('a', '1')
        pipeline.publish('a', '2')
        pipeline.execute()
    assert subscription.parse_response() == [b'message', b'a', b'1']
    assert subscription.has_more()
    assert subscription.parse_response() == [b'message', b'a', b'2']
    assert not subscription.has_more()
    subscription.unsubscribe('a')
    assert subscription.parse_response()[:2] == [b'unsubscribe', b'a']
    subscription.close()
    assert not subscription.has_own_connection


def test_its_own_connection_may_subscribe_to_nothing_at_first(redis_client: redis.Redis) -> None:
    subscription = Subscription(lambda: redis_client)
    assert subscription.get_file_descriptor() > 0
    subscription.subscribe('a')
    redis_client.publish('a', 'hello')
    # What comes before the message carries none.
    replies = [subscription.parse_response() for _ in range(3)]
    assert [RedisMessage(reply) for reply in replies] == [None, None, b'hello']
    subscription.close()


# The subscriber


def request_for(path: str, request: HttpRequest | None = None) -> HttpRequest:
    made = RequestFactory().get(path)
    source = request or anonymous_request()
    made.session, made.user = source.session, source.user
    return made


def test_options_name_the_channels_of_the_request() -> None:
    subscriber = RedisSubscriber()
    subscriber.set_pubsub_channels(
        request_for('/ws/a/b'), ['subscribe-broadcast', 'publish-broadcast', 'unknown']
    )
    assert subscriber._subscription.names == ['broadcast:a/b']
    assert subscriber._publishers == {'broadcast:a/b'}


@pytest.mark.django_db
def test_options_name_the_users_channels() -> None:
    request = logged_in_request(make_user('john', groups=['x', 'y']))
    subscriber = RedisSubscriber()
    options = ['subscribe-user', 'subscribe-group', 'publish-session']
    with override_settings(WS4REDIS_PREFIX='app'):
        subscriber.set_pubsub_channels(request_for('/ws/foo', request), options)
    assert set(subscriber._subscription.names) == {
        'app:user:john:foo',
        'app:group:x:foo',
        'app:group:y:foo',
    }
    assert subscriber._publishers == {f'app:session:{request.session.session_key}:foo'}


def test_nobody_has_no_channels_of_a_user() -> None:
    subscriber = RedisSubscriber()
    options = [*RedisSubscriber.subscription_channels, *RedisSubscriber.publish_channels]
    subscriber.set_pubsub_channels(request_for('/ws/foo'), options)
    assert subscriber._subscription.names == ['broadcast:foo']
    assert subscriber._publishers == {'broadcast:foo'}


def test_a_path_outside_the_prefix_is_an_error() -> None:
    with pytest.raises(ValueError, match='/elsewhere'):
        RedisSubscriber().set_pubsub_channels(request_for('/elsewhere'), [])


@pytest.mark.parametrize('spelling', ['send_persisted_messages', 'send_persited_messages'])
def test_kept_messages_of_all_channels_are_sent(redis_client: redis.Redis, spelling: str) -> None:
    subscriber, recorder = RedisSubscriber(redis_client), Recorder()
    subscriber._subscription.subscribe('a', 'b', 'nothing kept')
    redis_client.mset({'a': 'kept in a', 'b': b'\xff'})
    getattr(subscriber, spelling)(recorder)
    assert recorder.sent == [b'kept in a', b'\xff']


def test_a_heartbeat_is_no_kept_message(redis_client: redis.Redis) -> None:
    subscriber, recorder = RedisSubscriber(redis_client), Recorder()
    subscriber._subscription.subscribe('a')
    redis_client.set('a', '--heartbeat--')
    with override_settings(WS4REDIS_HEARTBEAT='--heartbeat--'):
        subscriber.send_persisted_messages(recorder)
    assert recorder.sent == []


def test_it_publishes_on_its_channels_like_any_store(redis_client: redis.Redis) -> None:
    subscriber = RedisSubscriber(redis_client)
    assert isinstance(subscriber, RedisStore)
    subscriber._publishers = {'a', 'b'}
    subscriber.publish_message('hello', expire=10)
    assert redis_client.mget('a', 'b') == [b'hello', b'hello']


def test_released_it_has_no_connection_left(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    subscriber = RedisSubscriber(redis_client)
    subscriber._subscription.subscribe('a')
    subscriber.get_file_descriptor()
    assert subscriber.parse_response()[0] == b'subscribe'
    # A hub of this process may listen to its control channel.
    assert b'a' in redis_client.pubsub_channels()
    subscriber.release()
    subscriber.release()
    assert not subscriber._subscription.has_own_connection
