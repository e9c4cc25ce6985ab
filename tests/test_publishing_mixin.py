"""ws4redis.test: what a project publishes stays in memory."""

from __future__ import annotations

import threading
import unittest
from typing import Any

import pytest
import redis
from django.contrib.auth.models import Group
from django.db import transaction
from django.test import RequestFactory, SimpleTestCase, TestCase, override_settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.django_requests import logged_in_request, make_user
from ws4redis.publisher import SELF, RedisPublisher
from ws4redis.publishing.broker import use_broker
from ws4redis.redis_store import RedisStore
from ws4redis.test import (
    MemoryBroker,
    Publication,
    PublishingMixin,
    WebSocketTestCase,
    publish_in_memory,
)

# Whatever reaches for Redis here fails at once.
NO_REDIS = {'host': 'localhost', 'port': 1}


def announce(message: str = 'new order', **options: Any) -> None:
    RedisPublisher(facility='orders', groups=['staff']).publish_message(message, **options)


@override_settings(ROOT_URLCONF='tests.views.urls', WS4REDIS_CONNECTION=NO_REDIS)
class WithoutRedisTests(PublishingMixin, TestCase):
    """What the mixin keeps."""

    @classmethod
    def setUpTestData(cls) -> None:
        # Publishing here must not fail either.
        announce('from the data of the class')

    def test_a_view_publishes_into_the_outbox(self) -> None:
        self.client.get('/publish/')
        assert self.outbox == [Publication(frozenset({'broadcast:views'}), b'from a view', 3600)]

    def test_each_test_begins_with_nothing_published_and_nothing_kept(self) -> None:
        assert self.outbox == []
        assert RedisPublisher().fetch_message(None, 'views') is None

    def test_another_thread_publishes_into_the_same_outbox(self) -> None:
        thread = threading.Thread(target=announce)
        thread.start()
        thread.join()
        assert self.published('orders', groups=['staff']) == [b'new order']

    def test_messages_are_listed_by_their_audience(self) -> None:
        announce('one')
        RedisPublisher(facility='orders', broadcast=True, groups=['staff']).publish_message('two')
        assert self.published('orders', groups=['staff']) == [b'one', b'two']
        assert self.published('orders', broadcast=True, groups=['staff']) == [b'two']
        assert self.published('orders', groups=[Group(name='staff')]) == [b'one', b'two']
        assert self.published('news', groups=['staff']) == []

    def test_a_publication_is_one_entry_for_all_of_its_channels(self) -> None:
        RedisPublisher(facility='f', users=['john'], broadcast=True).publish_message('x')
        (publication,) = self.outbox
        assert publication.channels == {'broadcast:f', 'user:john:f'}

    @override_settings(WS4REDIS_PREFIX='shop')
    def test_the_prefix_is_part_of_the_names(self) -> None:
        announce()
        assert self.outbox[0].channels == {'shop:group:staff:orders'}
        assert self.published('orders', groups=['staff']) == [b'new order']

    def test_what_is_not_published_to_redis_is_not_in_the_outbox(self) -> None:
        RedisPublisher().publish_message('without an audience')
        with pytest.raises(ValueError, match='message must be'):
            RedisPublisher(facility='f', broadcast=True).publish_message(7)
        assert self.outbox == []

    # Kept messages

    def test_the_latest_message_is_fetched_until_it_expires(self) -> None:
        announce('first')
        announce('second', expire=0)
        john = make_user('john')
        john.groups.add(Group.objects.create(name='staff'))
        request = logged_in_request(john)
        assert RedisPublisher().fetch_message(request, 'orders') == b'first'
        assert RedisPublisher().fetch_message(request, 'orders', 'broadcast') is None

    def test_self_means_the_user_of_the_request(self) -> None:
        request = logged_in_request(make_user('john'))
        RedisPublisher(facility='f', users=[SELF], request=request).publish_message('dear John')
        assert self.published('f', users=['john']) == [b'dear John']
        assert RedisPublisher().fetch_message(request, 'f', 'user') == b'dear John'
        assert RedisPublisher().fetch_message(RequestFactory().get('/'), 'f', 'user') is None

    def test_a_kept_message_expires(self) -> None:
        now = 0.0
        with use_broker(MemoryBroker(clock=lambda: now)):
            RedisPublisher(facility='f', broadcast=True).publish_message('short', expire=5)
            now = 4.9
            assert RedisPublisher().fetch_message(None, 'f') == b'short'
            now = 5.1
            assert RedisPublisher().fetch_message(None, 'f') is None

    # Assertions

    def test_a_message_is_asserted_of_a_block(self) -> None:
        announce('before')
        with self.assertPublished('new order', facility='orders', groups=['staff']) as published:
            announce()
            announce('and more')
        assert published == [b'new order', b'and more']

    def test_a_missing_message_fails_and_tells_what_was_published_instead(self) -> None:
        with pytest.raises(AssertionError, match=r"b'other' on group:staff:orders") as failure:
            with self.assertPublished('new order', facility='orders', groups=['staff']):
                announce('other')
        assert "b'new order' was published on" not in str(failure.value).partition(';')[2]
        with pytest.raises(AssertionError, match=r'No message .* nothing was published'):
            with self.assertPublished(facility='orders', groups=['staff']):
                pass

    def test_each_channel_of_the_audience_has_to_get_the_message(self) -> None:
        with pytest.raises(AssertionError, match='broadcast:orders'):
            with self.assertPublished(facility='orders', groups=['staff'], broadcast=True):
                announce()

    def test_what_was_published_before_the_block_does_not_count(self) -> None:
        announce()
        with pytest.raises(AssertionError, match='No message'):
            with self.assertPublished(facility='orders', groups=['staff']):
                pass

    def test_an_assertion_without_an_audience_is_refused(self) -> None:
        with pytest.raises(AssertionError, match='audience is missing'):
            self.published('orders')

    def test_an_exception_in_the_block_is_not_hidden(self) -> None:
        with pytest.raises(ZeroDivisionError):
            with self.assertPublished(facility='views', broadcast=True):
                raise ZeroDivisionError

    def test_callbacks_of_a_commit_are_captured_as_django_does_it(self) -> None:
        with transaction.atomic():
            transaction.on_commit(announce)
        assert self.outbox == []
        with (
            self.assertPublished('new order', facility='orders', groups=['staff']),
            self.captureOnCommitCallbacks(execute=True),
        ):
            transaction.on_commit(announce)

    # What has to go to Redis itself

    def test_a_client_of_redis_is_refused(self) -> None:
        with pytest.raises(RuntimeError, match='WebSocketTestCase'):
            _ = RedisStore()._connection

    def test_a_store_with_a_connection_of_its_own_keeps_it(self) -> None:
        never_again = Retry(NoBackoff(), retries=0)
        store = RedisStore(redis.Redis(**NO_REDIS, retry=never_again))  # type: ignore[arg-type]
        store._publishers.add('mine')
        with pytest.raises(redis.ConnectionError):
            store.publish_message('x')


def test_a_set_up_that_does_not_call_super_loses_nothing() -> None:
    class Careless(PublishingMixin, SimpleTestCase):
        def setUp(self) -> None:
            announce()

        def test_one(self) -> None:
            assert len(self.outbox) == 1

        def test_two(self) -> None:
            assert len(self.outbox) == 1

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Careless).run(result)
    assert (result.testsRun, result.errors, result.failures) == (2, [], [])


def test_a_test_case_with_websockets_is_refused() -> None:
    with pytest.raises(TypeError, match='leave PublishingMixin out'):
        type('Both', (PublishingMixin, WebSocketTestCase), {})


@override_settings(WS4REDIS_CONNECTION=NO_REDIS)
def test_tests_without_classes_publish_in_memory_for_a_block() -> None:
    with publish_in_memory() as memory:
        announce()
        with publish_in_memory() as inner:
            announce('inner')
        assert inner.published('orders', groups=['staff']) == [b'inner']
        assert memory.published('orders', groups=['staff']) == [b'new order']
    with pytest.raises(redis.ConnectionError):
        announce()
