"""Stop and reload: every websocket gets its messages and a close frame, then the process ends."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.faults.observed import ObservedServer
from tests.programs import RedisServer, RunserverProcess, UwsgiServer
from tests.scratch import scratch_directory
from tests.timeouts import SERVER_SECONDS, SOON_SECONDS, scaled, wait_until
from tests.websocket_client import (
    CLOSE,
    HandshakeRefused,
    RawWebSocket,
    WebSocketCrowd,
)

MODES: dict[str, dict[str, Any]] = {
    'gevent': {'gevent': 100},
    'threads': {'gevent': None, 'threads': 4},
    'one thread': {'gevent': None},
}
DRAIN_SECONDS = 0.5
SETTLE_SECONDS = scaled(0.5)


@pytest.fixture(params=MODES, ids=list(MODES))
def mode(request: pytest.FixtureRequest) -> dict[str, Any]:
    options: dict[str, Any] = MODES[request.param]
    return options


@contextmanager
def uwsgi(redis_server: RedisServer, mode: dict[str, Any], **options: Any) -> Iterator[UwsgiServer]:
    settings = {'WS4REDIS_DRAIN_SECONDS': DRAIN_SECONDS, **options.pop('django_settings', {})}
    server = UwsgiServer(redis_server=redis_server, django_settings=settings, **mode, **options)
    with server:
        yield server
        # uWSGI loses a signal that comes while its master, just (re)started, sets up its handlers.
        if server.is_running:
            with suppress(OSError):
                server.get('/hello/')
            time.sleep(SETTLE_SECONDS)


def crowd(
    server: UwsgiServer | RunserverProcess, size: int = 30, *, answers_close: bool = True
) -> WebSocketCrowd:
    urls = [f'{server.ws_url}/ws/foo?subscribe-broadcast'] * size
    return WebSocketCrowd(urls, answers_close=answers_close)


def codes(websockets: WebSocketCrowd) -> set[int]:
    """Return the close codes that websockets got; each has to get one."""
    return {end[0] for end in websockets.receive_close() if end is not None}


def test_a_stop_closes_websockets_with_1001_and_a_reload_with_1012(
    redis_server: RedisServer, mode: dict[str, Any]
) -> None:
    with uwsgi(redis_server, mode) as server:
        with crowd(server) as websockets:
            since = server.log_position()
            server.signal(signal.SIGHUP)
            assert codes(websockets) == {1012}
            server.wait_until_ready(since)
        with crowd(server) as websockets:
            # uWSGI skips its hooks in a worker that is busy.
            server.wait_until_idle()
            server.signal(signal.SIGTERM)
            assert codes(websockets) == {1001}
            # Well inside of uWSGI's mercy of 60 seconds.
            assert server.wait(timeout=scaled(10)) == 0


def test_a_reload_by_a_touched_file_closes_websockets_with_1012(
    redis_server: RedisServer, mode: dict[str, Any]
) -> None:
    touched = scratch_directory() / 'touched'
    touched.touch()
    with uwsgi(redis_server, mode, options=['--touch-reload', str(touched)]) as server:
        with crowd(server) as websockets:
            # uWSGI looks at its time, in seconds.
            os.utime(touched, (time.time() + 5, time.time() + 5))
            assert codes(websockets) == {1012}


def test_behind_uwsgis_own_router_reloading_the_workers_alone_closes_with_1012(
    redis_server: RedisServer,
) -> None:
    touched = scratch_directory() / 'touched'
    touched.touch()
    options = ['--http-websockets', '--touch-workers-reload', str(touched)]
    with uwsgi(redis_server, MODES['gevent'], http='http', options=options) as server:
        with crowd(server) as websockets:
            os.utime(touched, (time.time() + 5, time.time() + 5))
            assert codes(websockets) == {1012}


def test_behind_uwsgis_own_router_a_stop_by_the_fifo_closes_websockets(
    redis_server: RedisServer,
) -> None:
    fifo = scratch_directory() / 'fifo'
    options = ['--http-websockets', '--master-fifo', str(fifo)]
    with uwsgi(redis_server, MODES['gevent'], http='http', options=options) as server:
        with crowd(server) as websockets:
            fifo.write_text('q')
            assert codes(websockets) == {1012}
            assert server.wait(timeout=scaled(10)) == 0


def test_chain_reloading_closes_the_websockets_of_one_worker_after_the_other(
    redis_server: RedisServer,
) -> None:
    touched = scratch_directory() / 'touched'
    touched.touch()
    options = ['--touch-chain-reload', str(touched), '--lazy-apps']
    with uwsgi(redis_server, MODES['gevent'], workers=2, options=options) as server:
        with crowd(server, 40) as websockets:
            os.utime(touched, (time.time() + 5, time.time() + 5))
            assert codes(websockets) == {1012}
        # A worker that has just begun misses a stop, and uWSGI kills it a minute later.
        server.wait_for_log('chain reloading complete', timeout=SERVER_SECONDS)


def test_a_touched_vassal_is_reloaded_and_a_removed_one_is_stopped(
    redis_server: RedisServer, mode: dict[str, Any]
) -> None:
    with EmperorServer(redis_server, mode) as server:
        with crowd(server, 10) as websockets:
            since = server.log_position()
            os.utime(server.vassal, (time.time() + 5, time.time() + 5))
            assert codes(websockets) == {1012}
            server.wait_for_log('spawned uWSGI worker 1', since=since)
        with crowd(server, 10) as websockets:
            server.vassal.unlink()
            assert codes(websockets) == {1001}


class EmperorServer(UwsgiServer):
    """An emperor with one vassal, which is the server."""

    def __init__(self, redis_server: RedisServer, mode: dict[str, Any]) -> None:
        settings = {'WS4REDIS_DRAIN_SECONDS': DRAIN_SECONDS}
        super().__init__(redis_server=redis_server, django_settings=settings, **mode)
        self._vassals = scratch_directory() / 'vassals'
        self._vassals.mkdir()
        self.vassal: Path = self._vassals / 'websockets.ini'

    def command(self) -> list[str]:
        executable, *options = super().command()
        lines = ['[uwsgi]']
        position = 0
        while position < len(options):
            name, value = options[position].removeprefix('--'), 'true'
            if position + 1 < len(options) and not options[position + 1].startswith('--'):
                position += 1
                value = options[position]
            lines.append(f'{name} = {value}')
            position += 1
        self.vassal.write_text('\n'.join(lines) + '\n')
        # The executable of a wheel is Python's, which knows nothing of uWSGI's options.
        emperor = ['--emperor', str(self._vassals), '--emperor-wrapper', executable]
        return [executable, *options[:2], *emperor, '--die-on-term']


def test_what_is_queued_is_delivered_before_the_close_frame(
    redis_server: RedisServer, mode: dict[str, Any]
) -> None:
    settings = {
        'WS4REDIS_MAX_QUEUE_BYTES': 100_000_000,
        'WS4REDIS_DRAIN_SECONDS': DRAIN_SECONDS,
    }
    with ObservedServer(redis_server, settings, **mode) as server:
        with RawWebSocket(server.url_of()) as slow:
            with redis_server.client() as client:
                # Far more than the sockets of both ends take.
                for number in range(100):
                    client.publish('broadcast:foo', b'%03d' % number + b'x' * 200_000)
            slow.receive_frame()
            server.wait_for_statistics(
                lambda statistics: statistics['redis_messages'] == 100 and statistics['queues'] == 1
            )
            # uWSGI skips its hooks in a worker that is busy.
            server.wait_until_idle()
            server.signal(signal.SIGTERM)
            messages = [str(message)[:3] for message in slow.receive_many(99)]
            assert messages == [f'{number:03}' for number in range(1, 100)]
            assert slow.receive_close()[0] == 1001
        assert server.wait() == 0


def test_closing_is_spread_over_the_seconds_of_the_setting(redis_server: RedisServer) -> None:
    settings = {'WS4REDIS_DRAIN_SECONDS': 2}
    with uwsgi(redis_server, MODES['gevent'], django_settings=settings) as server:
        with crowd(server, 100) as websockets:
            server.signal(signal.SIGHUP)
            started = time.monotonic()
            open_after = []
            for seconds in (1.0, 3.0):
                websockets.receive_for(started + seconds - time.monotonic())
                open_after.append(websockets.number_open)
            assert 10 <= open_after[0] <= 90
            assert open_after[1] == 0


def test_a_client_that_does_not_answer_holds_up_the_stop_for_the_close_timeout_only(
    redis_server: RedisServer, mode: dict[str, Any]
) -> None:
    settings = {'WS4REDIS_CLOSE_TIMEOUT': 1}
    with uwsgi(redis_server, mode, django_settings=settings) as server:
        with RawWebSocket(f'{server.ws_url}/ws/foo?subscribe-broadcast') as silent:
            # uWSGI skips its hooks in a worker that is busy.
            server.wait_until_idle()
            server.signal(signal.SIGTERM)
            assert silent.receive_frame().opcode == CLOSE
            assert server.wait(timeout=scaled(10)) == 0


def test_the_drain_stays_inside_of_a_short_mercy(redis_server: RedisServer) -> None:
    settings = {'WS4REDIS_DRAIN_SECONDS': 30, 'WS4REDIS_CLOSE_TIMEOUT': 30}
    options = ['--worker-reload-mercy', '6']
    with uwsgi(redis_server, MODES['gevent'], django_settings=settings, options=options) as server:
        with crowd(server, 20, answers_close=False) as websockets:
            since = server.log_position()
            server.signal(signal.SIGHUP)
            assert codes(websockets) == {1012}
            server.wait_until_ready(since)
            assert 'MERCY' not in server.log_text(since)
            assert 'DAMN' not in server.log_text(since)


def test_a_handshake_under_way_at_a_stop_is_refused_or_closed(redis_server: RedisServer) -> None:
    settings = {'WS4REDIS_PROCESS_REQUEST': 'tests.faults.callbacks.sleep_two_seconds'}
    with uwsgi(redis_server, MODES['gevent'], django_settings=settings) as server:
        outcome: list[object] = []

        def shake_hands() -> None:
            try:
                with RawWebSocket(f'{server.ws_url}/ws/foo?subscribe-broadcast') as websocket:
                    outcome.append(websocket.receive_close()[0])
            except HandshakeRefused as exc:
                outcome.append(exc.response.status)

        thread = threading.Thread(target=shake_hands)
        thread.start()
        wait_until(lambda: 'slow callback began' in server.log_text())
        server.signal(signal.SIGHUP)
        thread.join(SOON_SECONDS)
        assert outcome in ([503], [1012])


def test_runserver_closes_websockets_with_1001_when_it_is_interrupted(
    redis_server: RedisServer,
) -> None:
    with RunserverProcess(redis_server=redis_server) as server:
        with crowd(server, 5) as websockets:
            server.signal(signal.SIGINT)
            assert codes(websockets) == {1001}


def test_runserver_closes_websockets_with_1012_when_code_has_changed(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    module = tmp_path / 'changing_module.py'
    module.write_text('"""Imported by the settings of a test."""\n')
    (tmp_path / 'changing_settings.py').write_text(
        'import changing_module\nfrom tests.settings import *\n'
    )
    env = {'PYTHONPATH': str(tmp_path) + os.pathsep + os.environ.get('PYTHONPATH', '')}
    with RunserverProcess(
        redis_server=redis_server, autoreload=True, settings='changing_settings', env=env
    ) as server:
        with crowd(server, 5) as websockets:
            later = itertools.count(int(time.time()) + 5)

            def is_noticed() -> bool:
                # What changes before the reloader has looked for the first time, it does not see.
                changed_at = next(later)
                os.utime(module, (changed_at, changed_at))
                return 'changed, reloading' in server.log_text()

            wait_until(is_noticed)
            assert codes(websockets) == {1012}
