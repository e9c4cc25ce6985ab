"""The echo servers that can be judged, as context managers that yield a URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.programs import RedisServer, RunserverProcess, UwsgiServer
from tests.standalone.certificates import make_certificate
from tests.standalone.server import StandaloneServer

SETTINGS: Final = 'conformance.settings'
VIEW_SETTINGS: Final = 'conformance.view_settings'
WSSERVER_SETTINGS: Final = 'conformance.wsserver_settings'


@contextmanager
def _uwsgi(app: str, settings: str, threads: int | None) -> Iterator[str]:
    """Run an echo under uWSGI, with threads or, without any, with gevent."""
    gevent = None if threads else 100
    with RedisServer() as redis_server:
        with UwsgiServer(
            app, settings=settings, redis_server=redis_server, gevent=gevent, threads=threads
        ) as server:
            yield f'{server.ws_url}/echo'


@contextmanager
def _runserver(settings: str) -> Iterator[str]:
    """Run an echo in Django's development server."""
    with RedisServer() as redis_server:
        with RunserverProcess(settings=settings, redis_server=redis_server) as server:
            yield f'{server.ws_url}/echo'


@contextmanager
def _wsserver(*, tls: bool = False) -> Iterator[str]:
    """Run an echo in a handler, behind the native door."""
    with RedisServer() as redis_server, TemporaryDirectory() as directory:
        options: list[str] = []
        if tls:
            certfile, keyfile = make_certificate(Path(directory))
            options += ['--certfile', str(certfile), '--keyfile', str(keyfile)]
        with StandaloneServer(
            '--websocket-url', '/echo', *options, redis_server=redis_server,
            settings=WSSERVER_SETTINGS, django_settings={},
        ) as server:  # fmt: skip
            url = server.ws_url.replace('ws:', 'wss:') if tls else server.ws_url
            yield f'{url}/echo'


#: The echo on the loop, and in a view.
TARGETS: Final[dict[str, Callable[[], AbstractContextManager[str]]]] = {
    'uwsgi': partial(_uwsgi, 'conformance.echo', SETTINGS, None),
    'uwsgi-threads': partial(_uwsgi, 'conformance.echo', SETTINGS, 10),
    'runserver': partial(_runserver, SETTINGS),
    'wsserver': _wsserver,
    'wsserver-tls': partial(_wsserver, tls=True),
    'view': partial(_uwsgi, 'conformance.echo_view', VIEW_SETTINGS, None),
    'view-threads': partial(_uwsgi, 'conformance.echo_view', VIEW_SETTINGS, 10),
    'view-runserver': partial(_runserver, VIEW_SETTINGS),
}

DEFAULT_TARGETS: Final = ('uwsgi', 'runserver')
