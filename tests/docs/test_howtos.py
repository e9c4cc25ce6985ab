"""What the how-tos make their reader write does what they say."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import redis
from django.contrib.auth.models import Group, User
from django.core.signing import TimestampSigner
from django.test import override_settings

from tests.django_requests import logged_in_request, make_user
from tests.docs.code_blocks import DOCS
from tests.docs.howto_case import HOWTO, HowtoTestCase
from tests.docs.pages import blocks_in
from tests.programs import RedisServer, UwsgiServer
from tests.server_process import ROOT
from tests.timeouts import wait_until
from ws4redis.publisher import RedisPublisher
from ws4redis.statistics import get_snapshots
from ws4redis.test import WebSocketClient


def bearer(token: str) -> dict[str, str]:
    return {'Authorization': f'Bearer {token}'}


class TokenTests(HowtoTestCase):
    """``authenticate-by-token.md``."""

    page = 'authenticate-by-token.md'
    path = '/ws/orders?subscribe-user'

    def setUp(self) -> None:
        self.john = make_user('john')

    def assert_is_john(self, path: str, **options: Any) -> None:
        with self.websocket(path, **options) as websocket:
            RedisPublisher(facility='orders', users=['john']).publish_message('for john')
            assert websocket.receive() == 'for john'

    def test_a_token_in_a_header_names_the_user(self) -> None:
        with self.project(self.page, WS4REDIS_PROCESS_REQUEST='project.sockets.process_request'):
            token = importlib.import_module('project.sockets').make_token(self.john)
            self.assert_is_john(self.path, headers=bearer(token))

    def test_without_a_valid_token_the_handshake_is_refused(self) -> None:
        with self.project(self.page, WS4REDIS_PROCESS_REQUEST='project.sockets.process_request'):
            token = importlib.import_module('project.sockets').make_token(self.john)
            self.assert_refused(self.path, 403)
            self.assert_refused(self.path, 403, headers=bearer(token + 'x'))
            User.objects.update(is_active=False)
            self.assert_refused(self.path, 403, headers=bearer(token))

    def test_a_ticket_in_the_url_names_the_user(self) -> None:
        with self.project(self.page, WS4REDIS_PROCESS_REQUEST='project.tickets.process_request'):
            tickets = importlib.import_module('project.tickets')
            answer = json.loads(tickets.ticket(logged_in_request(self.john)).content)
            self.assert_is_john(f'{self.path}&ticket={answer["ticket"]}')
            self.assert_refused(f'{self.path}&ticket=x', 403)
            wrong_salt = TimestampSigner(salt='program').sign(str(self.john.pk))
            self.assert_refused(f'{self.path}&ticket={wrong_salt}', 403)

    def test_a_token_or_the_session_names_the_user(self) -> None:
        with self.project(self.page, WS4REDIS_PROCESS_REQUEST='project.either.process_request'):
            token = importlib.import_module('project.sockets').make_token(self.john)
            self.assert_is_john(self.path, headers=bearer(token))
            self.assert_is_john(self.path, user=self.john)


class RestrictionTests(HowtoTestCase):
    """``restrict-channels.md``."""

    page = 'restrict-channels.md'

    def test_only_staff_publishes(self) -> None:
        staff = User.objects.create_user('boss', password='secret', is_staff=True)
        path = '/ws/news?subscribe-broadcast&publish-broadcast'
        with self.project(self.page, WS4REDIS_ALLOWED_CHANNELS='project.sockets.allowed_channels'):
            with self.websocket(path, user=staff) as boss, self.websocket(path) as guest:
                guest.send('from a guest')
                boss.send('from the boss')
                assert guest.receive() == 'from the boss'
                boss.receive_nothing()

    def test_members_only_refuses_guests_and_takes_nothing(self) -> None:
        path = '/ws/news?subscribe-broadcast&publish-broadcast&echo'
        with self.project(self.page, WS4REDIS_ALLOWED_CHANNELS='project.sockets.members_only'):
            self.assert_refused(path, 403)
            with self.websocket(path, user=make_user('john')) as websocket:
                websocket.send('thrown away')
                RedisPublisher(facility='news', broadcast=True).publish_message('published')
                assert websocket.receive() == 'published'

    def test_a_facility_is_for_the_members_of_a_group(self) -> None:
        member = make_user('john', groups=['project-42'])
        with self.project(self.page, WS4REDIS_ALLOWED_CHANNELS='project.sockets.by_facility'):
            self.websocket('/ws/project-42?subscribe-broadcast', user=member).close()
            self.assert_refused('/ws/project-43?subscribe-broadcast', 403, user=member)
            self.assert_refused('/ws/project-42?subscribe-broadcast', 403)

    def test_a_callback_may_grant_what_was_not_asked_for(self) -> None:
        def all_listen(request: Any, channels: list[str]) -> list[str]:
            assert 'echo' not in channels
            return ['subscribe-broadcast']

        with override_settings(WS4REDIS_ALLOWED_CHANNELS=all_listen):
            with self.websocket('/ws/news?echo') as websocket:
                RedisPublisher(facility='news', broadcast=True).publish_message('Hello')
                assert websocket.receive() == 'Hello'


class SubscriberTests(HowtoTestCase):
    """``custom-subscribers.md``."""

    page = 'custom-subscribers.md'

    def test_an_option_of_ones_own_leads_to_a_channel_of_ones_own(self) -> None:
        staff = User.objects.create_user('boss', password='secret', is_staff=True)
        path = '/ws/news?subscribe-staff&subscribe-broadcast'
        with self.project(self.page, WS4REDIS_SUBSCRIBER='project.subscribers.ProjectSubscriber'):
            publisher = importlib.import_module('project.subscribers').StaffPublisher()
            publisher.publish_message('kept')
            with self.websocket(path, user=staff) as boss, self.websocket(path) as guest:
                assert boss.receive() == 'kept'
                publisher.publish_message('live')
                assert boss.receive() == 'live'
                RedisPublisher(facility='news', broadcast=True).publish_message('for all')
                assert guest.receive() == 'for all'

    def test_a_greeting_comes_before_the_kept_message(self) -> None:
        RedisPublisher(facility='news', broadcast=True).publish_message('kept')
        with self.project(self.page, WS4REDIS_SUBSCRIBER='project.greeting.GreetingSubscriber'):
            with self.websocket('/ws/news?subscribe-broadcast', user=make_user('john')) as john:
                assert john.receive_many(2) == ['Hello, john', 'kept']
            with self.websocket('/ws/news?subscribe-broadcast') as guest:
                assert guest.receive() == 'Hello, stranger'

    def test_messages_are_signed_and_only_text_passes(self) -> None:
        path = '/ws/news?subscribe-broadcast&publish-broadcast'
        with self.project(self.page, WS4REDIS_SUBSCRIBER='project.signed.SigningSubscriber'):
            with self.websocket(path, user=make_user('john')) as john, self.websocket(path) as mary:
                john.send(b'\xff')
                john.send('Hello')
                expected = {'author': 'john', 'text': 'Hello'}
                assert mary.receive_json() == expected
                assert john.receive_json() == expected


class DeliveryTests(HowtoTestCase):
    """``explanation/delivery.md``: what other tests do not show."""

    def test_a_message_that_equals_the_last_own_one_is_left_out_whoever_sends_it(self) -> None:
        path = '/ws/news?subscribe-broadcast&publish-broadcast'
        with self.websocket(path) as john, self.websocket(path) as mary:
            john.send('ok')
            assert mary.receive() == 'ok'
            mary.send('ok')
            mary.send('and more')
            assert john.receive() == 'and more'
            john.send('something else')
            mary.receive()
            mary.send('ok')
            assert john.receive() == 'ok'

    def test_a_message_for_two_channels_of_a_websocket_comes_twice(self) -> None:
        path = '/ws/news?subscribe-broadcast&subscribe-user'
        with self.websocket(path, user=make_user('john')) as john:
            RedisPublisher(facility='news', broadcast=True, users=['john']).publish_message('Hi')
            assert john.receive_many(2) == ['Hi', 'Hi']
            john.receive_nothing()

    def test_a_message_that_is_not_kept_leaves_the_kept_one(self) -> None:
        publisher = RedisPublisher(facility='news', broadcast=True)
        publisher.publish_message('kept')
        publisher.publish_message('not kept', expire=0)
        with self.websocket('/ws/news?subscribe-broadcast') as websocket:
            assert websocket.receive() == 'kept'

    def test_groups_are_those_of_now_where_they_have_changed_since_the_login(self) -> None:
        john = make_user('john')
        self.client.force_login(john)
        john.groups.add(Group.objects.create(name='late'))
        with self.websocket('/ws/news?subscribe-group&subscribe-user') as websocket:
            RedisPublisher(facility='news', groups=['late']).publish_message('Hi')
            assert websocket.receive() == 'Hi'


WSGI_OF_EARLIER_VERSIONS = """
import os
import gevent.monkey
import gevent.socket
import redis.connection
gevent.monkey.patch_all()
redis.connection.socket = gevent.socket
os.environ.update(DJANGO_SETTINGS_MODULE='tests.settings')
from ws4redis.uwsgi_runserver import uWSGIWebsocketServer
application = uWSGIWebsocketServer()
"""


OF_0_6 = DOCS / 'coming-from' / 'django-websocket-redis.md'


def wsgi_of(page: Path) -> str:
    (block,) = (b for b in blocks_in(page, 'python') if b.caption.startswith('wsgi'))
    return block.text


@pytest.mark.parametrize('source', [WSGI_OF_EARLIER_VERSIONS, wsgi_of(OF_0_6)])
def test_a_websocket_loop_is_served_by_this_module(
    source: str, redis_server: RedisServer, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """``coming-from/django-websocket-redis.md``."""
    (tmp_path / 'wsgi_websocket.py').write_text(source, encoding='utf-8')
    path = os.pathsep.join(map(str, (tmp_path, ROOT)))
    with (
        UwsgiServer(
            'wsgi_websocket', redis_server=redis_server, env={'PYTHONPATH': path}
        ) as server,
        WebSocketClient(f'ws://{server.host}:{server.port}/ws/news?subscribe-broadcast') as client,
    ):
        redis_client.publish('broadcast:news', 'Hello')
        assert client.receive() == 'Hello'


class MonitoringTests(HowtoTestCase):
    """``monitoring.md``."""

    page = 'monitoring.md'

    def test_the_view_shows_the_numbers_that_the_page_tells_to_watch(self) -> None:
        with self.project(self.page):
            view = importlib.import_module('project.views').websocket_statistics
            with self.websocket('/ws/news?subscribe-broadcast') as websocket:
                # What has been sent a message is open, and counted.
                RedisPublisher(facility='news', broadcast=True).publish_message('Hello')
                websocket.receive()
                shown = json.loads(view(None).content)
        assert shown['open'] == 1
        text = (HOWTO / self.page).read_text(encoding='utf-8')
        watched = re.findall(r'^\| ((?:`[^|]*`,? ?)+)[^|]*\| ', text, re.MULTILINE)
        names = {name for cell in watched for name in re.findall(r'`([a-z_]+)', cell)}
        assert 'redis_connected' in names
        assert names <= shown.keys()


class ReadmeTests(HowtoTestCase):
    """``README.md``: the ten lines."""

    def test_the_view_reaches_the_page(self) -> None:
        view: dict[str, Any] = {}
        for block in blocks_in(ROOT / 'README.md', 'python'):
            exec(block.text, view)
        with self.websocket('/ws/news?subscribe-broadcast') as websocket:
            assert view['greet'](None).status_code == 200
            assert websocket.receive() == 'Hello, everybody'


class SecurityTests(HowtoTestCase):
    """``explanation/security.md``."""

    isolate_redis = False

    def test_the_acl_is_enough_for_ws4redis(self) -> None:
        page = (DOCS / 'explanation' / 'security.md').read_text(encoding='utf-8')
        found = re.search(r'^user (ws4redis .*?)```', page, re.MULTILINE | re.DOTALL)
        assert found
        from django.conf import settings

        administrator = redis.Redis(**settings.WS4REDIS_CONNECTION)
        administrator.execute_command('ACL', 'SETUSER', *shlex.split(found[1]))
        connection = {
            **settings.WS4REDIS_CONNECTION,
            'username': 'ws4redis',
            'password': 'secret',
        }
        path = '/ws/news?subscribe-broadcast&publish-broadcast&echo'
        try:
            with override_settings(
                WS4REDIS_CONNECTION=connection,
                WS4REDIS_PREFIX='site',
                WS4REDIS_SNAPSHOT_INTERVAL=0.1,
            ):
                publisher = RedisPublisher(facility='news', broadcast=True)
                publisher.publish_message('kept')
                assert publisher.fetch_message(None, 'news', 'broadcast') == b'kept'
                with self.websocket(path) as websocket:
                    assert websocket.receive() == 'kept'
                    websocket.send('by a client')
                    assert websocket.receive() == 'by a client'
                    wait_until(get_snapshots)
                with override_settings(WS4REDIS_PREFIX='other'):
                    with pytest.raises(redis.exceptions.NoPermissionError):
                        RedisPublisher(facility='x', broadcast=True).publish_message('no')
        finally:
            administrator.execute_command('ACL', 'DELUSER', 'ws4redis')
            administrator.close()
