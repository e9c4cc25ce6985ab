"""The echo servers that can be judged, as context managers that yield a URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Final

from tests.programs import RedisServer, RunserverProcess, UwsgiServer

SETTINGS: Final = 'conformance.settings'
VIEW_SETTINGS: Final = 'conformance.view_settings'


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


#: The echo on the loop, and in a view.
TARGETS: Final[dict[str, Callable[[], AbstractContextManager[str]]]] = {
    'uwsgi': partial(_uwsgi, 'conformance.echo', SETTINGS, None),
    'uwsgi-threads': partial(_uwsgi, 'conformance.echo', SETTINGS, 10),
    'runserver': partial(_runserver, SETTINGS),
    'view': partial(_uwsgi, 'conformance.echo_view', VIEW_SETTINGS, None),
    'view-threads': partial(_uwsgi, 'conformance.echo_view', VIEW_SETTINGS, 10),
    'view-runserver': partial(_runserver, VIEW_SETTINGS),
}

DEFAULT_TARGETS: Final = ('uwsgi', 'runserver')
