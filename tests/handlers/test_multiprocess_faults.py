"""What becomes of websockets when a process or Redis fails, with handlers in other processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import redis

from tests.programs import RedisServer
from tests.redis_keys import stored_keys
from tests.standalone.server import (
    WEBSOCKET_URL,
    HandlerProcess,
    StandaloneServer,
    settings_with_handlers,
)
from tests.timeouts import scaled, wait_until
from tests.websocket_client import HandshakeRefused, RawWebSocket, WebSocketCrowd, handshake_request
from ws4redis.handlers.multiprocess.names import ALIVE_INTERVAL_SECONDS
from ws4redis.handlers.multiprocess.roster import SILENT_ROUNDS

pytestmark = pytest.mark.slow


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[StandaloneServer]:
    """A websocket server that starts no handlers itself."""
    with serve(redis_server) as server:
        yield server


def serve(redis_server: RedisServer, **settings: Any) -> StandaloneServer:
    return StandaloneServer(
        *('--multiprocess', '--handler-processes', '0', '--websocket-url', WEBSOCKET_URL),
        redis_server=redis_server,
        django_settings=settings_with_handlers(**settings),
    )


def url(server: StandaloneServer, namespace: str = 'echo') -> str:
    return f'{server.ws_url}/socket/{namespace}'


def test_a_worker_that_dies_has_its_websockets_closed_with_1012_within_5_seconds(
    server: StandaloneServer, redis_server: RedisServer
) -> None:
    worker = HandlerProcess(redis_server=redis_server).start()
    with WebSocketCrowd([url(server, 'slow')] * 20) as crowd:
        for index in range(20):
            for _ in range(20):
                crowd[index].send('x')
        since = server.log_position()
        died = time.monotonic()
        worker.kill()
        ends = crowd.receive_close(timeout=scaled(8))
        assert time.monotonic() - died < scaled(5)
        assert {end[0] if end else None for end in ends} == {1012}
    server.wait_for_log(r'worker .* has died: 20 websockets are closed, \d+ events', since=since)
    server.wait_for_log('not seen: event .* text, 1 bytes', since=since)


def test_another_worker_serves_those_who_come_back(
    server: StandaloneServer, redis_server: RedisServer
) -> None:
    first = HandlerProcess(redis_server=redis_server).start()
    with RawWebSocket(url(server)) as websocket:
        with HandlerProcess(redis_server=redis_server):
            first.kill()
            assert websocket.receive_close(timeout=scaled(8))[0] == 1012
            with RawWebSocket(url(server)) as again:
                again.send('x')
                assert again.receive() == 'x'


def test_a_worker_that_is_stopped_closes_with_1012_and_calls_on_close_once(
    server: StandaloneServer, redis_server: RedisServer
) -> None:
    with HandlerProcess(redis_server=redis_server) as worker:
        with RawWebSocket(url(server, 'log')) as websocket:
            assert websocket.receive() == 'welcome'
            worker.signal(signal.SIGTERM)
            assert websocket.receive_close(timeout=scaled(8))[0] == 1012
            websocket.send_close(1012)
            assert worker.wait() == 0
        assert len([line for line in worker.log_lines() if 'on_close 1012' in line]) == 1
    with redis_server.client() as client:
        wait_until(lambda: not client.exists('ws_push:workers'))
        assert not client.keys('ws_push:events:*')


def test_new_websockets_are_spread_over_the_workers(
    server: StandaloneServer, redis_server: RedisServer
) -> None:
    with HandlerProcess(redis_server=redis_server) as one:
        with HandlerProcess(redis_server=redis_server) as two, redis_server.client() as client:
            wait_until(lambda: client.hlen('ws_push:workers') == 2)
            # The server asks for them one after the other, so it knows both when it asks again.
            asked = _number_of_calls(client, 'hgetall')
            wait_until(lambda: _number_of_calls(client, 'hgetall') >= asked + 2)
            with WebSocketCrowd([url(server, 'log')] * 10) as crowd:
                crowd.receive(1)
                counts = [
                    len([line for line in worker.log_lines() if line == 'on_connect'])
                    for worker in (one, two)
                ]
                assert counts == [5, 5]


def _number_of_calls(client: redis.Redis, command: str) -> int:
    statistics: Any = client.info('commandstats')
    return int(statistics.get(f'cmdstat_{command}', {}).get('calls', 0))


def test_without_a_worker_a_handshake_gets_503_in_time(redis_server: RedisServer) -> None:
    with serve(redis_server, WS4REDIS_HANDSHAKE_TIMEOUT=1) as server:
        with pytest.raises(HandshakeRefused) as refused:
            RawWebSocket(url(server))
    assert refused.value.response.status == 503


def test_a_worker_that_comes_late_serves_a_handshake_that_waits(
    server: StandaloneServer, redis_server: RedisServer
) -> None:
    with RawWebSocket(url(server), connect=False, timeout=scaled(20)) as websocket:
        websocket.send_bytes(handshake_request(url(server)))
        with HandlerProcess(redis_server=redis_server):
            assert websocket.receive_response().status == 101


def test_websockets_and_their_messages_survive_a_restart_of_redis(
    server: StandaloneServer, redis_server: RedisServer
) -> None:
    with HandlerProcess(redis_server=redis_server) as worker:
        with WebSocketCrowd([url(server, 'counting')] * 10, timeout=scaled(40)) as crowd:
            sent = 0
            for _ in range(3):
                for _ in range(50):
                    for index in range(10):
                        crowd[index].send(str(sent))
                    sent += 1
                crowd.receive(sent)
                since = server.log_position()
                redis_server.kill()
                for _ in range(20):
                    for index in range(10):
                        crowd[index].send(str(sent))
                    sent += 1
                server.wait_for_log('lost the connection to Redis', since=since)
                redis_server.start()
            crowd.receive(sent)
            assert crowd.number_open == 10
            assert all(m == [str(number) for number in range(sent)] for m in crowd.messages)
        assert 'Traceback' not in worker.log_text()


def test_a_halt_of_redis_costs_no_websocket_its_handler(
    server: StandaloneServer, redis_server: RedisServer
) -> None:
    with HandlerProcess(redis_server=redis_server) as worker:
        with WebSocketCrowd([url(server, 'counting')] * 20, timeout=scaled(20)) as crowd:
            for round_ in range(3):
                redis_server.pause()
                try:
                    for index in range(20):
                        crowd[index].send(str(round_))
                    # Longer than a worker may be silent.
                    time.sleep((SILENT_ROUNDS + 1) * ALIVE_INTERVAL_SECONDS)
                finally:
                    redis_server.resume()
                crowd.receive(round_ + 1)
            assert crowd.number_open == 20
            assert all(m == ['0', '1', '2'] for m in crowd.messages)
        for log in (server.log_text(), worker.log_text()):
            assert 'has died' not in log
            assert 'has gone' not in log


def test_senders_are_closed_with_1013_when_redis_stays_away(redis_server: RedisServer) -> None:
    with serve(redis_server, WS4REDIS_REDIS_TIMEOUT=2) as server:
        with HandlerProcess(redis_server=redis_server):
            with RawWebSocket(url(server)) as websocket, RawWebSocket(url(server)) as silent:
                websocket.send('x')
                assert websocket.receive() == 'x'
                redis_server.kill()
                websocket.send('y')
                assert websocket.receive_close(timeout=scaled(10))[0] == 1013
                silent.send_ping(b'still')
                assert silent.receive_frame().payload == b'still'


def test_handlers_learn_of_a_server_that_vanished(
    server: StandaloneServer, redis_server: RedisServer
) -> None:
    with HandlerProcess(redis_server=redis_server) as worker:
        with RawWebSocket(url(server, 'log')) as websocket:
            assert websocket.receive() == 'welcome'
            server.kill()
            worker.wait_for_log('on_close 1006', timeout=scaled(25))


def test_a_worker_that_was_halted_gets_the_ends_of_its_websockets(
    server: StandaloneServer, redis_server: RedisServer
) -> None:
    with HandlerProcess(redis_server=redis_server) as worker:
        with RawWebSocket(url(server, 'log')) as websocket:
            assert websocket.receive() == 'welcome'
            worker.pause()
            assert websocket.receive_close(timeout=scaled(10))[0] == 1012
            worker.resume()
            worker.wait_for_log('on_close')
        with RawWebSocket(url(server, 'log')) as websocket:
            assert websocket.receive() == 'welcome'
        worker.wait_for_log('on_close', count=2)


def test_keys_have_the_prefix_and_the_names_of_the_options(redis_server: RedisServer) -> None:
    settings = settings_with_handlers(WS4REDIS_PREFIX='site')
    names = ('--push-socket', 'up', '--sub-socket', 'down')
    with StandaloneServer(
        *('--multiprocess', '--handler-processes', '1', '--websocket-url', WEBSOCKET_URL),
        *names,
        redis_server=redis_server,
        django_settings=settings,
    ) as server:
        with RawWebSocket(url(server)) as websocket:
            websocket.send('x')
            assert websocket.receive() == 'x'
            with redis_server.client() as client:
                keys = {key.decode().rpartition(':')[0] for key in stored_keys(client)}
    assert keys == {'site:up', 'site:up:events', 'site:down'}


def test_handler_processes_that_crash_are_restarted(redis_server: RedisServer) -> None:
    with StandaloneServer(
        *('--multiprocess', '--handler-processes', '1', '--websocket-url', WEBSOCKET_URL),
        redis_server=redis_server,
    ) as server:
        with RawWebSocket(url(server)) as websocket:
            since = server.log_position()
            (worker,) = (
                child
                for child in psutil.Process(server.pid).children()
                if '"role": "handlers"' in ' '.join(child.cmdline())
            )
            os.kill(worker.pid, signal.SIGKILL)
            server.wait_for_log(f'process {worker.pid} ended with status -9', since=since)
            assert websocket.receive_close(timeout=scaled(8))[0] == 1012
        with RawWebSocket(url(server), timeout=scaled(20)) as websocket:
            websocket.send('x')
            assert websocket.receive() == 'x'
