"""What the recipes make their reader write does what they say."""

from __future__ import annotations

import importlib
from typing import Any

from django.contrib.auth.models import Group
from django.test import RequestFactory

from tests.django_requests import make_user
from tests.docs.howto_case import HOWTO, HowtoTestCase
from tests.docs.pages import settings_of
from ws4redis.history import history
from ws4redis.publisher import RedisPublisher


class CeleryTests(HowtoTestCase):
    page = 'celery.md'

    def test_a_task_that_runs_twice_publishes_once(self) -> None:
        with self.project(self.page, **settings_of(HOWTO / self.page)):
            ship = importlib.import_module('project.tasks').ship
            ship(7)
            ship(7)
            ship(8)
            published = [message.value['order'] for message in history('orders').messages]
        assert published == [7, 8]


class RestFrameworkTests(HowtoTestCase):
    page = 'rest-framework.md'

    def test_the_view_says_what_came_after_a_position(self) -> None:
        requests = RequestFactory()
        with self.project(self.page, **settings_of(HOWTO / self.page)):
            view = importlib.import_module('project.views').messages

            def say(text: str) -> None:
                request = requests.post('/', {'text': text})
                assert view(request, room=7).status_code == 201

            def past(**query: Any) -> Any:
                return view(requests.get('/', query), room=7).data

            say('one')
            first = past()
            say('two')
            second = past(since=first['position'])
        assert [message['text'] for message in first['messages']] == ['one']
        assert [message['text'] for message in second['messages']] == ['two']
        assert second['gap'] is None

    def test_what_a_serializer_has_saved_is_published(self) -> None:
        class Saved:
            room_id = 7

        class Serializer:
            data = {'text': 'Hello'}

            def save(self, author: Any) -> Saved:
                return Saved()

        with self.project(self.page, **settings_of(HOWTO / self.page)):
            view = importlib.import_module('project.api').PublishesMessages()
            view.request = RequestFactory().post('/')
            view.request.user = make_user('john')
            view.perform_create(Serializer())
            (message,) = history('chat/7').messages
        assert message.value == {'text': 'Hello'}


class TenantTests(HowtoTestCase):
    page = 'tenants.md'

    def test_members_of_a_tenant_listen_and_nobody_else(self) -> None:
        path = '/ws/tenant-7/orders?subscribe-broadcast'
        member = make_user('john', groups=['tenant-7'])
        Group.objects.create(name='tenant-8')
        settings = settings_of(HOWTO / self.page)
        facilities = {'WS4REDIS_FACILITIES': settings['WS4REDIS_FACILITIES']}
        with self.project(self.page, **facilities):
            tenants = importlib.import_module('project.tenants')
            with (
                self.websocket(path, user=member) as john,
                self.websocket(path, user=make_user('mary', groups=['tenant-8'])) as mary,
                self.websocket('/ws/other?subscribe-broadcast', user=member) as other,
            ):
                tenants.publish_to_tenant(7, 'orders', {'paid': 1})
                RedisPublisher(facility='other', broadcast=True).publish_message('no')
                assert john.receive_json() == {'paid': 1}
                mary.receive_nothing()
                other.receive_nothing()

    def test_a_site_is_left_alone_by_the_pages_of_another(self) -> None:
        settings = settings_of(HOWTO / self.page)
        allowed = {'WS4REDIS_ALLOWED_CHANNELS': settings['WS4REDIS_ALLOWED_CHANNELS']}
        shop = {'Host': 'shop.example.com', 'Origin': 'http://shop.example.com'}
        with self.project(self.page, ALLOWED_HOSTS=['shop.example.com', 'localhost'], **allowed):
            with self.websocket('/ws/shop/news?subscribe-broadcast', headers=shop) as websocket:
                RedisPublisher(facility='shop/news', broadcast=True).publish_message('Hello')
                assert websocket.receive() == 'Hello'
            self.assert_refused('/ws/blog/news?subscribe-broadcast', 403, headers=shop)


class PusherTests(HowtoTestCase):
    page = '../coming-from/pusher.md'

    def test_the_function_decides_who_sees_an_order(self) -> None:
        path = '/ws/orders/7?subscribe-broadcast'
        with self.project(self.page, **settings_of(HOWTO / self.page)):
            with (
                self.websocket(path, user=make_user('john')) as john,
                self.websocket(path) as stranger,
            ):
                RedisPublisher(facility='orders/7', broadcast=True).publish_json('shipped')
                assert john.receive_json() == 'shipped'
                stranger.receive_nothing()
