from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.test import override_settings

from tests.check_messages import allowed_channels, ids, source_ids
from tests.server_process import ROOT
from tests.timeouts import SERVER_SECONDS
from ws4redis.handlers import WebSocketHandler
from ws4redis.settings.checks import check_settings
from ws4redis.settings.declared import SETTINGS
from ws4redis.subscriber import RedisSubscriber

REFERENCE = ROOT / 'docs' / 'reference' / 'checks.md'


async def asynchronous(*args: object) -> None:
    """Stand for a callback that is awaited."""


def one_argument(argument: object) -> None:
    """Stand for a callback of one argument."""


class Subscriber:
    """Have what a subscriber needs, under the old spelling."""

    subscription_channels = publish_channels = ()

    def __init__(self, connection: object) -> None:
        """Take what a subscriber is made with."""

    def set_pubsub_channels(self, request: object, channels: object) -> None:
        """Have the arguments that are needed."""

    def send_persited_messages(self, websocket: object) -> None:
        """Bear the old name."""

    def publish_message(self, message: object, expire: object = None) -> None:
        """Have one more that is not needed."""

    def get_file_descriptor(self) -> None:
        """Have no argument."""

    parse_response = release = get_file_descriptor


class AsynchronousSubscriber(RedisSubscriber):
    """Override a method by one that would never be awaited."""

    async def set_pubsub_channels(self, request: object, channels: object) -> None:  # type: ignore[override]
        """Allow nothing, if it were awaited."""


class SubscriberWithOtherArguments(RedisSubscriber):
    """Override a method by one that cannot be called."""

    def release(self, how: object) -> None:  # type: ignore[override]
        """Take one too many."""


class Incomplete:
    """Lack what a subscriber or handler needs."""

    on_message = publish_message = allowed_channels


class Handler(WebSocketHandler):
    """Have what a handler needs, ``on_close`` as old ones do."""

    def on_close(self) -> None:  # type: ignore[override]
        """Take no code."""


class AsynchronousHandler(WebSocketHandler):
    """Refuse everybody, if it were awaited."""

    async def on_connect(self) -> None:  # type: ignore[override]
        """Be called, never awaited."""


class HandlerWithOtherArguments(WebSocketHandler):
    """Override a method by one that cannot be called."""

    @staticmethod
    def on_message() -> None:  # type: ignore[override]
        """Lack the message."""


# The documentation


