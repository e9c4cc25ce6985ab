from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from typing import Any, Self

import pytest
import redis
from django.test import override_settings

from tests.django_requests import anonymous_request, logged_in_request, make_user
from tests.programs import RedisServer
from tests.redis_keys import stored_keys
from tests.timeouts import SOON_SECONDS, scaled
from ws4redis.publisher import RedisPublisher, in_transaction, publication_commands
from ws4redis.redis_store import SELF, RedisMessage, RedisStore

FACILITY = 'foo'
CLIENT_IS_QUIET_SECONDS = scaled(0.1)


@pytest.fixture
def subscribed(redis_client: redis.Redis) -> Iterator[redis.client.PubSub]:
    """A subscription to everything."""
    with redis_client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.psubscribe('*')
        assert pubsub.get_message(timeout=SOON_SECONDS) is None  # the confirmation
        yield pubsub


def next_message(pubsub: redis.client.PubSub) -> tuple[str, bytes]:
    message = pubsub.get_message(timeout=SOON_SECONDS)
    assert message is not None
    return message['channel'].decode(), message['data']


def fetch(facility: str = FACILITY, **options: Any) -> bytes | None:
    return RedisPublisher().fetch_message(None, facility, **options)


# What is published


def test_a_message_is_published_and_kept(
    redis_client: redis.Redis, subscribed: redis.client.PubSub
) -> None:
    RedisPublisher(facility=FACILITY, broadcast=True).publish_message(RedisMessage('hello'))
    assert next_message(subscribed) == ('broadcast:foo', b'hello')
    assert redis_client.get('broadcast:foo') == b'hello'
    assert 3590 < int(redis_client.ttl('broadcast:foo')) <= 3600


@pytest.mark.parametrize(
    ('message', 'payload'),
    [
        ('grüße', 'grüße'.encode()),
        (b'\x00\xff', b'\x00\xff'),
        (bytearray(b'abc'), b'abc'),
        (memoryview(b'abc'), b'abc'),
        (RedisMessage('abc'), b'abc'),
        ('', b''),
        ('x' * 1_000_000, b'x' * 1_000_000),
    ],
    ids=['str', 'bytes', 'bytearray', 'memoryview', 'RedisMessage', 'empty', 'large'],
)
def test_strings_and_bytes_are_published_as_they_are(
    redis_server: RedisServer, message: Any, payload: bytes
) -> None:
    RedisPublisher(facility=FACILITY, broadcast=True).publish_message(message)
    assert fetch() == payload


@pytest.mark.parametrize('message', [None, 7, 1.5, ['a'], {'a': 1}, object()])
def test_a_message_of_another_type_is_refused(redis_client: redis.Redis, message: Any) -> None:
    publisher = RedisPublisher(facility=FACILITY, broadcast=True)
    with pytest.raises(ValueError, match='message must be'):
        publisher.publish_message(message)
    assert stored_keys(redis_client) == []


def test_a_string_that_is_no_unicode_is_refused(redis_server: RedisServer) -> None:
    with pytest.raises(ValueError, match='surrogates'):
        RedisPublisher(facility=FACILITY, broadcast=True).publish_message('\ud800')


