"""What clients may make Redis keep."""

from __future__ import annotations

import pytest
import redis

from tests.hub.rig import Clock
from tests.programs import RedisServer
from ws4redis.broker import kept
from ws4redis.broker.kept import KEY_OVERHEAD_BYTES, KeptByClients
from ws4redis.broker.publication import in_transaction, publication_commands


@pytest.fixture
def clock() -> Clock:
    return Clock()


def bound(clock: Clock, *, messages: int) -> KeptByClients:
    """Return a bound for some messages of a byte under keys of a byte."""
    return KeptByClients(messages * (KEY_OVERHEAD_BYTES + 2), clock=clock)


def test_no_more_is_kept_than_the_bound(clock: Clock) -> None:
    keeps = bound(clock, messages=3)
    assert [keeps.admits(key, b'x', 60) for key in (b'a', b'b', b'c', b'd')] == [True] * 3 + [False]
    assert keeps.bytes == 3 * (KEY_OVERHEAD_BYTES + 2)


def test_long_messages_and_long_names_count(clock: Clock) -> None:
    keeps = KeptByClients(10_000, clock=clock)
    assert not keeps.admits(b'a', b'x' * 10_000, 60)
    assert not keeps.admits(b'a' * 10_000, b'x', 60)
    assert keeps.admits(b'a', b'x' * 9000, 60)


def test_what_is_kept_already_may_be_replaced(clock: Clock) -> None:
    keeps = bound(clock, messages=2)
    assert keeps.admits(b'a', b'x', 60)
    assert keeps.admits(b'b', b'x', 60)
    for _ in range(10):
        assert keeps.admits(b'a', b'y', 60)
    # A longer one is more than the bound. It replaces what was kept, which counts no more.
    assert not keeps.admits(b'a', b'long', 60)
    assert keeps.admits(b'c', b'x', 60)


def test_what_redis_drops_makes_room(clock: Clock) -> None:
    keeps = bound(clock, messages=2)
    assert keeps.admits(b'a', b'x', 60)
    clock.advance(30)
    assert keeps.admits(b'b', b'x', 60)
    clock.advance(29)
    assert not keeps.admits(b'c', b'x', 60)
    clock.advance(1)
    assert keeps.admits(b'c', b'x', 60)
    assert not keeps.admits(b'd', b'x', 60)
    clock.advance(60)
    assert keeps.admits(b'd', b'x', 60)
    assert keeps.bytes == KEY_OVERHEAD_BYTES + 2


def test_without_a_bound_nothing_is_counted(clock: Clock) -> None:
    keeps = KeptByClients(None, clock=clock)
    assert all(keeps.admits(b'%d' % number, b'x' * 1000, 60) for number in range(1000))
    assert keeps.bytes == 0


def test_the_log_says_so_once_a_minute(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    keeps = KeptByClients(1, clock=clock)
    for _ in range(2):
        for number in range(100):
            assert not keeps.admits(b'%d' % number, b'x', 60)
        clock.advance(kept.WARN_SECONDS)
    assert caplog.text.count('WS4REDIS_MAX_KEPT_BYTES') == 2


def test_what_may_not_be_kept_is_published_and_leaves_nothing_older_behind(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    redis_client.set('old', 'older')
    with redis_client.pubsub() as pubsub:
        pubsub.subscribe('old', 'new')
        for _ in range(2):
            assert pubsub.get_message(timeout=5) is not None
        commands = publication_commands(
            ['old', 'new'], b'latest', 60, may_keep=lambda key, message, expire: False
        )
        for command in in_transaction(commands):
            redis_client.execute_command(*command)
        # What expires in a millisecond is the latest message until then, never the older one.
        assert redis_client.get('old') in (b'latest', None)
        assert redis_client.get('new') is None
        for channel in (b'old', b'new'):
            message = pubsub.get_message(timeout=5)
            assert message is not None
            assert (message['channel'], message['data']) == (channel, b'latest')
        assert redis_client.pttl('old') in (-2, 0, 1)