def test_every_id_is_documented_and_nothing_else() -> None:
    documented = re.findall(r'^\| `ws4redis\.([EW]\d+)` \|', REFERENCE.read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(source_ids())


def test_every_setting_has_an_id_of_its_own_and_a_hint() -> None:
    assert len({setting.id for setting in SETTINGS.values()}) == len(SETTINGS)
    assert all(setting.hint for setting in SETTINGS.values())


# Errors

WRONG: list[tuple[str, str, Any]] = [
    ('E071', 'WS4REDIS_ON_COMMIT', 1),
    ('E085', 'WS4REDIS_CLIENT_URL', ''),
    ('E085', 'WS4REDIS_CLIENT_URL', '//host/path'),
    ('E086', 'WS4REDIS_CLIENT_ANONYMOUS', 1),
    ('E087', 'WS4REDIS_CLIENT_CHANNELS', 'user:inbox'),
    ('E088', 'WS4REDIS_RPC', ['add']),
    ('E088', 'WS4REDIS_RPC', {1: 'tests.clients.project.add'}),
    ('E088', 'WS4REDIS_RPC', {'add': 'tests.nowhere.add'}),
    ('E088', 'WS4REDIS_RPC', {'add': 'tests.clients.project.only_lobby'}),
    ('E089', 'WS4REDIS_RPC_TIMEOUT', 0),
    ('E090', 'WS4REDIS_MAX_CHANNELS_PER_CONNECTION', 0),
    ('E091', 'WS4REDIS_MAX_CHANNEL_NAME_BYTES', 0),
    ('E092', 'WS4REDIS_MAX_COMMANDS_PER_SECOND', 0),
    ('E082', 'WS4REDIS_MAX_WAITING_HANDSHAKES', 0),
    ('E081', 'WS4REDIS_TRUSTED_PROXIES', '10.0.0.1'),
    ('E081', 'WS4REDIS_TRUSTED_PROXIES', ['10.0.0.1/8']),
    ('E081', 'WS4REDIS_TRUSTED_PROXIES', [None]),
    ('E080', 'WS4REDIS_NOTIFICATION_STORE', 'tests.nowhere.Store'),
    ('E080', 'WS4REDIS_NOTIFICATION_STORE', 'tests.test_checks.allowed_channels'),
    ('E080', 'WS4REDIS_NOTIFICATION_STORE', dict),
    ('E083', 'WS4REDIS_SNAPSHOT_INTERVAL', 0),
    ('E083', 'WS4REDIS_SNAPSHOT_INTERVAL', 'often'),
    ('E084', 'WS4REDIS_METRICS_TOKEN', 'short'),
    ('E084', 'WS4REDIS_METRICS_TOKEN', 7),
    ('E072', 'WS4REDIS_REVALIDATE_SECONDS', -1),
    ('E073', 'WS4REDIS_TOKEN_KEYS', []),
    ('E074', 'WS4REDIS_API_KEY', 'short'),
    ('E073', 'WS4REDIS_TOKEN_KEYS', ''),
    ('E073', 'WS4REDIS_TOKEN_KEYS', ['key', 7]),
    ('E045', 'WS4REDIS_FACILITIES', {'chat/*': {'HISTORY': 100}}),
    ('E001', 'WEBSOCKET_URL', 'ws/'),
    ('E001', 'WEBSOCKET_URL', None),
    ('E001', 'WEBSOCKET_URL', ''),
    ('E001', 'WEBSOCKET_URL', '//ws/'),
    ('E001', 'WEBSOCKET_URL', '/ws/?x'),
    ('E001', 'WEBSOCKET_URL', '/w s/'),
    ('E002', 'WS4REDIS_CONNECTION', 'redis://localhost'),
    ('E002', 'WS4REDIS_CONNECTION', None),
    ('E002', 'WS4REDIS_CONNECTION', {'hots': 'localhost'}),
    ('E002', 'WS4REDIS_CONNECTION', {'host': None}),
    ('E002', 'WS4REDIS_CONNECTION', {'port': 'redis'}),
    ('E002', 'WS4REDIS_CONNECTION', {'port': 70000}),
    ('E002', 'WS4REDIS_CONNECTION', {'db': -1}),
    ('E002', 'WS4REDIS_CONNECTION', {'password': 1234}),
    ('E002', 'WS4REDIS_CONNECTION', {'username': 1}),
    ('E002', 'WS4REDIS_CONNECTION', {'socket_timeout': '5'}),
    ('E002', 'WS4REDIS_CONNECTION', {'decode_responses': True}),
    ('E002', 'WS4REDIS_CONNECTION', {'url': 'http://localhost'}),
    ('E002', 'WS4REDIS_CONNECTION', {'url': 'redis://localhost', 'port': 1}),
    ('E002', 'WS4REDIS_CONNECTION', {'ssl_ca_certs': 'ca.pem'}),
    ('E002', 'WS4REDIS_CONNECTION', {'ssl': True, 'ssl_cert_reqs': 'perhaps'}),
    ('E003', 'WS4REDIS_EXPIRE', '3600'),
    ('E003', 'WS4REDIS_EXPIRE', 1.5),
    ('E003', 'WS4REDIS_EXPIRE', True),
    ('E004', 'WS4REDIS_PREFIX', 7),
    ('E005', 'WS4REDIS_SUBSCRIBER', None),
    ('E005', 'WS4REDIS_SUBSCRIBER', 'tests.nowhere.Subscriber'),
    ('E005', 'WS4REDIS_SUBSCRIBER', 'tests.test_checks.Incomplete'),
    ('E005', 'WS4REDIS_SUBSCRIBER', 'tests.test_checks.allowed_channels'),
    ('E006', 'WS4REDIS_ALLOWED_CHANNELS', 'tests.nowhere.allowed'),
    ('E005', 'WS4REDIS_SUBSCRIBER', AsynchronousSubscriber),
    ('E005', 'WS4REDIS_SUBSCRIBER', SubscriberWithOtherArguments),
    ('E006', 'WS4REDIS_ALLOWED_CHANNELS', ['subscribe-broadcast']),
    ('E006', 'WS4REDIS_ALLOWED_CHANNELS', one_argument),
    ('E007', 'WS4REDIS_PROCESS_REQUEST', 'tests.test_checks.missing'),
    ('E007', 'WS4REDIS_PROCESS_REQUEST', 7),
    ('E007', 'WS4REDIS_PROCESS_REQUEST', allowed_channels),
    ('E008', 'WS4REDIS_HEARTBEAT', b'--heartbeat--'),
    ('E009', 'WS4REDIS_SUBPROTOCOLS', 'chat'),
    ('E009', 'WS4REDIS_SUBPROTOCOLS', ['chat v1']),
    ('E009', 'WS4REDIS_SUBPROTOCOLS', ['chat', 'chat']),
    ('E009', 'WS4REDIS_SUBPROTOCOLS', [None]),
    ('E010', 'WS4REDIS_COMPRESSION', 'yes'),
    ('E010', 'WS4REDIS_COMPRESSION', {'level': 12}),
    ('E010', 'WS4REDIS_COMPRESSION', {'size': 12}),
    ('E011', 'WS4REDIS_MAX_MESSAGE_SIZE', 0),
    ('E011', 'WS4REDIS_MAX_MESSAGE_SIZE', '1MB'),
    ('E011', 'WS4REDIS_MAX_MESSAGE_SIZE', None),
    ('E012', 'WS4REDIS_REDIS_TIMEOUT', 0),
    ('E012', 'WS4REDIS_REDIS_TIMEOUT', float('nan')),
    ('E013', 'WS4REDIS_MAX_QUEUE_BYTES', 1.5),
    ('E046', 'WS4REDIS_MAX_TOTAL_QUEUE_BYTES', 0),
    ('E046', 'WS4REDIS_MAX_TOTAL_QUEUE_BYTES', None),
    ('E047', 'WS4REDIS_TAIL_BYTES', 0),
    ('E014', 'WS4REDIS_PING_INTERVAL', -20),
    ('E014', 'WS4REDIS_PING_INTERVAL', '20'),
    ('E015', 'WS4REDIS_PING_TIMEOUT', None),
    ('E016', 'WS4REDIS_CLOSE_TIMEOUT', float('inf')),
    ('E017', 'WS4REDIS_HANDSHAKE_TIMEOUT', -1),
    ('E050', 'WS4REDIS_MAX_KEPT_BYTES', 1.5),
    ('E018', 'WS4REDIS_MAX_MESSAGES_PER_SECOND', 0),
    ('E040', 'WS4REDIS_MAX_BYTES_PER_SECOND', 0),
    ('E041', 'WS4REDIS_MAX_PINGS_PER_SECOND', True),
    ('E019', 'WS4REDIS_MAX_CONNECTIONS', 0),
    ('E019', 'WS4REDIS_MAX_CONNECTIONS', 10.5),
    ('E020', 'WS4REDIS_MAX_CONNECTIONS_PER_USER', '5'),
    ('E021', 'WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS', True),
    ('E022', 'WS4REDIS_CLIENT_ADDRESS_HEADER', 'X Real IP'),
    ('E022', 'WS4REDIS_CLIENT_ADDRESS_HEADER', True),
    ('E023', 'WS4REDIS_ALLOWED_ORIGINS', 'https://example.com'),
    ('E023', 'WS4REDIS_ALLOWED_ORIGINS', ['example.com']),
    ('E023', 'WS4REDIS_ALLOWED_ORIGINS', ['https://example.com/path']),
    ('E023', 'WS4REDIS_ALLOWED_ORIGINS', ['http://*']),
    ('E023', 'WS4REDIS_ALLOWED_ORIGINS', ['https://*example.com']),
    ('E023', 'WS4REDIS_ALLOWED_ORIGINS', ['https://']),
    ('E023', 'WS4REDIS_ALLOWED_ORIGINS', ['wss://example.com']),
    ('E023', 'WS4REDIS_ALLOWED_ORIGINS', ['https://example.com\n']),
    ('E024', 'WS4REDIS_DRAIN_SECONDS', None),
    ('E025', 'WS4REDIS_STATISTICS_INTERVAL', 0),
    ('E026', 'WS4REDIS_WORKER_THREADS', 0),
    ('E027', 'WS4REDIS_HANDLERS', ['tests.test_checks.Handler']),
    ('E027', 'WS4REDIS_HANDLERS', {'(': 'tests.test_checks.Handler'}),
    ('E027', 'WS4REDIS_HANDLERS', {7: 'tests.test_checks.Handler'}),
    ('E027', 'WS4REDIS_HANDLERS', {'^/x': 'tests.nowhere.Handler'}),
    ('E027', 'WS4REDIS_HANDLERS', {'^/x': 'tests.test_checks.Incomplete'}),
    ('E027', 'WS4REDIS_HANDLERS', {'^/x': 'tests.test_checks.allowed_channels'}),
    ('E027', 'WS4REDIS_HANDLERS', {'^/x': AsynchronousHandler}),
    ('E027', 'WS4REDIS_HANDLERS', {'^/x': HandlerWithOtherArguments}),
    ('E027', 'WS4REDIS_HANDLERS', {'^/x': {'chat': Handler}}),
    ('E027', 'WS4REDIS_HANDLERS', {'^/x': {'default': 'tests.nowhere.Handler'}}),
    ('E028', 'DEFAULT_WS_HANDLERS', None),
    ('E028', 'DEFAULT_WS_HANDLERS', {'chat': 'tests.test_checks.Handler'}),
    ('E028', 'DEFAULT_WS_HANDLERS', {'default': 'tests.nowhere.Handler'}),
    ('E028', 'DEFAULT_WS_HANDLERS', {'default': 'tests.test_checks.Incomplete'}),
    ('E028', 'DEFAULT_WS_HANDLERS', {'default': Handler, 'chat': Subscriber}),
    ('E028', 'DEFAULT_WS_HANDLERS', {'default': 'tests.test_checks.Handler', 7: Handler}),
    ('E029', 'WEBSOCKET_ACCEPT_ALL', 'no'),
]


@pytest.mark.parametrize(('number', 'setting', 'value'), WRONG)
def test_a_wrong_setting_is_an_error_that_names_it_and_says_what_to_do(
    number: str, setting: str, value: object
) -> None:
    with override_settings(**{setting: value}):
        (error,) = check_settings()
    assert error.id == f'ws4redis.{number}'
    assert error.is_serious()
    assert error.msg.startswith(f'{setting} ')
    assert error.msg.endswith('.')
    assert '..' not in error.msg.replace('...', '')
    assert error.hint


def test_every_error_of_a_setting_is_tried() -> None:
    assert {number for number, _, _ in WRONG} == {setting.id[-4:] for setting in SETTINGS.values()}


RIGHT: list[tuple[str, Any]] = [
    ('WEBSOCKET_URL', '/'),
    ('WEBSOCKET_URL', '/ws'),
    ('WS4REDIS_CONNECTION', {}),
    ('WS4REDIS_CONNECTION', {'host': '10.0.0.1', 'port': '6380', 'db': '3', 'password': b'x'}),
    ('WS4REDIS_CONNECTION', {'unix_socket_path': '/run/redis.sock', 'username': 'ws'}),
    ('WS4REDIS_CONNECTION', {'unix_socket_path': Path('/run/redis.sock')}),
    ('WS4REDIS_CONNECTION', {'url': 'rediss://:pw@redis.example.com/1?ssl_cert_reqs=required'}),
    ('WS4REDIS_CONNECTION', {'url': 'unix:///run/redis.sock?db=2'}),
    ('WS4REDIS_CONNECTION', {'ssl': True, 'ssl_ca_certs': '/etc/ca.pem'}),
    ('WS4REDIS_CONNECTION', {'ssl': False, 'ssl_ca_certs': '/etc/ca.pem'}),
    ('WS4REDIS_CONNECTION', {'socket_timeout': None, 'max_connections': 50}),
    ('WS4REDIS_EXPIRE', None),
    ('WS4REDIS_EXPIRE', 0),
    ('WS4REDIS_EXPIRE', -1),
    ('WS4REDIS_PREFIX', None),
    ('WS4REDIS_HEARTBEAT', ''),
    ('WS4REDIS_SUBSCRIBER', 'tests.test_checks.Subscriber'),
    ('WS4REDIS_SUBSCRIBER', Subscriber),
    ('WS4REDIS_ALLOWED_CHANNELS', allowed_channels),
    ('WS4REDIS_ALLOWED_CHANNELS', 'tests.test_checks.allowed_channels'),
    ('WS4REDIS_PROCESS_REQUEST', None),
    ('WS4REDIS_PROCESS_REQUEST', 'tests.test_checks.asynchronous'),
    ('WS4REDIS_PROCESS_REQUEST', functools.partial(allowed_channels, channels=[])),
    ('WS4REDIS_HEARTBEAT', '--heartbeat--'),
    ('WS4REDIS_SUBPROTOCOLS', ['chat.v1', 'chat.v2']),
    ('WS4REDIS_SUBPROTOCOLS', None),
    ('WS4REDIS_SUBPROTOCOLS', ()),
    ('WS4REDIS_COMPRESSION', False),
    ('WS4REDIS_COMPRESSION', {'minimum_size': 100, 'level': 1}),
    ('WS4REDIS_PING_INTERVAL', None),
    ('WS4REDIS_PING_INTERVAL', 0),
    ('WS4REDIS_PING_TIMEOUT', 0.5),
    ('WS4REDIS_MAX_MESSAGES_PER_SECOND', 0.5),
    ('WS4REDIS_MAX_CONNECTIONS', 5),
    ('WS4REDIS_CLIENT_ADDRESS_HEADER', 'X-Forwarded-For'),
    ('WS4REDIS_ALLOWED_ORIGINS', ['*']),
    ('WS4REDIS_ALLOWED_ORIGINS', ('https://example.com:8443', 'https://*.example.org')),
    ('WS4REDIS_ALLOWED_ORIGINS', ['http://[::1]:8000', 'capacitor://localhost', 'file://']),
    ('WS4REDIS_DRAIN_SECONDS', 0),
    ('WS4REDIS_STATISTICS_INTERVAL', 60),
    ('WS4REDIS_HANDLERS', {'^/echo/(?P<room>.*)$': 'tests.test_checks.Handler'}),
    ('WS4REDIS_HANDLERS', {'^/(?P<namespace>.*)$': {'default': Handler, 'chat': Handler}}),
    ('DEFAULT_WS_HANDLERS', {'default': Handler, 'chat': 'tests.test_checks.Handler'}),
    ('WEBSOCKET_ACCEPT_ALL', True),
]


@pytest.mark.parametrize(('setting', 'value'), RIGHT)
def test_a_right_setting_passes(setting: str, value: object) -> None:
    with override_settings(**{setting: value}):
        assert check_settings() == []


@pytest.mark.parametrize(
    'connection',
    [
        {'url': 'redis://user:geheim/1@localhost'},
        {'url': 'geheim://localhost'},
        {'host': ['geheim']},
        {'password': ['geheim']},
    ],
)
def test_no_error_shows_the_password(connection: dict[str, Any]) -> None:
    with override_settings(WS4REDIS_CONNECTION=connection):
        (error,) = check_settings()
    assert 'geheim' not in error.msg


def test_a_machine_without_hiredis_is_told_so() -> None:
    script = """
import sys
sys.modules['hiredis'] = None
import django
django.setup()
from ws4redis.settings.checks import validate_settings
validate_settings()
"""
    done = subprocess.run(
        [sys.executable, '-c', script],
        env={'DJANGO_SETTINGS_MODULE': 'tests.settings', 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SERVER_SECONDS,
        check=False,
    )
    assert 'ImproperlyConfigured: hiredis is not installed' in done.stderr
    assert 'ws4redis.E030' in done.stderr


# Warnings of any check


@override_settings(WS4REDIS_HEARTBEATS='x', WS4REDIS_EXPIRES=1)
def test_settings_that_look_like_ours_and_are_not_are_warned_of() -> None:
    messages = check_settings()
    assert ids(messages) == ['ws4redis.W101', 'ws4redis.W101']
    assert 'WS4REDIS_HEARTBEATS' in messages[1].msg
    assert not any(message.is_serious() for message in messages)


@override_settings(WS4REDIS_MAX_QUEUE_BYTES=1000, WS4REDIS_MAX_MESSAGE_SIZE=1001)
def test_a_queue_smaller_than_a_message_is_warned_of() -> None:
    assert ids(check_settings()) == ['ws4redis.W102']


@override_settings(WS4REDIS_MAX_TOTAL_QUEUE_BYTES=1024 * 1024 - 1)
def test_a_bound_of_all_queues_below_that_of_one_is_warned_of() -> None:
    assert ids(check_settings()) == ['ws4redis.W104']


# Within Django


@override_settings(WS4REDIS_EXPIRE='x')
def test_manage_py_check_finds_errors() -> None:
    assert 'ws4redis.E003' in ids(run_checks())
