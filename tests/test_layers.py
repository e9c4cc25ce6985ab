"""The layers of the package, which pyproject.toml lists, and the names that stay."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.settings import BASE_DIR

PUBLIC_NAMES = {
    'ws4redis': ['accept_websocket', 'require_websocket'],
    'ws4redis.context_processors': ['default'],
    'ws4redis.control': ['adisconnect', 'aunsubscribe', 'disconnect', 'unsubscribe'],
    'ws4redis.decorators': ['accept_websocket', 'require_websocket'],
    'ws4redis.conf': ['conf'],
    'ws4redis.django_runserver': ['WebsocketRunServer', 'application'],
    'ws4redis.exceptions': [
        'ConnectionClosed',
        'FrameTooLargeException',
        'HandoverNotSupported',
        'HandshakeError',
        'ProtocolError',
        'SSLRequiredError',
        'UpgradeRequiredError',
        'WebSocketError',
    ],
    'ws4redis.handlers': ['WebSocketHandler'],
    'ws4redis.handshake_policy': ['process_request'],
    'ws4redis.history': ['ahistory', 'aget_position', 'get_position', 'history'],
    'ws4redis.live': [
        'Fragments',
        'Progress',
        'live_id',
        'live_model',
        'mark_read',
        'notify',
        'publish_deleted',
        'publish_saved',
        'unread_count',
        'unread_notifications',
    ],
    'ws4redis.middleware': ['WebSocketMiddleware'],
    'ws4redis.presence': ['Member', 'Presence', 'acounts', 'counts'],
    'ws4redis.publisher': [
        'RedisPublisher',
        'StrictRedis',
        'in_transaction',
        'publication_commands',
        'redis_connection_pool',
    ],
    'ws4redis.settings': ['WEBSOCKET_URL', 'WS4REDIS_CONNECTION', 'WS4REDIS_SUBSCRIBER'],
    'ws4redis.wsgi_server': ['WebsocketWSGIServer'],
    'ws4redis.receivers': ['store_groups_in_session'],
    'ws4redis.redis_store': ['SELF', 'RedisMessage', 'RedisStore'],
    'ws4redis.statistics': ['get_snapshots', 'get_statistics'],
    'ws4redis.subscriber': ['RedisSubscriber'],
    'ws4redis.test': ['WebSocketClient', 'WebSocketTestCase'],
    'ws4redis.tokens': ['connection_token', 'connection_token_view', 'subscription_token'],
    'ws4redis.uwsgi_runserver': [
        'uWSGIBothLoops',
        'uWSGIWebSocketServer',
        'uWSGIWebsocketServer',
    ],
    'ws4redis.view_websocket': ['ViewWebSocket'],
}


def test_each_layer_imports_only_those_below_it() -> None:
    # In a process of its own, since it configures logging.
    command = 'from importlinter.cli import lint_imports_command; lint_imports_command()'
    arguments = [sys.executable, '-c', command, '--no-cache']
    result = subprocess.run(arguments, cwd=BASE_DIR, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def modules_below(folder: Path) -> Iterator[Path]:
    for path, folders, files in os.walk(folder):
        # Another process may be installing these packages.
        folders[:] = [name for name in folders if name != 'node_modules']
        yield from (Path(path, name) for name in files if name.endswith('.py'))


def test_no_module_is_longer_than_500_lines() -> None:
    long = {
        str(path.relative_to(BASE_DIR)): count
        for folder in ('ws4redis', 'tests', 'stress-tests')
        for path in modules_below(BASE_DIR / folder)
        if (count := len(path.read_text(encoding='utf-8').splitlines())) > 500
    }
    assert not long


def test_importing_the_package_alone_imports_no_django() -> None:
    program = 'import sys, ws4redis; assert not {"django", "redis"} & set(sys.modules)'
    subprocess.run([sys.executable, '-c', program], cwd=BASE_DIR, check=True)


@pytest.mark.parametrize('module', PUBLIC_NAMES)
def test_public_names_stay_where_they_are(module: str) -> None:
    imported = importlib.import_module(module)
    assert [name for name in PUBLIC_NAMES[module] if not hasattr(imported, name)] == []