@override_settings(WS4REDIS_HEARTBEAT='--heartbeat--')
def test_the_heartbeat_is_not_published_and_the_log_says_so(
    redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    RedisPublisher(facility=FACILITY, broadcast=True).publish_message('--heartbeat--')
    assert stored_keys(redis_client) == []
    assert 'not published' in caplog.text


def test_every_channel_gets_the_message(redis_client: redis.Redis) -> None:
    RedisPublisher(
        facility=FACILITY, broadcast=True, users=['john', 'mary'], groups=['g'], sessions=('s',)
    ).publish_message('hi')
    assert stored_keys(redis_client) == [
        b'broadcast:foo',
        b'group:g:foo',
        b'session:s:foo',
        b'user:john:foo',
        b'user:mary:foo',
    ]


@pytest.mark.django_db
def test_self_reaches_the_user_the_groups_and_the_session(redis_client: redis.Redis) -> None:
    request = logged_in_request(make_user('john', groups=['a', 'b']))
    RedisPublisher(
        facility=FACILITY, users=[SELF], groups=[SELF], sessions=[SELF], request=request
    ).publish_message('hi')
    assert stored_keys(redis_client) == sorted(
        [
            b'group:a:foo',
            b'group:b:foo',
            b'user:john:foo',
            f'session:{request.session.session_key}:foo'.encode(),
        ]
    )


def test_self_with_nobody_logged_in_publishes_nothing(redis_client: redis.Redis) -> None:
    publisher = RedisPublisher(
        facility=FACILITY,
        users=[SELF],
        groups=[SELF],
        sessions=[SELF],
        request=anonymous_request(),
    )
    publisher.publish_message('hi')
    assert publisher._publishers == set()
    assert stored_keys(redis_client) == []


def test_names_with_colons_percent_signs_and_beyond_ascii_reach_their_channel(
    redis_client: redis.Redis, subscribed: redis.client.PubSub
) -> None:
    RedisPublisher(facility='größe/1:2', users=['ü:%'], groups=['例え']).publish_message('hi')
    assert {next_message(subscribed), next_message(subscribed)} == {
        ('user:ü%3A%25:größe/1:2', b'hi'),
        ('group:例え:größe/1:2', b'hi'),
    }
    assert redis_client.get('user:ü%3A%25:größe/1:2') == b'hi'


@override_settings(WS4REDIS_PREFIX='site')
def test_the_prefix_stands_before_channels_and_keys(
    redis_client: redis.Redis, subscribed: redis.client.PubSub
) -> None:
    RedisPublisher(facility=FACILITY, broadcast=True).publish_message('hi')
    assert next_message(subscribed) == ('site:broadcast:foo', b'hi')
    assert redis_client.get('site:broadcast:foo') == b'hi'
    assert fetch() == b'hi'


def test_plain_redis_commands_publish_and_read(
    redis_client: redis.Redis, subscribed: redis.client.PubSub
) -> None:
    redis_client.publish('broadcast:foo', 'from outside')
    assert next_message(subscribed) == ('broadcast:foo', b'from outside')
    redis_client.set('broadcast:foo', 'kept from outside')
    assert fetch() == b'kept from outside'


# Expiry


@pytest.mark.parametrize('setting', [0, None])
def test_with_expiry_off_messages_are_published_but_not_kept(
    redis_client: redis.Redis, subscribed: redis.client.PubSub, setting: int | None
) -> None:
    with override_settings(WS4REDIS_EXPIRE=setting):
        RedisPublisher(facility=FACILITY, broadcast=True).publish_message('hi')
    assert next_message(subscribed) == ('broadcast:foo', b'hi')
    assert stored_keys(redis_client) == []


@override_settings(WS4REDIS_EXPIRE=50)
def test_the_setting_says_how_long_messages_are_kept(redis_client: redis.Redis) -> None:
    RedisPublisher(facility=FACILITY, broadcast=True).publish_message('hi')
    assert 40 < int(redis_client.ttl('broadcast:foo')) <= 50


@pytest.mark.parametrize('setting', [0, 50])
def test_a_message_may_override_the_setting(redis_client: redis.Redis, setting: int) -> None:
    with override_settings(WS4REDIS_EXPIRE=setting):
        RedisPublisher(facility=FACILITY, broadcast=True).publish_message('hi', expire=1000)
    assert 990 < int(redis_client.ttl('broadcast:foo')) <= 1000


def test_a_message_with_expiry_0_is_not_kept_and_leaves_the_kept_one(
    redis_client: redis.Redis,
) -> None:
    publisher = RedisPublisher(facility=FACILITY, broadcast=True)
    publisher.publish_message('kept')
    publisher.publish_message('passing', expire=0)
    assert fetch() == b'kept'


@pytest.mark.parametrize('expire', [1.5, '10', True])
def test_an_expiry_that_is_no_number_of_seconds_is_refused(
    redis_client: redis.Redis, expire: Any
) -> None:
    with pytest.raises(ValueError, match='expire must be'):
        RedisPublisher(facility=FACILITY, broadcast=True).publish_message('hi', expire=expire)
    assert stored_keys(redis_client) == []


# Arguments


@pytest.mark.parametrize('audience', ['groups', 'users', 'sessions'])
@pytest.mark.parametrize('value', ['john', True, {'john'}])
def test_audiences_are_lists_or_tuples(audience: str, value: Any) -> None:
    with pytest.raises(ValueError, match='must be a list or a tuple'):
        RedisPublisher(facility=FACILITY, **{audience: value})


@pytest.mark.parametrize('audience', ['groups', 'users', 'sessions'])
def test_self_without_a_request_is_an_error(audience: str) -> None:
    with pytest.raises(ValueError, match='needs a request'):
        RedisPublisher(facility=FACILITY, **{audience: [SELF]})  # type: ignore[arg-type]


def test_an_audience_without_a_facility_is_an_error() -> None:
    with pytest.raises(ValueError, match='needs a facility'):
        RedisPublisher(broadcast=True)


def test_the_facility_may_be_empty(redis_client: redis.Redis) -> None:
    RedisPublisher(facility='', broadcast=True).publish_message('hi')
    assert redis_client.get('broadcast:') == b'hi'


def test_an_empty_publisher_publishes_nowhere(redis_client: redis.Redis) -> None:
    RedisPublisher().publish_message('hi')
    assert stored_keys(redis_client) == []


def test_a_publisher_is_a_store_whose_channels_can_be_seen() -> None:
    publisher = RedisPublisher(facility=FACILITY, broadcast=True, users=['john'])
    assert isinstance(publisher, RedisStore)
    assert publisher._publishers == {'broadcast:foo', 'user:john:foo'}


# Fetching


@pytest.mark.django_db
def test_each_audience_is_fetched_by_itself_and_any_in_order(redis_client: redis.Redis) -> None:
    request = logged_in_request(make_user('john', groups=['g', 'h']))
    kept = {
        'session': f'session:{request.session.session_key}:foo',
        'user': 'user:john:foo',
        'group': 'group:h:foo',
        'broadcast': 'broadcast:foo',
    }
    publisher = RedisPublisher()
    for audience, key in kept.items():
        assert publisher.fetch_message(request, FACILITY, audience) is None
        redis_client.set(key, audience)
        assert publisher.fetch_message(request, FACILITY, audience) == audience.encode()
    for audience, key in kept.items():
        assert publisher.fetch_message(request, FACILITY) == audience.encode()
        redis_client.delete(key)
    assert publisher.fetch_message(request, FACILITY) is None


def test_an_anonymous_request_is_given_only_the_broadcast(redis_client: redis.Redis) -> None:
    redis_client.mset({'broadcast:foo': 'all', 'user:None:foo': 'x', 'session:None:foo': 'x'})
    publisher = RedisPublisher()
    assert publisher.fetch_message(anonymous_request(), FACILITY) == b'all'
    assert publisher.fetch_message(None, FACILITY) == b'all'
    for audience in ('user', 'group', 'session'):
        assert publisher.fetch_message(anonymous_request(), FACILITY, audience) is None
        assert publisher.fetch_message(None, FACILITY, audience) is None


def test_an_empty_kept_message_is_found(redis_client: redis.Redis) -> None:
    redis_client.set('broadcast:foo', '')
    assert fetch() == b''


def test_an_unknown_audience_is_refused() -> None:
    with pytest.raises(ValueError, match=r"audience must be one of .*, not 'users'"):
        fetch(audience='users')


# Round trips


class RoundTripCounter:
    """Stand between a client and Redis, and count how often the client waits for an answer.

    Answers are held back until the client has sent nothing for a while: only then it waits.
    """

    def __init__(self, server: RedisServer) -> None:
        self.round_trips = 0
        self.holds_answers = False
        self._address = (server.host, server.port)
        self._listener = socket.create_server((server.host, 0))
        self.port: int = self._listener.getsockname()[1]
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._relay)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.close()
        self._thread.join()
        self._stopped.close()
        self._listener.close()

    def _relay(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._address)
        answer = b''
        with client, server:
            while True:
                quiet_seconds = CLIENT_IS_QUIET_SECONDS if self.holds_answers else 0
                timeout = quiet_seconds if answer else None
                ready, _, _ = select.select([client, server, self._stopped], [], [], timeout)
                if self._stopped in ready:
                    return
                if client in ready:
                    command = client.recv(1 << 16)
                    if not command:
                        return
                    server.sendall(command)
                elif server in ready:
                    answer += server.recv(1 << 16)
                elif answer:
                    # Counted first: the client goes on as soon as it has its answer.
                    self.round_trips += 1
                    client.sendall(answer)
                    answer = b''


