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

pytest_plugins = ['pytester']
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


EMPTY_PROJECT = """
from django.contrib.auth.models import User

from ws4redis.control import disconnect
from ws4redis.history import history
from ws4redis.presence import Presence
from ws4redis.publisher import RedisPublisher


def test_a_history_is_kept(ws4redis_outbox):
    for text in ('one', 'two'):
        RedisPublisher(facility='chat/7', broadcast=True).publish_message(text)
    assert [message.text for message in history('chat/7').messages] == ['one', 'two']


def test_who_is_there_is_what_the_test_says(ws4redis_outbox):
    ws4redis_outbox.join('chat/7', 'mary')
    assert [member.user for member in Presence('chat/7').members()] == ['mary']
    ws4redis_outbox.leave('chat/7', 'mary')
    assert Presence('chat/7').count() == 0


def test_what_ends_for_a_user_is_told(ws4redis_outbox):
    disconnect(user=User(username='mary'))
    (message,) = ws4redis_outbox.told
    assert message.user == 'mary'
"""
EMPTY_SETTINGS = """
SECRET_KEY = 'x'
INSTALLED_APPS = ['django.contrib.auth', 'django.contrib.contenttypes', 'ws4redis']
WS4REDIS_CONNECTION = {'host': '127.0.0.1', 'port': 1}
WS4REDIS_FACILITIES = {'chat/*': {'HISTORY_SIZE': 50, 'PRESENCE': True}}
"""


def test_an_empty_project_needs_no_redis_for_histories_presence_and_identity(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the tests of the package run with is not to reach the project.
    monkeypatch.delenv('DJANGO_SETTINGS_MODULE', raising=False)
    pytester.makeini('[pytest]\nDJANGO_SETTINGS_MODULE = empty_settings\npythonpath = .\n')
    pytester.makepyfile(empty_settings=EMPTY_SETTINGS, test_empty=EMPTY_PROJECT)
    outcome = pytester.runpytest_subprocess('-q', '-p', 'no:cacheprovider', timeout=scaled(60))
    outcome.assert_outcomes(passed=3)
