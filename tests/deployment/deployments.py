"""The deployments that the documentation shows, each as one thing to start and to use."""

from __future__ import annotations

import json
import ssl
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from tests.deployment.installation import Installation
from tests.deployment.processes import Apache, Gunicorn, IniUwsgi, Nginx, RunWsserver, UwsgiEmperor
from tests.event_stream_client import EventStreamClient
from tests.programs import RedisServer
from tests.timeouts import SOON_SECONDS


@dataclass
class Deployment:
    """A running deployment: use it as a browser would."""

    installation: Installation
    reload: Callable[[], None]
    is_encrypted: bool = False
    # uWSGI kills its own router before the workers have said why they close.
    passes_the_farewell_on: bool = True

    @property
    def address(self) -> str:
        return f'localhost:{self.installation.port}'

    def _tls(self) -> ssl.SSLContext | None:
        if not self.is_encrypted:
            return None
        return ssl.create_default_context(cafile=str(self.installation.certificate))

    def get(self, path: str) -> str:
        """Return the body of a page."""
        url = f'http{"s" * self.is_encrypted}://{self.address}{path}'
        with urllib.request.urlopen(url, timeout=SOON_SECONDS, context=self._tls()) as response:
            body: bytes = response.read()
        return body.decode()

    def post(self, path: str, content: object) -> int:
        """Send JSON as a page of this site would, and return the status."""
        site = f'http{"s" * self.is_encrypted}://{self.address}'
        request = urllib.request.Request(
            site + path,
            json.dumps(content).encode(),
            {'Content-Type': 'application/json', 'Origin': site},
        )
        with urllib.request.urlopen(request, timeout=SOON_SECONDS, context=self._tls()) as answer:
            status: int = answer.status
        return status

    def event_stream(self, target: str) -> EventStreamClient:
        """Open an event stream as a page of this site would, whose network blocks websockets."""
        return EventStreamClient(
            f'http{"s" * self.is_encrypted}://{self.address}/ws/{target}',
            ssl_context=self._tls(),
            headers={'Accept-Encoding': 'gzip, deflate'},
        )

    def websocket(self, facility: str, options: str = 'subscribe-broadcast') -> ClientConnection:
        """Open a websocket as a page of this site would."""
        return connect(
            f'ws{"s" * self.is_encrypted}://{self.address}/ws/{facility}?{options}',
            origin=Origin(f'http{"s" * self.is_encrypted}://{self.address}'),
            ssl=self._tls(),
            open_timeout=SOON_SECONDS,
            close_timeout=SOON_SECONDS,
            # The server's pings are to keep it open, not the client's.
            ping_interval=None,
        )


@contextmanager
def _installed(
    redis_server: RedisServer, *, behind_tls: bool = False
) -> Iterator[tuple[Installation, ExitStack]]:
    with tempfile.TemporaryDirectory(prefix='ws4redis-', ignore_cleanup_errors=True) as name:
        directory = Path(name)
        # Proxies run as other users.
        directory.chmod(0o755)
        installation = Installation(directory, redis_server, behind_tls=behind_tls)
        installation.prepare()
        with ExitStack() as servers:
            yield installation, servers


def _django(installation: Installation) -> IniUwsgi:
    socket = str(installation.directory / 'django.socket')
    return IniUwsgi(installation.install('uwsgi_django.ini'), installation, socket)


def _websockets(installation: Installation, number: str = '') -> IniUwsgi:
    socket = str(installation.directory / f'web{number}.socket')
    ini = installation.install(f'uwsgi_websocket{number}.ini')
    return IniUwsgi(ini, installation, socket)


@contextmanager
def uwsgi_alone(redis_server: RedisServer) -> Iterator[Deployment]:
    """One uWSGI for both loops."""
    with _installed(redis_server) as (installation, servers):
        ini = installation.install('uwsgi.ini')
        uwsgi = IniUwsgi(ini, installation, ('127.0.0.1', installation.port))
        servers.enter_context(uwsgi)
        yield Deployment(installation, uwsgi.reload, passes_the_farewell_on=False)


@contextmanager
def nginx(redis_server: RedisServer) -> Iterator[Deployment]:
    """NGINX in front of two uWSGIs on Unix sockets."""
    with _installed(redis_server) as (installation, servers):
        servers.enter_context(_django(installation))
        websockets = servers.enter_context(_websockets(installation))
        servers.enter_context(Nginx(installation.install('nginx.conf'), installation))
        yield Deployment(installation, websockets.reload)


@contextmanager
def nginx_tls(redis_server: RedisServer) -> Iterator[Deployment]:
    """NGINX with TLS."""
    with _installed(redis_server, behind_tls=True) as (installation, servers):
        installation.make_certificate()
        servers.enter_context(_django(installation))
        websockets = servers.enter_context(_websockets(installation))
        servers.enter_context(Nginx(installation.install('nginx_tls.conf'), installation))
        yield Deployment(installation, websockets.reload, is_encrypted=True)


@contextmanager
def nginx_two(redis_server: RedisServer) -> Iterator[Deployment]:
    """NGINX in front of two websocket processes on one Redis."""
    with _installed(redis_server) as (installation, servers):
        servers.enter_context(_django(installation))
        first = servers.enter_context(_websockets(installation))
        second = servers.enter_context(_websockets(installation, '2'))
        servers.enter_context(Nginx(installation.install('nginx_two.conf'), installation))

        def reload() -> None:
            first.reload()
            second.reload()

        yield Deployment(installation, reload)


@contextmanager
def nginx_wsserver(redis_server: RedisServer) -> Iterator[Deployment]:
    """NGINX in front of gunicorn and run_wsserver."""
    with _installed(redis_server) as (installation, servers):
        servers.enter_context(Gunicorn(installation))
        websockets = servers.enter_context(RunWsserver(installation))
        servers.enter_context(Nginx(installation.install('nginx_wsserver.conf'), installation))
        yield Deployment(installation, websockets.reload)


@contextmanager
def apache(redis_server: RedisServer) -> Iterator[Deployment]:
    """Apache 2.4 in front of two uWSGIs."""
    with _installed(redis_server) as (installation, servers):
        servers.enter_context(_django(installation))
        ini = installation.install('uwsgi_websocket_tcp.ini')
        address = ('127.0.0.1', installation.inner_port)
        websockets = servers.enter_context(IniUwsgi(ini, installation, address))
        servers.enter_context(Apache(installation.install('apache.conf'), installation))
        yield Deployment(installation, websockets.reload)


@contextmanager
def emperor(redis_server: RedisServer) -> Iterator[Deployment]:
    """UWSGI's emperor with internal routing."""
    with _installed(redis_server) as (installation, servers):
        for vassal in ('runserver', 'wsserver'):
            installation.install(f'emperor/vassals/{vassal}.ini')
        ini = installation.install('emperor/emperor.ini')
        uwsgi = servers.enter_context(UwsgiEmperor(ini, installation))
        yield Deployment(installation, uwsgi.reload)


DEPLOYMENTS = {
    'uwsgi-alone': uwsgi_alone,
    'nginx': nginx,
    'nginx-tls': nginx_tls,
    'nginx-two': nginx_two,
    'nginx-wsserver': nginx_wsserver,
    'apache': apache,
    'emperor': emperor,
}