@pytest.fixture
def round_trips(redis_server: RedisServer) -> Iterator[RoundTripCounter]:
    with RoundTripCounter(redis_server) as counter:
        connection = {'host': redis_server.host, 'port': counter.port}
        with override_settings(WS4REDIS_CONNECTION=connection):
            fetch()  # so that a connection is there
            counter.round_trips = 0
            counter.holds_answers = True
            yield counter


@pytest.mark.parametrize('method', ['publish_message', 'pipeline_publish_message'])
@pytest.mark.parametrize('expire', [0, 10])
def test_a_message_on_many_channels_is_one_round_trip(
    round_trips: RoundTripCounter, redis_client: redis.Redis, method: str, expire: int
) -> None:
    users = [f'user{number}' for number in range(500)]
    publisher = RedisPublisher(facility=FACILITY, broadcast=True, users=users)
    redis_client.config_resetstat()
    getattr(publisher, method)('x' * 500, expire=expire)
    assert round_trips.round_trips == 1
    statistics: Any = redis_client.info('commandstats')
    assert statistics['cmdstat_publish']['calls'] == 501
    assert statistics.get('cmdstat_set', {'calls': 0})['calls'] == (501 if expire else 0)


def test_a_publication_without_expiry_on_one_channel_is_a_single_command(
    round_trips: RoundTripCounter, redis_client: redis.Redis
) -> None:
    redis_client.config_resetstat()
    RedisPublisher(facility=FACILITY, broadcast=True).publish_message('hi', expire=0)
    # Redis 6 does not tell the subcommands of CONFIG apart.
    own = {'cmdstat_config', 'cmdstat_config|resetstat'}
    commands = set(redis_client.info('commandstats')) - own
    assert commands == {'cmdstat_publish'}
    assert round_trips.round_trips == 1


