"""Publishing with a history: what only a real Redis has."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import pytest
import redis
from asgiref.sync import async_to_sync
from django.test import override_settings

from tests.programs import RedisServer
from tests.timeouts import wait_until
from ws4redis.broker.history import Header, Kind, parse_event
from ws4redis.broker.keys import keys_of
from ws4redis.history import history
from ws4redis.publisher import RedisPublisher

CHANNEL = 'broadcast:chat'


@pytest.fixture(autouse=True)
def _facilities(redis_server: RedisServer) -> Iterator[None]:
    with override_settings(WS4REDIS_FACILITIES={'chat': {'HISTORY_SIZE': 1000}}):
        yield


def chat(**options: Any) -> RedisPublisher:
    return RedisPublisher(facility='chat', **(options or {'broadcast': True}))


def texts() -> list[str]:
    return [message.text for message in history('chat').messages]


def test_each_event_loop_has_connections_of_its_own_and_leaves_none_behind(
    redis_server: RedisServer,
) -> None:
    async def publish_many() -> None:
        await asyncio.gather(*(chat().apublish_message('hi') for _ in range(100)))

    with redis_server.client() as client:
        before = len(client.client_list())
        for _ in range(3):
            asyncio.run(publish_many())
            async_to_sync(publish_many)()
        wait_until(lambda: len(client.client_list()) == before)
        assert history('chat', reverse=True, limit=1).messages[0].position.offset == 600


def test_event_loops_that_have_ended_are_let_go(redis_server: RedisServer) -> None:
    loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()

    async def publish() -> None:
        loops.add(asyncio.get_running_loop())
        await chat().apublish_message('hi')

    for _ in range(5):
        asyncio.run(publish())
        async_to_sync(publish)()
    gc.collect()
    # But for the last one, until there is another.
    assert len(loops) <= 1


def test_a_hanging_redis_does_not_block_the_event_loop(redis_server: RedisServer) -> None:
    async def main() -> int:
        await chat().apublish_message('connected')
        redis_server.pause()
        try:
            publishing = asyncio.ensure_future(chat().apublish_message('waits'))
            turns = 0
            while turns < 100:
                await asyncio.sleep(0)
                turns += 1
            assert not publishing.done()
        finally:
            redis_server.resume()
        positions = await publishing
        return positions[CHANNEL].offset

    assert asyncio.run(main()) == 2


def test_scripts_that_redis_has_forgotten_are_sent_again(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        for offset in (1, 2):
            client.script_flush()
            positions = chat(broadcast=True, users=['mary']).publish_message('hi')
            assert [p.offset for p in positions.values()] == [offset, offset]
        client.script_flush()
        assert len(history('chat').messages) == 2


def test_once_redis_knows_the_script_a_publication_is_one_round_trip(
    redis_server: RedisServer,
) -> None:
    publisher = chat(broadcast=True, users=['mary', 'john'])
    publisher.publish_message('Redis learns the script')
    with redis_server.client() as client:
        client.config_resetstat()
        publisher.publish_message('hi')
        commands = client.info('commandstats')
    assert commands['cmdstat_evalsha']['calls'] == 3
    assert 'cmdstat_eval' not in commands
    assert commands['cmdstat_exec']['calls'] == 1


def test_a_json_value_without_a_history_has_a_header_that_says_so(
    redis_server: RedisServer,
) -> None:
    with redis_server.client() as client, client.pubsub() as pubsub:
        events = keys_of(b'broadcast:news').events
        pubsub.subscribe(events)
        pubsub.get_message(timeout=10)
        RedisPublisher(facility='news', broadcast=True).publish_json(1)
        message = pubsub.get_message(timeout=10)
    assert message is not None
    assert parse_event(message['data']) == Header(None, '', Kind.JSON)


def test_an_error_of_redis_is_the_publishers(redis_server: RedisServer) -> None:
    chat().publish_message('hi')
    with redis_server.client() as client:
        client.config_set('maxmemory', 1)
        try:
            with pytest.raises(redis.ResponseError, match='maxmemory'):
                chat().publish_message('ho')
        finally:
            client.config_set('maxmemory', 0)
    assert texts() == ['hi']


def test_a_history_that_was_switched_off_for_a_while_tells_nobody_unless_its_position_is_deleted(
    redis_client: redis.Redis,
) -> None:
    (position,) = chat().publish_message('before').values()
    with override_settings(WS4REDIS_FACILITIES={}):
        chat().publish_message('meanwhile')
    chat().publish_message('after')
    found = history('chat', since=position)
    assert ([message.text for message in found.messages], found.gap) == (['after'], None)
    redis_client.delete('ws4redis:position:{broadcast:chat}', 'ws4redis:stream:{broadcast:chat}')
    chat().publish_message('later')
    found = history('chat', since=position)
    assert (list(found.messages), found.gap) == ([], 'epoch')
