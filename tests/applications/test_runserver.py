"""Both loops inside Django's development server."""

from __future__ import annotations

import unittest
import urllib.request
from typing import Any

import pytest
import redis
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.servers.basehttp import get_internal_wsgi_application
from django.test import LiveServerTestCase, override_settings

from tests.hub.rig import run_program
from tests.programs import RedisServer, RunserverProcess
from tests.serving import served
from tests.timeouts import wait_until
from tests.websocket_client import RawWebSocket
from ws4redis.applications.runserver import announcement
from ws4redis.django_runserver import application
from ws4redis.handlers import WebSocketHandler


def test_the_settings_name_it() -> None:
    named: object = get_internal_wsgi_application()
    assert named is application


@pytest.mark.parametrize('wrap', [lambda app: app, StaticFilesHandler])
def test_it_serves_websockets_and_views_with_static_files_or_without(
    redis_server: RedisServer, redis_client: redis.Redis, wrap: Any
) -> None:
    with served(wrap(application)) as server:
        url = f'{server.ws_url}/ws/foo?subscribe-broadcast&publish-broadcast&echo'
        with RawWebSocket(url) as websocket:
            with urllib.request.urlopen(f'{server.url}/hello/') as response:
                assert response.read() == b'hello from Django'
            websocket.send('hello')
            assert websocket.receive() == 'hello'
            redis_client.publish('broadcast:foo', 'from elsewhere')
            assert websocket.receive() == 'from elsewhere'


def test_importing_it_does_nothing() -> None:
    run_program("""
        import threading
        import ws4redis.django_runserver
        from django.apps import apps
        from ws4redis.servers.process import existing_hub
        assert not apps.ready
        assert threading.active_count() == 1 and existing_hub() is None
    """)


@pytest.mark.django_db(transaction=True)
def test_a_live_server_test_case_serves_websockets_by_its_own_way(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    from ws4redis.servers.process import drop_hub

    class ServesWebSockets(LiveServerTestCase):
        def test_it(self) -> None:
            self.server_thread.httpd.set_app(application)
            url = self.live_server_url.replace('http', 'ws')
            with RawWebSocket(f'{url}/ws/foo?subscribe-broadcast') as websocket:
                redis_client.publish('broadcast:foo', 'hello')
                assert websocket.receive() == 'hello'

    drop_hub()
    try:
        result = unittest.TestResult()
        unittest.TestSuite([ServesWebSockets('test_it')]).run(result)
        assert result.testsRun == 1
        assert not result.failures + result.errors, result
    finally:
        drop_hub()


@override_settings(
    WEBSOCKET_URL='/sockets',
    WS4REDIS_HANDLERS={'^/echo$': WebSocketHandler},
    DEFAULT_WS_HANDLERS={'default': WebSocketHandler},
)
def test_it_is_said_where_websockets_are_and_in_no_other_command() -> None:
    said = announcement(['manage.py', 'runserver', '8001'])
    assert said == 'Websockets are on (ws4redis): /sockets/, ^/echo$, /socket\n'
    for arguments in (['manage.py', 'migrate'], ['uwsgi'], ['manage.py', 'shell', 'runserver']):
        assert announcement(arguments) == ''


def test_the_console_of_runserver_says_so_at_its_start(redis_server: RedisServer) -> None:
    with RunserverProcess(redis_server=redis_server) as server:
        wait_until(lambda: 'Websockets are on (ws4redis): /ws/' in server.log_text())
