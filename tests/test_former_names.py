"""What public code imports from 0.6 works, or is refused by an error that says what to use."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import redis
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from tests.redis_keys import stored_keys
from tests.server_process import ROOT
from tests.timeouts import SERVER_SECONDS
from ws4redis import publisher, settings
from ws4redis.applications.former_hooks import SUCCESSORS
from ws4redis.broker.connections import get_client
from ws4redis.conf import conf
from ws4redis.django_runserver import WebsocketRunServer
from ws4redis.exceptions import (
    FrameTooLargeException,
    HandshakeError,
    SSLRequiredError,
    UpgradeRequiredError,
    WebSocketError,
)
from ws4redis.protocol.handshake import check_upgrade
from ws4redis.publisher import RedisPublisher
from ws4redis.uwsgi_runserver import uWSGIWebsocketServer
from ws4redis.wsgi_server import WebsocketWSGIServer

# Settings


@override_settings(WS4REDIS_EXPIRE=7, WS4REDIS_HEARTBEAT='--beat--')
def test_the_module_of_settings_reads_the_project_s() -> None:
    from ws4redis.settings import WS4REDIS_EXPIRE

    assert WS4REDIS_EXPIRE == 7
    assert settings.WS4REDIS_HEARTBEAT == '--beat--'
    assert settings.WS4REDIS_CONNECTION == conf.WS4REDIS_CONNECTION


def test_all_settings_can_be_imported_by_a_star_and_no_other_name() -> None:
    names: dict[str, Any] = {}
    exec('from ws4redis.settings import *', names)
    assert {'WEBSOCKET_URL', 'WS4REDIS_PREFIX', 'WS4REDIS_SUBSCRIBER'} <= names.keys()
    assert set(dir(settings)) == names.keys() - {'__builtins__'}
    with pytest.raises(AttributeError, match='WS4REDIS_NONSENSE'):
        _ = settings.WS4REDIS_NONSENSE


@override_settings(WS4REDIS_PREFIX=None, WS4REDIS_HEARTBEAT='', WS4REDIS_EXPIRE=-1)
def test_what_0_6_took_as_off_is_off(redis_client: redis.Redis) -> None:
    uWSGIWebsocketServer()
    assert conf.WS4REDIS_HEARTBEAT is None
    store = RedisPublisher(facility='foo', broadcast=True)
    assert store._publishers == {'broadcast:foo'}
    store.publish_message('hi')
    assert not stored_keys(redis_client)


class KeptForAMinute(RedisPublisher):
    """Say so as 0.6 did."""

    _expire = 60


def test_a_store_s_class_may_say_for_how_long_messages_are_kept(redis_client: redis.Redis) -> None:
    publisher = KeptForAMinute(facility='foo', broadcast=True)
    publisher.publish_message('hi')
    assert 50 < redis_client.ttl('broadcast:foo') <= 60
    publisher.publish_message('hi', 30)
    assert 20 < redis_client.ttl('broadcast:foo') <= 30


@pytest.mark.parametrize('expire', [0, -1])
def test_a_message_is_not_kept_when_it_is_said_so(redis_client: redis.Redis, expire: int) -> None:
    RedisPublisher(facility='foo', broadcast=True).publish_message('hi', expire)
    assert not stored_keys(redis_client)


# Names


def test_the_publisher_s_module_has_the_pool_of_connections(redis_client: redis.Redis) -> None:
    assert publisher.redis_connection_pool is get_client().connection_pool
    client = publisher.StrictRedis(connection_pool=publisher.redis_connection_pool)
    assert client.ping()


def test_errors_have_their_old_names_and_may_be_raised_with_a_text_alone() -> None:
    assert issubclass(FrameTooLargeException, WebSocketError)
    assert issubclass(SSLRequiredError, HandshakeError)
    assert (HandshakeError('no').status, HandshakeError('no').body) == (400, 'no')
    assert (UpgradeRequiredError('no').status, UpgradeRequiredError('no').body) == (426, 'no')


def test_another_version_of_the_protocol_is_refused_by_the_old_error() -> None:
    headers = {'upgrade': 'websocket', 'connection': 'Upgrade', 'sec-websocket-version': '8'}
    with pytest.raises(UpgradeRequiredError) as caught:
        check_upgrade('GET', headers)
    assert caught.value.headers == {'Sec-WebSocket-Version': '13'}


def test_the_old_class_of_websockets_says_what_to_use() -> None:
    with pytest.raises(ImportError, match='WebSocketHandler'):
        from ws4redis.websocket import WebSocket  # noqa: F401


# Servers


@pytest.mark.parametrize(
    'server_class', [WebsocketWSGIServer, WebsocketRunServer, uWSGIWebsocketServer]
)
def test_a_server_takes_a_connection_to_the_redis_of_the_settings(server_class: Any) -> None:
    server_class(redis.StrictRedis(**conf.WS4REDIS_CONNECTION))
    server_class(redis_connection=get_client())


@pytest.mark.parametrize('options', [{'unix_socket_path': '/run/other.sock'}, {'db': 5}])
def test_a_connection_to_another_redis_is_refused(options: dict[str, Any]) -> None:
    options = {**conf.WS4REDIS_CONNECTION, **options}
    other = redis.StrictRedis(**options)
    with pytest.raises(ImproperlyConfigured, match=r'WS4REDIS_CONNECTION leads to .*'):
        uWSGIWebsocketServer(other)


@override_settings(WS4REDIS_CONNECTION={'host': '127.0.0.1', 'port': 6380})
def test_an_address_may_be_spelt_in_another_way() -> None:
    uWSGIWebsocketServer(redis.StrictRedis(port=6380))
    for options in ({'port': 6379}, {'port': 6380, 'host': 'other.example'}):
        with pytest.raises(ImproperlyConfigured, match='6380'):
            uWSGIWebsocketServer(redis.StrictRedis(**options))


@pytest.mark.parametrize('name', SUCCESSORS)
def test_a_server_with_something_that_nothing_uses_is_refused_by_name(name: str) -> None:
    members = type('Members', (uWSGIWebsocketServer,), {name: lambda self, request: None})
    with pytest.raises(ImproperlyConfigured, match=rf'^Members\.{name} is not used any more'):
        members()
    with pytest.raises(ImproperlyConfigured, match=rf'\.{name} is not used any more'):
        setattr(uWSGIWebsocketServer(), name, None)


def test_importing_the_old_names_needs_no_settings() -> None:
    modules = 'publisher', 'exceptions', 'wsgi_server', 'websocket', 'django_runserver', 'settings'
    done = subprocess.run(
        [sys.executable, '-c', '\n'.join(f'import ws4redis.{module}' for module in modules)],
        env={'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SERVER_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
