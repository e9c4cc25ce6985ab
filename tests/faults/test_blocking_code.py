"""What blocks for two seconds delays its own handshake, and nothing else."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import BACKEND_SESSION_KEY
from django.http import HttpRequest

from tests.django_requests import logged_in_request, make_user
from tests.faults.observed import ObservedServer
from tests.programs import RedisServer
from tests.standalone.server import StandaloneServer
from tests.timeouts import scaled, wait_until
from tests.websocket_client import (
    HandshakeRefused,
    RawWebSocket,
    WebSocketCrowd,
    handshake_request,
)

MODES: dict[str, dict[str, Any]] = {
    'gevent': {'gevent': 100},
    'threads': {'gevent': None, 'threads': 8},
}
SLOW_SECONDS = scaled(2)
PERSONAL = 'subscribe-broadcast&subscribe-user'

SLOW: dict[str, dict[str, Any]] = {
    'WS4REDIS_PROCESS_REQUEST': {
        'WS4REDIS_PROCESS_REQUEST': 'tests.faults.callbacks.sleep_two_seconds'
    },
    'WS4REDIS_ALLOWED_CHANNELS': {
        'WS4REDIS_ALLOWED_CHANNELS': 'tests.faults.callbacks.slow_allowed_channels'
    },
    'session engine': {'SESSION_ENGINE': 'tests.faults.slow_sessions'},
    'user lookup': {'AUTHENTICATION_BACKENDS': ['tests.faults.callbacks.SlowBackend']},
    'set_pubsub_channels': {'WS4REDIS_SUBSCRIBER': 'tests.faults.callbacks.SlowToSubscribe'},
    'send_persisted_messages': {
        'WS4REDIS_SUBSCRIBER': 'tests.faults.callbacks.SlowToSendPersisted'
    },
}


@pytest.fixture
def john(transactional_db: None, settings: Any) -> Callable[..., HttpRequest]:
    """Log john in; the fixture is a function, since the session's engine may be a slow one."""

    def log_in(backend: str) -> HttpRequest:
        settings.AUTHENTICATION_BACKENDS = [backend]
        request = logged_in_request(make_user('john'))
        request.session[BACKEND_SESSION_KEY] = backend
        request.session.save()
        return request

    return log_in


@pytest.mark.parametrize('mode', MODES.values(), ids=list(MODES))
@pytest.mark.parametrize('slow', SLOW)
def test_two_seconds_delay_their_own_handshake_only(
    redis_server: RedisServer,
    mode: dict[str, Any],
    slow: str,
    john: Callable[..., HttpRequest],
) -> None:
    backend = SLOW[slow].get(
        'AUTHENTICATION_BACKENDS', ['django.contrib.auth.backends.ModelBackend']
    )[0]
    request = john(backend)
    cookie = {'Cookie': f'sessionid={request.session.session_key}'}
    settings = {**SLOW[slow], 'WS4REDIS_HANDSHAKE_TIMEOUT': scaled(10)}
    with ObservedServer(redis_server, settings, **mode) as server:
        with RawWebSocket(server.url_of('quick', 'subscribe-broadcast&quick')) as other:
            server.wait_for_bus()
            took: list[float] = []

            def shake_hands() -> None:
                started = time.monotonic()
                with RawWebSocket(server.url_of('foo', PERSONAL), headers=cookie) as own:
                    took.append(time.monotonic() - started)
                    own.close()

            thread = threading.Thread(target=shake_hands)
            thread.start()
            server.wait_for_log('slow callback began')
            with redis_server.client() as client:
                for number in range(5):
                    client.publish('broadcast:quick', f'{number}')
                    assert other.receive() == f'{number}'
            # Another handshake is not delayed either.
            with RawWebSocket(server.url_of('quick2', 'subscribe-broadcast&quick')):
                assert not took, 'the slow handshake ended before quick ones'
            thread.join()
            assert took[0] >= SLOW_SECONDS * 0.95


