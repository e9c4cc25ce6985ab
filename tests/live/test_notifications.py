from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from django.contrib.auth.models import AnonymousUser, User
from django.db import transaction
from django.test import override_settings

from tests.programs import RedisServer
from ws4redis.live import mark_read, notify, unread_count, unread_notifications
from ws4redis.live.notification_store import MAX_UNREAD, MemoryNotifications
from ws4redis.test import MemoryBroker, publish_in_memory

MARY = User(username='mary')


@pytest.fixture
def memory() -> Iterator[MemoryBroker]:
    with publish_in_memory() as memory:
        yield memory


def messages(memory: MemoryBroker) -> list[dict[str, Any]]:
    return [json.loads(message) for message in memory.published('notifications', users=['mary'])]


def test_a_notification_and_the_number_of_unread_ones_are_published(memory: MemoryBroker) -> None:
    notify(MARY, 'Order 7 is paid.', title='Orders', url='/orders/7/', on_commit=False)
    assert messages(memory) == [
        {
            'type': 'notification',
            'id': '1-0',
            'text': 'Order 7 is paid.',
            'title': 'Orders',
            'url': '/orders/7/',
            'level': 'info',
            'data': {},
        },
        {'type': 'unread', 'unread': 1},
    ]
    # A page that opens later shows the number, and no toast again.
    assert [bool(item.expire) for item in memory.outbox] == [False, True]


@pytest.mark.django_db(transaction=True)
def test_it_is_sent_on_commit_and_not_at_all_after_a_rollback(memory: MemoryBroker) -> None:
    with transaction.atomic():
        notify(MARY, 'paid')
        assert messages(memory) == []
    assert len(messages(memory)) == 2
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        notify(MARY, 'never')
        raise ZeroDivisionError
    assert len(messages(memory)) == 2
    assert unread_count(MARY) == 1


def test_what_was_read_is_not_counted_and_the_badges_follow(memory: MemoryBroker) -> None:
    for text in ('one', 'two', 'three'):
        notify(MARY, text, on_commit=False)
    newest, *_ = unread_notifications('mary')
    assert newest['text'] == 'three'
    assert mark_read(MARY, [newest['id']]) == 2
    assert messages(memory)[-1] == {'type': 'unread', 'unread': 2}
    assert mark_read(MARY) == 0
    assert messages(memory)[-1] == {'type': 'unread', 'unread': 0}
    assert unread_notifications(MARY) == []


@pytest.mark.parametrize('user', [None, '', AnonymousUser(), 7])
def test_nobody_cannot_be_notified(memory: MemoryBroker, user: Any) -> None:
    with pytest.raises(ValueError, match='only users can be notified'):
        notify(user, 'hello')


def test_an_unknown_level_is_refused(memory: MemoryBroker) -> None:
    with pytest.raises(ValueError, match='level must be one of info, success, warning, error'):
        notify(MARY, 'hello', level='fatal')


def test_data_that_is_no_json_is_refused_where_it_was_written(memory: MemoryBroker) -> None:
    with pytest.raises(TypeError):
        notify(MARY, 'hello', data={'user': MARY})


def test_one_id_in_the_place_of_a_list_is_refused(memory: MemoryBroker) -> None:
    with pytest.raises(ValueError, match='ids must be a list'):
        mark_read(MARY, '1-0')


# With Redis


def test_unread_notifications_wait_in_redis(redis_server: RedisServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: notify(MARY, f'message {n}', on_commit=False), range(20)))
    assert unread_count('mary') == 20
    first, second, *_ = unread_notifications(MARY)
    assert mark_read(MARY, [first['id'], second['id']]) == 18
    assert mark_read(MARY, []) == 18
    assert {n['text'] for n in unread_notifications(MARY)}.isdisjoint(
        {first['text'], second['text']}
    )
    assert mark_read(MARY) == 0


def test_no_more_than_a_bound_of_unread_ones_is_kept_and_not_for_ever(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    for number in range(MAX_UNREAD + 5):
        notify(MARY, str(number), on_commit=False)
    assert unread_count(MARY) == MAX_UNREAD
    assert unread_notifications(MARY)[0]['text'] == str(MAX_UNREAD + 4)
    assert 0 < redis_client.ttl('ws4redis:notifications:mary') <= 30 * 24 * 3600


@override_settings(WS4REDIS_PREFIX='shop')
def test_names_of_users_do_not_reach_into_other_keys(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    notify('mary:admin', 'hello', on_commit=False)
    assert redis_client.exists('shop:ws4redis:notifications:mary%3Aadmin')


# A store of the project


class OwnStore(MemoryNotifications):
    shared = MemoryNotifications()

    def add(self, user: Any, notification: dict[str, Any]) -> tuple[str, int]:
        name, unread = self.shared.add(user, notification)
        return f'own-{name}', unread


@override_settings(WS4REDIS_NOTIFICATION_STORE=f'{__name__}.OwnStore')
def test_a_project_may_keep_them_in_a_store_of_its_own(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    pubsub: Any = redis_client.pubsub()
    pubsub.subscribe('user:mary:notifications')
    pubsub.get_message(timeout=5)
    notify(MARY, 'hello', on_commit=False)
    assert json.loads(pubsub.get_message(timeout=5)['data'])['id'] == 'own-1-0'
    assert redis_client.keys('*:notifications:mary') == []
    pubsub.close()