@pytest.mark.django_db
def test_fetching_any_message_is_one_round_trip(round_trips: RoundTripCounter) -> None:
    request = logged_in_request(make_user('john', groups=['a', 'b', 'c']))
    assert RedisPublisher().fetch_message(request, FACILITY) is None
    assert round_trips.round_trips == 1


def test_what_has_no_channel_costs_no_round_trip(round_trips: RoundTripCounter) -> None:
    publisher = RedisPublisher(facility=FACILITY, users=[SELF], request=anonymous_request())
    publisher.publish_message('hi')
    assert publisher.fetch_message(anonymous_request(), FACILITY, 'user') is None
    assert round_trips.round_trips == 0


# All or nothing


def test_a_publication_that_redis_refuses_in_part_is_refused_as_a_whole(
    redis_server: RedisServer, redis_client: redis.Redis, subscribed: redis.client.PubSub
) -> None:
    redis_client.execute_command(
        'ACL', 'SETUSER', 'publisher', 'on', '>pw', '+@all', '-set', '~*', '&*'
    )
    try:
        connection = {**redis_server.connection, 'username': 'publisher', 'password': 'pw'}
        with override_settings(WS4REDIS_CONNECTION=connection):
            publisher = RedisPublisher(facility=FACILITY, broadcast=True)
            with pytest.raises(redis.exceptions.NoPermissionError):
                publisher.publish_message('refused')
            publisher.publish_message('allowed', expire=0)
        assert next_message(subscribed) == ('broadcast:foo', b'allowed')
    finally:
        redis_client.execute_command('ACL', 'DELUSER', 'publisher')


def test_publishing_runs_within_a_transaction_unless_told_otherwise(
    redis_client: redis.Redis,
) -> None:
    publisher = RedisPublisher(facility=FACILITY, broadcast=True)
    redis_client.config_resetstat()
    publisher.pipeline_publish_message('hi', transaction=False)
    assert 'cmdstat_multi' not in redis_client.info('commandstats')
    publisher.pipeline_publish_message('hi')
    publisher.publish_message('hi')
    statistics: Any = redis_client.info('commandstats')
    assert statistics['cmdstat_multi']['calls'] == 2


# The commands


def test_the_commands_of_a_publication_keep_the_message_before_publishing_it() -> None:
    assert publication_commands(['broadcast:é'], b'hi', 10) == [
        (b'SET', 'broadcast:é'.encode(), b'hi', b'EX', 10),
        (b'PUBLISH', 'broadcast:é'.encode(), b'hi'),
    ]


@pytest.mark.parametrize('expire', [0, None])
def test_the_commands_of_a_publication_that_is_not_kept(expire: int | None) -> None:
    assert publication_commands(['a', 'b'], b'hi', expire) == [
        (b'PUBLISH', b'a', b'hi'),
        (b'PUBLISH', b'b', b'hi'),
    ]


def test_only_several_commands_need_a_transaction() -> None:
    one, two = (b'PUBLISH', b'a', b'hi'), (b'PUBLISH', b'b', b'hi')
    assert in_transaction([]) == []
    assert in_transaction([one]) == [one]
    assert in_transaction([one, two]) == [(b'MULTI',), one, two, (b'EXEC',)]


# Redis is away


def test_without_redis_the_view_gets_a_connection_error_at_once(redis_server: RedisServer) -> None:
    redis_server.kill()
    with pytest.raises(redis.exceptions.ConnectionError):
        RedisPublisher(facility=FACILITY, broadcast=True).publish_message('hi')
    with pytest.raises(redis.exceptions.ConnectionError):
        fetch()


def test_the_first_message_after_a_restart_of_redis_is_published(
    redis_server: RedisServer,
) -> None:
    publisher = RedisPublisher(facility=FACILITY, broadcast=True)
    publisher.publish_message('before')
    redis_server.restart()
    publisher.publish_message('after')
    assert fetch() == b'after'


def test_a_publisher_without_an_audience_says_so(
    redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    RedisPublisher(facility='foo').publish_message('hi')
    assert "the publisher of 'foo' has no audience" in caplog.text
    caplog.clear()
    nobody = RedisPublisher(facility='foo', users=[SELF], request=anonymous_request())
    nobody.publish_message('hi')
    own = RedisPublisher(facility='foo')
    own._publishers.add('own:foo')
    own.publish_message('hi')
    assert not caplog.text
