"""The kinds of servers that carry websockets, each started with the same project."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.programs import RedisServer, RunserverProcess, UwsgiServer
from tests.standalone.server import StandaloneServer

Server = UwsgiServer | RunserverProcess | StandaloneServer

SETTINGS: dict[str, Any] = {
    'ROOT_URLCONF': 'tests.e2e.urls',
    # Clients of tests that are over answer no close frame when their server stops.
    'WS4REDIS_CLOSE_TIMEOUT': 0.5,
}


def uwsgi(redis_server: RedisServer, settings: Mapping[str, Any], **options: Any) -> UwsgiServer:
    """Return a uWSGI with both loops and gevent, unless ``options`` say otherwise."""
    return UwsgiServer(
        options.pop('app', 'tests.wsgi_both'),
        redis_server=redis_server,
        django_settings=SETTINGS | dict(settings),
        **options,
    )


def runserver(
    redis_server: RedisServer, settings: Mapping[str, Any], **options: Any
) -> RunserverProcess:
    """Return Django's development server."""
    return RunserverProcess(
        redis_server=redis_server, django_settings=SETTINGS | dict(settings), **options
    )


def uwsgi_with_threads(redis_server: RedisServer, settings: Mapping[str, Any]) -> UwsgiServer:
    return uwsgi(redis_server, settings, gevent=None, threads=10)


def uwsgi_behind_its_router(redis_server: RedisServer, settings: Mapping[str, Any]) -> UwsgiServer:
    return uwsgi(redis_server, settings, http='http', options=['--http-websockets'])


def uwsgi_patched_early(redis_server: RedisServer, settings: Mapping[str, Any]) -> UwsgiServer:
    return uwsgi(redis_server, settings, options=['--gevent-early-monkey-patch'])


def uwsgi_of_the_websocket_loop(
    redis_server: RedisServer, settings: Mapping[str, Any]
) -> UwsgiServer:
    return uwsgi(redis_server, settings, app='tests.e2e.wsgi_websocket')


def uwsgi_patched_late(redis_server: RedisServer, settings: Mapping[str, Any]) -> UwsgiServer:
    # It patches after the project was imported. Views that use a database fail then, whether
    # ws4redis is there or not: Django has kept the threads' local storage, not the greenlets'.
    return uwsgi(
        redis_server,
        settings,
        app='tests.e2e.wsgi_websocket',
        options=['--gevent-monkey-patch'],
    )


def run_wsserver(redis_server: RedisServer, settings: Mapping[str, Any]) -> StandaloneServer:
    """Return the standalone server, with the native door."""
    return StandaloneServer(
        redis_server=redis_server,
        django_settings={**SETTINGS, 'WS4REDIS_DRAIN_SECONDS': 0.2, **settings},
    )


#: By their names in the tests' ids.
KINDS: dict[str, Callable[[RedisServer, Mapping[str, Any]], Server]] = {
    'gevent': uwsgi,
    'threads': uwsgi_with_threads,
    'router': uwsgi_behind_its_router,
    'patched-early': uwsgi_patched_early,
    'alone': uwsgi_of_the_websocket_loop,
    'alone-patched': uwsgi_patched_late,
    'alone-native': run_wsserver,
    'runserver': runserver,
}

#: Those that serve Django's views too.
BOTH_LOOPS = [kind for kind in KINDS if not kind.startswith('alone')]
