"""Reading who is there: from Redis, and from memory in tests of projects."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.test import override_settings

from tests.programs import RedisServer
from ws4redis.broker.keys import keys_of
from ws4redis.broker.presence import (
    join_command,
    member_id_of_user,
    processes_key,
    renew_command,
)
from ws4redis.broker.publication import Command
from ws4redis.broker.scripts import script_of
from ws4redis.presence import Member, Presence, acounts, counts
from ws4redis.publishing.broker import use_broker
from ws4redis.test import publish_in_memory

PROCESS = 'f' * 16


@pytest.fixture(autouse=True)
def _facilities() -> Iterator[None]:
    with override_settings(
        WS4REDIS_PREFIX='site', WS4REDIS_FACILITIES={'chat/*': {'PRESENCE': True}}
    ):
        yield


class InRedis:
    """Let users be there as a websocket process does."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.run(renew_command(processes_key('site:'), PROCESS, is_first=True))

    def run(self, command: Command) -> Any:
        return self.client.execute_command(*script_of(command).with_text(command))

    def join(self, channel: str, user: str, info: Any = None) -> None:
        member = Member(member_id_of_user(user), user, info)
        keys = keys_of(f'site:{channel}'.encode(), 'site:')
        self.run(join_command(keys, PROCESS, {member.id: member.encode()}, epoch='e'))


@pytest.fixture
def there(redis_client: redis.Redis) -> InRedis:
    return InRedis(redis_client)


def test_members_are_read_in_the_order_of_their_ids(there: InRedis) -> None:
    there.join('broadcast:chat/7', 'mary', {'color': 'red'})
    there.join('broadcast:chat/7', 'john')
    presence = Presence('chat/7')
    assert presence.members() == [
        Member('user:john', 'john', None),
        Member('user:mary', 'mary', {'color': 'red'}),
    ]
    assert presence.count() == 2
    assert Presence('chat/8').members() == []
    assert Presence('chat/8').count() == 0


def test_an_audience_is_given_as_to_the_publisher(there: InRedis) -> None:
    there.join('group:staff:chat/7', 'john')
    assert Presence('chat/7', groups=['staff']).count() == 1
    assert Presence('chat/7', broadcast=True).count() == 0


def test_many_channels_are_counted_in_one_call(there: InRedis) -> None:
    for user in ('john', 'mary'):
        there.join('broadcast:chat/1', user)
    there.join('broadcast:chat/2', 'john')
    expected = {'chat/1': 2, 'chat/2': 1, 'chat/3': 0}
    assert counts(expected) == expected
    assert counts([]) == {}
    assert asyncio.run(acounts(expected)) == expected


def test_coroutines_read_the_same(there: InRedis) -> None:
    there.join('broadcast:chat/7', 'john')

    async def read() -> tuple[list[Member], int]:
        presence = Presence('chat/7')
        return await presence.amembers(), await presence.acount()

    assert asyncio.run(read()) == ([Member('user:john', 'john', None)], 1)


def test_members_of_a_process_that_has_died_do_not_count(there: InRedis) -> None:
    there.join('broadcast:chat/7', 'john')
    there.client.delete('site:ws4redis:processes')
    assert Presence('chat/7').members() == []
    assert counts(['chat/7']) == {'chat/7': 0}


def test_scripts_that_redis_has_forgotten_are_sent_again(there: InRedis) -> None:
    there.join('broadcast:chat/7', 'john')
    there.client.script_flush()
    assert Presence('chat/7').count() == 1


def test_a_facility_without_presence_is_refused(redis_server: RedisServer) -> None:
    with pytest.raises(ValueError, match='has no presence; give it one by PRESENCE'):
        Presence('news').count()
    with pytest.raises(ValueError, match='has no presence'):
        counts(['chat/1', 'news'])


def test_presence_is_that_of_one_channel() -> None:
    with pytest.raises(ValueError, match='one channel, not of 2'):
        Presence('chat/7', users=['john', 'mary']).members()


def test_tests_of_a_project_say_who_is_there() -> None:
    with publish_in_memory() as memory, use_broker(memory):
        memory.join('chat/7', 'mary', {'color': 'red'})
        memory.join('chat/7', 'john')
        memory.join('chat/7', 'john', groups=['staff'])
        assert [member.user for member in Presence('chat/7').members()] == ['john', 'mary']
        assert Presence('chat/7').members()[1].info == {'color': 'red'}
        memory.leave('chat/7', 'john')
        assert counts(['chat/7', 'chat/8']) == {'chat/7': 1, 'chat/8': 0}
        assert Presence('chat/7', groups=['staff']).count() == 1
        assert asyncio.run(Presence('chat/7').acount()) == 1
        memory.clear()
        assert Presence('chat/7').count() == 0
