"""Proxies set up as the documentation of 0.6 said: they work, or the log says what to add."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from tests.deployment.installation import Installation
from tests.deployment.processes import Apache, IniUwsgi, Nginx
from tests.programs import RedisServer
from tests.timeouts import SOON_SECONDS, scaled

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(scaled(60))]

HOST_FOR_NGINX = 'proxy_set_header Host $host:$server_port;'
HOST_FOR_APACHE = 'ProxyPreserveHost On'


@pytest.fixture
def installation(redis_server: RedisServer) -> Iterator[Installation]:
    with tempfile.TemporaryDirectory(prefix='ws4redis-', ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Installation(Path(name), redis_server)


def edited(path: Path, **replacements: str) -> Path:
    """Return a configuration file after texts in it, which must be there, were replaced."""
    text = path.read_text()
    for old, new in replacements.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


@contextmanager
def nginx_of_06(installation: Installation, *, passes_host_on: bool) -> Iterator[IniUwsgi]:
    """NGINX that has the Upgrade headers and no more, so that it sends ``Host: localhost``."""
    socket = str(installation.directory / 'web.socket')
    uwsgi = IniUwsgi(installation.install('uwsgi_websocket.ini'), installation, socket)
    conf = installation.install('nginx.conf')
    edited(conf, **{'proxy_pass http://chatserver_websocket;': f'proxy_pass http://unix:{socket};'})
    if not passes_host_on:
        edited(conf, **{HOST_FOR_NGINX: ''})
    with uwsgi, Nginx(conf, installation):
        yield uwsgi


@contextmanager
def apache_of_06(installation: Installation, *, passes_host_on: bool) -> Iterator[IniUwsgi]:
    """Apache that takes the prefix away from the path, and sends the address of uWSGI as host."""
    address = ('127.0.0.1', installation.inner_port)
    uwsgi = IniUwsgi(installation.install('uwsgi_websocket_tcp.ini'), installation, address)
    conf = installation.install('apache.conf')
    inner = f'ws://127.0.0.1:{installation.inner_port}/'
    edited(conf, **{f'{inner}ws/': inner})
    if not passes_host_on:
        edited(conf, **{HOST_FOR_APACHE: ''})
    with uwsgi, Apache(conf, installation):
        yield uwsgi


PROXIES = {'nginx': nginx_of_06, 'apache': apache_of_06}
# What the client asks for; the proxy sends the other one.
HOSTS = {'nginx': '127.0.0.1', 'apache': 'localhost'}
ADVICE = {'nginx': 'proxy_set_header Host', 'apache': 'ProxyPreserveHost On'}


def open_websocket(installation: Installation, proxy: str) -> ClientConnection:
    """Open a websocket as a page of the site would."""
    address = f'{HOSTS[proxy]}:{installation.port}'
    return connect(
        f'ws://{address}/ws/foo?subscribe-broadcast',
        origin=Origin(f'http://{address}'),
        open_timeout=SOON_SECONDS,
        close_timeout=SOON_SECONDS,
    )


def refused_with(installation: Installation, proxy: str) -> int:
    with pytest.raises(InvalidStatus) as refused:
        open_websocket(installation, proxy)
    return refused.value.response.status_code


@pytest.mark.parametrize('proxy', PROXIES)
def test_with_the_host_passed_on_it_works(
    installation: Installation, redis_server: RedisServer, proxy: str
) -> None:
    with (
        PROXIES[proxy](installation, passes_host_on=True),
        open_websocket(installation, proxy) as websocket,
        redis_server.client() as client,
    ):
        client.publish('broadcast:foo', 'hello')
        assert websocket.recv(timeout=SOON_SECONDS) == 'hello'


@pytest.mark.parametrize('proxy', PROXIES)
@pytest.mark.parametrize('status', [400, 403])
def test_without_the_host_the_log_says_what_to_add(
    installation: Installation, proxy: str, status: int
) -> None:
    if status == 400:
        installation.env['CHATSERVER_ALLOWED_HOSTS'] = HOSTS[proxy]
    with PROXIES[proxy](installation, passes_host_on=False) as uwsgi:
        since = uwsgi.log_position()
        assert refused_with(installation, proxy) == status
        uwsgi.wait_for_log(ADVICE[proxy].replace('$', r'\$'), since=since)
        output = StringIO()
        url = f'ws://{HOSTS[proxy]}:{installation.port}/ws/'
        with override_settings(ALLOWED_HOSTS=[HOSTS[proxy]]), pytest.raises(CommandError):
            call_command('ws4redis_doctor', url=url, stdout=output)
        assert f'handshake: is answered with {status}' in output.getvalue()
        assert ADVICE[proxy] in output.getvalue()