def test_a_flood_of_slow_handshakes_delays_no_open_websocket_and_no_reconnection() -> None:
    settings = {
        'WS4REDIS_PROCESS_REQUEST': 'tests.faults.callbacks.sleep_two_seconds',
        'WS4REDIS_WORKER_THREADS': 2,
        'WS4REDIS_HANDSHAKE_TIMEOUT': scaled(5),
    }
    with RedisServer() as redis_server, ObservedServer(redis_server, settings) as server:
        with RawWebSocket(server.url_of('quick', 'subscribe-broadcast&quick')) as other:
            server.wait_for_bus()
            answers: list[int] = []

            def shake_hands() -> None:
                try:
                    with RawWebSocket(server.url_of('foo'), timeout=scaled(30)):
                        answers.append(101)
                except HandshakeRefused as exc:
                    answers.append(exc.response.status)

            threads = [threading.Thread(target=shake_hands) for _ in range(20)]
            for thread in threads:
                thread.start()
            server.wait_for_log('slow callback began')
            # A connection to Redis does not queue up behind them.
            redis_server.restart()
            wait_until(
                lambda: redis_server.is_running and _numsub(redis_server) == 1,
                message='the bus did not come back',
            )
            with redis_server.client() as client:
                client.publish('broadcast:quick', 'hi')
            assert other.receive() == 'hi'
            # Some of them still wait.
            assert len(answers) < len(threads)
            for thread in threads:
                thread.join()
            # Two threads do two seconds of work at a time; what waited for too long is refused.
            assert answers.count(503) >= 10
            assert answers.count(101) >= 2
            assert set(answers) == {101, 503}


def _numsub(redis_server: RedisServer) -> int:
    with redis_server.client() as client:
        return int(client.pubsub_numsub('broadcast:quick')[0][1])


@pytest.mark.parametrize('mode', MODES.values(), ids=list(MODES))
def test_a_handshake_that_takes_too_long_is_answered_with_503(
    redis_server: RedisServer, mode: dict[str, Any]
) -> None:
    settings = {
        'WS4REDIS_PROCESS_REQUEST': 'tests.faults.callbacks.sleep_two_seconds',
        'WS4REDIS_HANDSHAKE_TIMEOUT': 0.5,
    }
    with ObservedServer(redis_server, settings, **mode) as server:
        with pytest.raises(HandshakeRefused) as refused:
            RawWebSocket(server.url_of())
        assert refused.value.response.status == 503
        assert refused.value.response.headers['retry-after'] == '5'
        server.wait_for_log('took more than 0.5 seconds')
        wait_until(lambda: server.observe()['places'] == 0)


SERVERS: dict[str, Callable[[RedisServer, dict[str, Any]], Any]] = {
    'gevent': lambda redis, settings: ObservedServer(redis, settings, gevent=100),
    'run_wsserver': lambda redis, settings: StandaloneServer(
        redis_server=redis, django_settings=settings
    ),
}


@pytest.mark.parametrize('kind', SERVERS)
def test_handlers_that_take_too_long_to_open_are_refused_and_delay_nobody_else(
    redis_server: RedisServer, kind: str
) -> None:
    handler = 'tests.faults.callbacks.SlowToOpen'
    settings = {
        'WS4REDIS_HANDLERS': {'^/ws/slow$': handler, '^/ws/quick$': handler},
        'WS4REDIS_PROCESS_REQUEST': 'tests.faults.callbacks.sleep_two_seconds',
        'WS4REDIS_WORKER_THREADS': 2,
        'WS4REDIS_HANDSHAKE_TIMEOUT': 1,
        'WS4REDIS_DRAIN_SECONDS': 0,
    }
    with SERVERS[kind](redis_server, settings) as server:
        answers: list[int] = []

        def open_slowly() -> None:
            with pytest.raises(HandshakeRefused) as refused:
                RawWebSocket(f'{server.ws_url}/ws/slow?quick')
            answers.append(refused.value.response.status)

        threads = [threading.Thread(target=open_slowly) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: server.log_text().count('slow callback began') == 2)
        # Those of others do not wait for them.
        with RawWebSocket(f'{server.ws_url}/ws/foo?subscribe-broadcast&quick'):
            assert not answers
        for thread in threads:
            thread.join()
        assert answers == [503, 503]
        # Nor do other handlers any longer, though the threads are still busy.
        with RawWebSocket(f'{server.ws_url}/ws/quick?quick') as websocket:
            websocket.send('quick')
            assert websocket.receive() == 'quick'
            websocket.close(1000)
        log = server.log_text()
        assert log.count('took more than 1 seconds') == 2
        # They are told that their websockets never opened.
        wait_until(lambda: server.log_text().count('slow handler closed with 1006') == 2)
        assert server.log_text().count('slow on_connect ended') == 3


