"""The fixtures of pytest, in a project of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.programs import RedisServer
from tests.server_process import ROOT
from tests.timeouts import scaled

pytestmark = pytest.mark.slow

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, redis_server: RedisServer) -> Run:
    """Run tests by pytest as a project does, and return what it prints."""

    def run_it(tests: str, *options: str) -> str:
        (tmp_path / 'test_project.py').write_text(tests, encoding='utf-8')
        (tmp_path / 'pytest.ini').write_text(
            '[pytest]\nDJANGO_SETTINGS_MODULE = tests.settings\n', encoding='utf-8'
        )
        plugin = ['-p', 'no:cacheprovider', '-q']
        done = subprocess.run(
            [sys.executable, '-m', 'pytest', *plugin, *options, 'test_project.py'],
            cwd=tmp_path,
            env={
                **os.environ,
                **redis_server.env,
                'PYTHONPATH': str(ROOT),
                'WS4REDIS_TEST_SETTINGS': '{"ROOT_URLCONF": "tests.views.urls"}',
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=scaled(60),
            check=False,
        )
        return done.stdout

    return run_it


def test_what_is_published_stays_in_memory(run: Run) -> None:
    output = run("""
from ws4redis.live import notify, unread_count
from ws4redis.publisher import RedisPublisher

def publish():
    RedisPublisher(facility='orders', groups=['staff']).publish_message('tea')

def test_it_is_seen(ws4redis_outbox):
    publish()
    assert ws4redis_outbox.published('orders', groups=['staff']) == [b'tea']
    notify('mary', 'hello', on_commit=False)
    assert unread_count('mary') == 1

def test_each_test_begins_with_nothing(ws4redis_outbox):
    assert ws4redis_outbox.outbox == []
    assert unread_count('mary') == 0
""")
    assert '2 passed' in output, output


def test_websockets_open_to_the_project(run: Run) -> None:
    output = run("""
import pytest
from django.contrib.auth.models import User
from ws4redis.conf import conf
from ws4redis.exceptions import HandshakeError
from ws4redis.publisher import RedisPublisher

names = []

@pytest.mark.parametrize('number', [1, 2])
def test_messages_pass_through(websocket_client, number):
    path = '/ws/chat?subscribe-broadcast&subscribe-user'
    user = User.objects.create_user('mary')
    with websocket_client(path, user=user) as ws:
        RedisPublisher(facility='chat', users=[user]).publish_message('hello')
        assert ws.receive() == 'hello'
        assert not User.objects.exclude(pk=user.pk).exists()
    assert conf.WS4REDIS_PREFIX not in names
    names.append(conf.WS4REDIS_PREFIX)

def test_views_are_there_as_well(websocket_client):
    with websocket_client('/echo/') as ws:
        ws.send('x')
        assert ws.receive() == 'x'
    with pytest.raises(HandshakeError):
        websocket_client('/nowhere/')

def test_afterwards_the_settings_are_as_before():
    assert conf.WS4REDIS_PREFIX == ''
""")
    assert '4 passed' in output, output


def test_what_cannot_be_combined_is_said(run: Run) -> None:
    output = run("""
def test_both(websocket_client, ws4redis_outbox):
    pass
""")
    assert 'stay in memory and reach no websocket' in output
