"""The units of systemd and compose.yaml, which no test can run as they would be run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sysconfig
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.deployment.installation import DEPLOY, EXAMPLES, Installation
from tests.programs import RedisServer, uwsgi_command, wait_for_port
from tests.requirements import require_executable
from tests.server_process import ServerProcess
from tests.timeouts import SERVER_SECONDS, SOON_SECONDS, scaled

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(scaled(180))]

UNITS = sorted((DEPLOY / 'systemd').glob('*.service'))

# Of the Compose Specification, what such a file may want of a service.
SERVICE_KEYS = {
    *('build', 'command', 'depends_on', 'entrypoint', 'env_file', 'environment', 'expose'),
    *('healthcheck', 'image', 'init', 'networks', 'ports', 'restart', 'stop_grace_period'),
    *('stop_signal', 'ulimits', 'user', 'volumes', 'working_dir'),
}
HEALTHCHECK_KEYS = {'test', 'interval', 'timeout', 'retries', 'start_period', 'start_interval'}
CONDITIONS = {'service_started', 'service_healthy', 'service_completed_successfully'}


@pytest.fixture
def installation(redis_server: RedisServer, tmp_path: Path) -> Installation:
    return Installation(tmp_path, redis_server)


# systemd


def verify(unit: Path) -> str:
    """Return what systemd finds wrong with a unit."""
    command: list[str | Path] = [require_executable('systemd-analyze'), 'verify', '--man=no', unit]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SERVER_SECONDS,
        check=False,
    )
    # What is wrong with this machine's own units does not matter here.
    return ''.join(line for line in done.stdout.splitlines(keepends=True) if unit.name in line)


@pytest.mark.parametrize('unit', UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_nothing_wrong_with_a_unit(unit: Path, installation: Installation) -> None:
    assert verify(installation.install(f'systemd/{unit.name}')) == ''


def test_systemd_would_find_what_is_wrong(installation: Installation) -> None:
    unit = installation.install(f'systemd/{UNITS[0].name}')
    text = unit.read_text()
    unit.write_text(text.replace('Restart=', 'Restrat='))
    assert 'Restrat' in verify(unit)
    unit.write_text(re.sub('ExecStart=[^ ]+', 'ExecStart=/no/such/program', text))
    assert '/no/such/program' in verify(unit)


@pytest.mark.parametrize('unit', UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_what_is_there(unit: Path) -> None:
    (command,) = re.findall('^ExecStart=(.+)$', unit.read_text(), flags=re.MULTILINE)
    for ini in re.findall(r'--ini /srv/chatserver/(\S+)', command):
        assert (EXAMPLES / ini).is_file()
    if 'manage.py' in command:
        assert 'WorkingDirectory=/srv/chatserver\n' in unit.read_text()
        assert (EXAMPLES / 'manage.py').is_file()


# compose.yaml


@pytest.fixture(scope='module')
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / 'compose.yaml').read_text())
    return loaded


def test_compose_yaml_has_the_keys_that_compose_knows(compose: dict[str, Any]) -> None:
    assert set(compose) == {'services', 'volumes'}
    for service in compose['services'].values():
        assert set(service) <= SERVICE_KEYS
        assert ('image' in service) != ('build' in service)
        assert set(service.get('healthcheck', {})) <= HEALTHCHECK_KEYS


def test_compose_yaml_names_only_what_there_is(compose: dict[str, Any]) -> None:
    services = compose['services']
    for service in services.values():
        for name, condition in service.get('depends_on', {}).items():
            assert condition['condition'] in CONDITIONS
            assert condition['condition'] != 'service_healthy' or 'healthcheck' in services[name]
        for volume in service.get('volumes', ()):
            assert volume.partition(':')[0] in compose['volumes']
        if 'build' in service:
            context = DEPLOY / service['build']['context']
            assert context.resolve() == EXAMPLES
            assert (context / service['build']['dockerfile']).is_file()
    redis = re.search('@?//([a-z]+):', services['web']['environment']['WS4REDIS_URL'])
    assert redis is not None
    assert redis[1] in services


def test_compose_yaml_publishes_the_port_that_the_image_exposes(compose: dict[str, Any]) -> None:
    (port,) = re.findall(r'^EXPOSE (\d+)$', (DEPLOY / 'Dockerfile').read_text(), re.MULTILINE)
    web = compose['services']['web']
    assert f'--http :{port} ' in web['command']
    assert [published.partition(':')[2] for published in web['ports']] == [port]


class Container(ServerProcess):
    """The command of a service in compose.yaml, in the directory that the image has."""

    name = 'web'

    def __init__(self, command: str, installation: Installation, env: dict[str, str]) -> None:
        super().__init__(env=env, cwd=EXAMPLES)
        program, *arguments = shlex.split(installation.localise(command))
        assert program == 'uwsgi'
        self._command = [*uwsgi_command(), *arguments, '--strict']
        self._port = installation.port

    def command(self) -> Sequence[str]:
        return self._command

    def wait_until_ready(self, since: int) -> None:
        self.wait_for_log(r'WSGI app 0 .* ready in', since=since)
        wait_for_port(('127.0.0.1', self._port))


@pytest.fixture
def container(compose: dict[str, Any], installation: Installation) -> Iterator[Container]:
    """What compose.yaml's services do, one after the other, on this machine."""
    database = installation.env['CHATSERVER_DATABASE']
    services = compose['services']
    here = {
        **services['web']['environment'],
        'CHATSERVER_DATABASE': database,
        'WS4REDIS_URL': installation.env['WS4REDIS_URL'],
        'DJANGO_SETTINGS_MODULE': 'chatserver.settings',
    }
    scripts = sysconfig.get_path('scripts')
    path = f'{scripts}{os.pathsep}{os.environ["PATH"]}'
    subprocess.run(
        shlex.split(services['migrate']['command']),
        cwd=EXAMPLES,
        env={**os.environ, **here, 'PATH': path, 'PYTHONPATH': installation.env['PYTHONPATH']},
        check=True,
        capture_output=True,
        timeout=SERVER_SECONDS,
    )
    with Container(services['web']['command'], installation, here) as running:
        yield running


@pytest.mark.usefixtures('container')
def test_the_commands_of_compose_yaml_serve_the_chats(
    installation: Installation, redis_server: RedisServer
) -> None:
    address = f'localhost:{installation.port}'
    for path, text in {
        '/chat/': f'ws://{address}/ws/',
        '/static/js/ws4redis.js': 'WS4Redis',
    }.items():
        with urllib.request.urlopen(f'http://{address}{path}', timeout=SOON_SECONDS) as response:
            assert text in response.read().decode()
    with (
        connect(
            f'ws://{address}/ws/foo?subscribe-broadcast', origin=Origin(f'http://{address}')
        ) as websocket,
        redis_server.client() as client,
    ):
        client.publish('broadcast:foo', 'hello')
        assert websocket.recv(timeout=SOON_SECONDS) == 'hello'