@pytest.mark.parametrize('name', ['SlowToBringDescriptor', 'SlowToSendAndReleased'])
def test_a_subscriber_that_takes_too_long_to_open_is_refused_and_released_afterwards(
    redis_server: RedisServer, name: str
) -> None:
    settings = {
        'WS4REDIS_SUBSCRIBER': f'tests.faults.callbacks.{name}',
        'WS4REDIS_HANDSHAKE_TIMEOUT': 0.5,
    }
    with ObservedServer(redis_server, settings, gevent=100) as server:
        with pytest.raises(HandshakeRefused) as refused:
            RawWebSocket(server.url_of('foo', 'subscribe-broadcast'))
        assert refused.value.response.status == 503
        wait_until(lambda: 'released' in server.log_text())
        came = re.findall(
            'slow callback began|took more|descriptor came|messages sent|released',
            server.log_text(),
        )
        assert came[:2] == ['slow callback began', 'took more']
        assert came[3:] == ['released']
        wait_until(lambda: server.observe()['places'] == 0)


@pytest.mark.parametrize('mode', MODES.values(), ids=list(MODES))
def test_connections_to_the_database_are_closed_after_a_handshake(
    redis_server: RedisServer, mode: dict[str, Any], transactional_db: None
) -> None:
    settings = {'WS4REDIS_PROCESS_REQUEST': 'tests.faults.callbacks.count_users'}
    with ObservedServer(redis_server, settings, **mode) as server:
        with WebSocketCrowd([server.url_of()] * 30):
            seen = server.observe()
            assert seen['database_connections_made'] >= 1
            assert seen['database_descriptors'] == 0


@pytest.mark.parametrize('mode', MODES.values(), ids=list(MODES))
def test_a_broadcast_only_handshake_asks_neither_sessions_nor_the_database(
    redis_server: RedisServer, mode: dict[str, Any], john: Callable[..., HttpRequest]
) -> None:
    request = john('django.contrib.auth.backends.ModelBackend')
    cookie = {'Cookie': f'sessionid={request.session.session_key}'}
    # The session store would log it, and take two seconds.
    settings = {'SESSION_ENGINE': 'tests.faults.slow_sessions'}
    with ObservedServer(redis_server, settings, **mode) as server:
        with RawWebSocket(server.url_of(), headers=cookie):
            server.wait_for_bus()
            with redis_server.client() as client:
                client.config_resetstat()
                urls = [server.url_of('foo', 'subscribe-broadcast&publish-broadcast')] * 10
                with WebSocketCrowd(urls, headers=cookie):
                    commands = client.info('commandstats')
            assert server.observe()['database_connections_made'] == 0
        assert 'slow callback began' not in server.log_text()
        ours = {name.removeprefix('cmdstat_').partition('|')[0] for name in commands}
        # Their channel is subscribed already; the kept message is asked for, at most once each.
        assert ours <= {'get', 'config', 'info', 'client', 'hello', 'ping', 'select'}
        assert commands['cmdstat_get']['calls'] <= 10


def test_a_broadcast_only_handshake_costs_one_subscribe_and_one_get(
    redis_server: RedisServer,
) -> None:
    with ObservedServer(redis_server) as server:
        with RawWebSocket(server.url_of('first')):
            server.wait_for_bus()
            with redis_server.client() as client:
                client.config_resetstat()
                with RawWebSocket(server.url_of('second')):
                    commands = client.info('commandstats')
        assert commands['cmdstat_subscribe']['calls'] == 1
        assert commands['cmdstat_get']['calls'] == 1


def test_a_request_is_served_while_every_handshake_thread_is_busy(
    redis_server: RedisServer,
) -> None:
    settings = {
        'WS4REDIS_PROCESS_REQUEST': 'tests.faults.callbacks.sleep_two_seconds',
        'WS4REDIS_WORKER_THREADS': 1,
    }
    with ObservedServer(redis_server, settings) as server:
        slow = RawWebSocket(server.url_of(), connect=False)
        try:
            slow.send_bytes(handshake_request(server.url_of()))
            server.wait_for_log('slow callback began')
            assert server.get('/hello/') == 'hello from Django'
            # The handshake is still under way.
            slow.socket.setblocking(False)
            with pytest.raises(BlockingIOError):
                slow.socket.recv(1)
        finally:
            slow.socket.close()
