"""The example project, as its own tests and a newcomer's first commands see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import redis_executable
from tests.timeouts import scaled

EXAMPLES = Path(__file__).resolve().parent.parent / 'examples'


def manage(*arguments: str, env: dict[str, str]) -> str:
    """Run the example's manage.py, from its own directory, and return what it prints."""
    completed = subprocess.run(
        [sys.executable, 'manage.py', *arguments],
        cwd=EXAMPLES,
        env={**environment_without_django(), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=scaled(100),
        check=False,
    )
    assert completed.returncode == 0, completed.stdout
    return completed.stdout


def environment_without_django() -> dict[str, str]:
    """Return our environment without what would lead the example to our own settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith('DJANGO_')}


@pytest.mark.slow
def test_the_examples_own_tests_pass() -> None:
    redis_executable()
    output = manage('test', 'chatserver', '--settings=chatserver.tests.settings', env={})
    assert '\nOK' in output
    assert 'skipped' not in output


def test_the_fixture_loads_into_an_empty_database_and_again(tmp_path: Path) -> None:
    env = {'CHATSERVER_DATABASE': str(tmp_path / 'chat.sqlite3')}
    manage('migrate', '--verbosity=0', env=env)
    for _time in range(2):
        assert 'Installed 4 object(s)' in manage('loaddata', 'data', env=env)
    users = json.loads(manage('dumpdata', 'auth.user', '--natural-foreign', env=env))
    memberships = {user['fields']['username']: user['fields']['groups'] for user in users}
    assert memberships == {'admin': [], 'john': [['chatters']], 'mary': [['chatters']]}


def test_the_example_passes_django_s_checks_and_has_all_migrations(tmp_path: Path) -> None:
    env = {'CHATSERVER_DATABASE': str(tmp_path / 'chat.sqlite3')}
    assert 'no issues' in manage('check', '--fail-level', 'INFO', env=env)
    assert 'No changes' in manage('makemigrations', '--check', '--dry-run', env=env)


@pytest.mark.parametrize(
    ('variables', 'expected'),
    [
        ({}, {}),
        ({'WS4REDIS_HOST': 'redis.example.com'}, {'host': 'redis.example.com'}),
        (
            {'WS4REDIS_PORT': '6380', 'WS4REDIS_DB': '2', 'WS4REDIS_PASSWORD': 's3cret'},
            {'port': 6380, 'db': 2, 'password': 's3cret'},
        ),
        ({'WS4REDIS_UNIX_SOCKET': '/run/redis.sock'}, {'unix_socket_path': '/run/redis.sock'}),
        ({'WS4REDIS_URL': 'rediss://redis/1'}, {'url': 'rediss://redis/1'}),
    ],
)
def test_the_environment_says_where_redis_is(
    variables: dict[str, str], expected: dict[str, object]
) -> None:
    program = 'import chatserver.settings as s, json; print(json.dumps(s.WS4REDIS_CONNECTION))'
    clean = {name: value for name, value in os.environ.items() if not name.startswith('WS4REDIS_')}
    completed = subprocess.run(
        [sys.executable, '-c', program],
        cwd=EXAMPLES,
        env={**clean, **variables},
        capture_output=True,
        text=True,
        timeout=scaled(30),
        check=True,
    )
    assert json.loads(completed.stdout) == expected
