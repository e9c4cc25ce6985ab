"""The WSGI applications for uWSGI."""

from __future__ import annotations

import sys
import urllib.error
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from websockets.sync.client import connect

from tests.hub.rig import run_program
from tests.programs import RedisServer, ServerFailed, UwsgiServer
from tests.timeouts import SOON_SECONDS
from ws4redis.applications import uwsgi as uwsgi_runserver
from ws4redis.applications.wsgi import WebSocketServer
from ws4redis.uwsgi_runserver import uWSGIWebSocketServer


def under_uwsgi(monkeypatch: pytest.MonkeyPatch, **options: object) -> None:
    monkeypatch.setitem(
        sys.modules,
        'uwsgi',
        SimpleNamespace(opt={name.replace('_', '-'): value for name, value in options.items()}),
    )


def test_the_old_spelling_is_the_same_class() -> None:
    assert uwsgi_runserver.uWSGIWebsocketServer is uWSGIWebSocketServer


def test_it_is_a_wsgi_application() -> None:
    server = uWSGIWebSocketServer()
    assert isinstance(server, WebSocketServer)
    answers: list[Any] = []
    environ = {'REQUEST_METHOD': 'GET', 'PATH_INFO': '/ws/x'}
    body = server(environ, lambda status, headers: answers.append(status))  # type: ignore[arg-type]
    assert answers == ['400 Bad Request']
    assert b'must upgrade' in b''.join(body)


@pytest.mark.parametrize('option', ['gevent', 'threads', 'enable_threads'])
def test_greenlets_or_threads_are_enough(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    under_uwsgi(monkeypatch, **{option: b'10'})
    uWSGIWebSocketServer()


def test_without_either_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    under_uwsgi(monkeypatch, master=True)
    with pytest.raises(ImproperlyConfigured, match='--gevent 100'):
        uWSGIWebSocketServer()


def test_options_that_spoil_websockets_are_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    under_uwsgi(monkeypatch, gevent=b'100', max_requests=b'1000')
    uWSGIWebSocketServer()
    assert ['--max-requests' in message for message in caplog.messages] == [True]


@pytest.mark.slow
@pytest.mark.parametrize('app', ['tests.wsgi_both', 'tests.e2e.wsgi_websocket'])
def test_a_router_that_passes_nothing_on_is_refused_at_the_start(
    redis_server: RedisServer, app: str
) -> None:
    with pytest.raises(ServerFailed, match='--http-websockets'):
        UwsgiServer(app, redis_server=redis_server, http='http').start()


@pytest.mark.slow
def test_a_router_that_passes_everything_on_is_fine(redis_server: RedisServer) -> None:
    options = ['--http-raw-body']
    with (
        UwsgiServer(redis_server=redis_server, http='http', options=options) as server,
        connect(f'{server.ws_url}/ws/x?subscribe-broadcast&publish-broadcast&echo') as websocket,
    ):
        websocket.send('hello')
        assert websocket.recv(timeout=SOON_SECONDS) == 'hello'


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_views_use_the_database_under_early_patching_and_late_patching_is_warned_of(
    redis_server: RedisServer, django_user_model: type[User]
) -> None:
    django_user_model.objects.create_user('john')
    with UwsgiServer(redis_server=redis_server, options=['--gevent-early-monkey-patch']) as server:
        assert server.get('/users/') == 'john'
        assert 'uWSGI: ' not in server.log_text()
    with UwsgiServer(redis_server=redis_server, options=['--gevent-monkey-patch']) as server:
        assert 'Use --gevent-early-monkey-patch' in server.log_text()
        since = server.log_position()
        with pytest.raises(urllib.error.HTTPError):
            server.get('/users/')
        # This is what the warning foretells.
        server.wait_for_log('DatabaseWrapper objects created in a thread', since=since)


@override_settings(WS4REDIS_SUBSCRIBER='no.such.Subscriber')
def test_a_wrong_setting_is_named_at_the_start() -> None:
    with pytest.raises(ImproperlyConfigured, match='WS4REDIS_SUBSCRIBER'):
        uWSGIWebSocketServer()


def test_it_sets_django_up_where_nobody_has() -> None:
    run_program("""
        from ws4redis.uwsgi_runserver import uWSGIWebSocketServer
        from django.apps import apps
        assert not apps.ready
        uWSGIWebSocketServer()
        assert apps.ready
        # No thread, and no connection: uWSGI forks after this.
        import threading
        from ws4redis.servers.process import existing_hub
        assert threading.active_count() == 1 and existing_hub() is None
    """)
