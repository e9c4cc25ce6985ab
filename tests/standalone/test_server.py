"""The standalone server as a process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
from pathlib import Path

import psutil
import pytest

from tests.programs import RedisServer, ServerFailed
from tests.standalone.certificates import make_certificate
from tests.standalone.server import WEBSOCKET_URL, StandaloneServer, settings_with_handlers
from tests.timeouts import scaled, wait_until
from tests.websocket_client import (
    HandshakeRefused,
    RawWebSocket,
    WebSocketCrowd,
    encode_frame,
    handshake_request,
)

pytestmark = pytest.mark.slow


def serving_pids(server: StandaloneServer) -> list[int]:
    """Return the numbers of the processes that serve."""
    return [
        child.pid
        for child in psutil.Process(server.pid).children()
        if child.status() != psutil.STATUS_ZOMBIE and '"role": "server"' in _command_line(child)
    ]


def _command_line(process: psutil.Process) -> str:
    try:
        return ' '.join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ''


def echoes(websocket: RawWebSocket, message: str = 'x') -> bool:
    websocket.send(message)
    return websocket.receive() == message


def test_it_says_on_stdout_that_it_is_ready_and_where(redis_server: RedisServer) -> None:
    with StandaloneServer(redis_server=redis_server) as server:
        line = f'ws4redis serves websockets on ws://127.0.0.1:{server.port}/'
        assert line in server.log_lines()
        assert server.stop() == 0


@pytest.mark.parametrize(
    ('number', 'code'), [(signal.SIGTERM, 1001), (signal.SIGINT, 1001), (signal.SIGHUP, 1012)]
)
def test_websockets_are_closed_with_a_code_that_says_why(
    redis_server: RedisServer, number: int, code: int
) -> None:
    with StandaloneServer('--websocket-url', WEBSOCKET_URL, redis_server=redis_server) as server:
        with RawWebSocket(f'{server.ws_url}/socket/log') as websocket:
            assert websocket.receive() == 'welcome'
            server.signal(number)
            assert websocket.receive_close(timeout=scaled(30))[0] == code
            websocket.send_close(code)
            websocket.expect_end()
        server.wait_for_log(f'on_close {code}')
        if number == signal.SIGHUP:
            with RawWebSocket(f'{server.ws_url}/socket') as websocket:
                assert echoes(websocket)
        else:
            assert server.wait() == 0


def test_a_restart_refuses_no_connection_and_reads_new_code(redis_server: RedisServer) -> None:
    with StandaloneServer(redis_server=redis_server) as server:
        before = serving_pids(server)
        server.signal(signal.SIGHUP)
        # While processes come and go, there is always one that answers.
        statuses = set()
        while set(before) & set(serving_pids(server)):
            try:
                with RawWebSocket(f'{server.ws_url}/socket') as websocket:
                    websocket.send_close()
            except HandshakeRefused as refused:
                # A process that is just closing says so, and the client comes back.
                statuses.add(refused.response.status)
        with RawWebSocket(f'{server.ws_url}/socket') as websocket:
            assert echoes(websocket)
        assert len(serving_pids(server)) == 1
        assert statuses <= {503}


def test_a_crashed_process_is_replaced(redis_server: RedisServer) -> None:
    with StandaloneServer('--workers', '2', redis_server=redis_server) as server:
        before = serving_pids(server)
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        server.wait_for_log(f'process {before[0]} ended with status -9')
        wait_until(lambda: len(serving_pids(server)) == 2 and before[0] not in serving_pids(server))
        with WebSocketCrowd([f'{server.ws_url}/socket'] * 20) as crowd:
            for index in range(20):
                crowd[index].send('x')
            crowd.receive(1)


def test_workers_share_the_port(redis_server: RedisServer) -> None:
    def held(pid: int) -> int:
        connections = psutil.Process(pid).net_connections('tcp')
        return sum(
            connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == server.port
            for connection in connections
        )

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(StandaloneServer('--workers', '2', redis_server=redis_server))
        # Whoever is awake accepts; on a busy machine that may be the same one for a while.
        for count in range(1, 21):
            crowd = WebSocketCrowd([f'{server.ws_url}/socket'] * 20)
            assert stack.enter_context(crowd).number_open == 20
            numbers = [held(pid) for pid in serving_pids(server)]
            assert sum(numbers) == 20 * count
            if min(numbers) > 0:
                break
        assert min(numbers) > 0


def test_processes_end_when_the_supervisor_is_killed(redis_server: RedisServer) -> None:
    with StandaloneServer(redis_server=redis_server) as server:
        pids = serving_pids(server)
        with RawWebSocket(f'{server.ws_url}/socket') as websocket:
            os.kill(server.pid, signal.SIGKILL)
            assert websocket.receive_close(timeout=scaled(10))[0] == 1001
        wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), timeout=scaled(20))


def test_it_serves_on_a_unix_socket_and_removes_it(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    path = tmp_path / 'ws.sock'
    with StandaloneServer(redis_server=redis_server, address=f'unix:{path}') as server:
        with RawWebSocket('ws://localhost/socket', unix_socket_path=str(path)) as websocket:
            assert echoes(websocket)
        server.stop()
    assert not path.exists()


@pytest.mark.parametrize('mode', ['--threaded', '--gevent'])
def test_it_serves_wss_with_a_certificate(
    redis_server: RedisServer, tmp_path: Path, mode: str
) -> None:
    certfile, keyfile = make_certificate(tmp_path)
    context = ssl.create_default_context(cafile=str(certfile))
    options = ('--certfile', str(certfile), '--keyfile', str(keyfile), mode)
    with StandaloneServer(*options, redis_server=redis_server) as server:
        server.wait_for_log('wss://127.0.0.1')
        url = f'wss://{server.host}:{server.port}'
        with RawWebSocket(f'{url}/socket', ssl_context=context) as websocket:
            # Larger than a TLS record, than the socket's buffers, and in many pieces.
            for size in (1, 16 * 1024, 500_000):
                websocket.send('x' * size)
                assert len(websocket.receive()) == size
            assert websocket.close()[0] == 1000
        # Someone who speaks no TLS, or nothing at all, disturbs nobody.
        with socket.create_connection((server.host, server.port)) as plain:
            plain.sendall(b'GET / HTTP/1.1\r\n\r\n')
            plain.settimeout(scaled(10))
            with contextlib.suppress(ConnectionResetError):
                while plain.recv(1000):
                    pass
        channel = f'{url}/ws/room?subscribe-broadcast&publish-broadcast&echo'
        with RawWebSocket(channel, ssl_context=context) as websocket:
            websocket.send('through Redis')
            assert websocket.receive() == 'through Redis'


def test_a_client_of_wss_that_does_not_read_delays_nobody(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    certfile, keyfile = make_certificate(tmp_path)
    context = ssl.create_default_context(cafile=str(certfile))
    options = ('--certfile', str(certfile), '--keyfile', str(keyfile))
    with StandaloneServer(*options, redis_server=redis_server) as server:
        url = f'wss://{server.host}:{server.port}/socket'
        with (
            RawWebSocket(url, ssl_context=context) as lazy,
            RawWebSocket(url, ssl_context=context) as other,
        ):
            lazy.socket.settimeout(1)
            with pytest.raises((TimeoutError, OSError)):
                while True:
                    lazy.send(b'x' * 100_000)
            assert echoes(other)
            lazy.socket.settimeout(scaled(10))


def test_a_request_that_never_ends_is_ended(redis_server: RedisServer) -> None:
    settings = settings_with_handlers(WS4REDIS_HANDSHAKE_TIMEOUT=1)
    with StandaloneServer(redis_server=redis_server, django_settings=settings) as server:
        with socket.create_connection((server.host, server.port), timeout=scaled(10)) as client:
            client.sendall(b'GET /socket HTTP/1.1\r\nHost: localhost\r\n')
            assert b'408' in client.recv(1000)
            assert client.recv(1000) == b''


@pytest.mark.parametrize('announced', ['Content-Length: 1000', 'Transfer-Encoding: chunked'])
def test_a_body_that_never_comes_holds_no_connection(
    redis_server: RedisServer, announced: str
) -> None:
    with StandaloneServer(redis_server=redis_server) as server:
        with socket.create_connection((server.host, server.port), timeout=scaled(5)) as client:
            client.sendall(
                f'POST /ws/x HTTP/1.1\r\nHost: localhost\r\n{announced}\r\n\r\n'.encode()
            )
            answer = b''
            while data := client.recv(1000):
                answer += data
        assert answer.startswith(b'HTTP/1.1 4')


@pytest.mark.parametrize('is_tls', [False, True], ids=['tcp', 'tls'])
@pytest.mark.parametrize('mode', ['--threaded', '--gevent'])
def test_clients_that_leave_or_announce_a_body_leave_no_traceback(
    redis_server: RedisServer, tmp_path: Path, mode: str, is_tls: bool
) -> None:
    options: tuple[str, ...] = (mode,)
    context, scheme = None, 'ws'
    if is_tls:
        certfile, keyfile = make_certificate(tmp_path)
        context = ssl.create_default_context(cafile=str(certfile))
        options = (mode, '--certfile', str(certfile), '--keyfile', str(keyfile))
        scheme = 'wss'
    with StandaloneServer(*options, redis_server=redis_server) as server:
        url = f'{scheme}://{server.host}:{server.port}/socket'
        for head in (
            b'GET /socket HT',
            b'GET /socket HTTP/1.1\r\nHost: loc',
            b'GET / HTTP/1.1\r\n\r\n',
        ):
            websocket = RawWebSocket(url, ssl_context=context, connect=False)
            websocket.send_bytes(head)
            websocket.reset()
        headers = {'Content-Length': '5'}
        with RawWebSocket(url, ssl_context=context, headers=headers) as websocket:
            assert echoes(websocket)
        server.stop()
        assert not [line for line in server.log_lines() if 'Traceback' in line or 'Error' in line]


def test_data_before_the_answer_is_refused_rather_than_lost(redis_server: RedisServer) -> None:
    with StandaloneServer(redis_server=redis_server) as server:
        with RawWebSocket(f'{server.ws_url}/socket', connect=False) as websocket:
            frame = encode_frame(1, b'too early')
            websocket.send_bytes(handshake_request(f'{server.ws_url}/socket') + frame)
            response = websocket.receive_response()
            assert response.status == 400
            assert b'before the handshake was answered' in response.body


def test_it_starts_without_redis_and_serves_handlers(redis_server: RedisServer) -> None:
    redis_server.stop()
    with StandaloneServer(redis_server=redis_server) as server:
        with RawWebSocket(f'{server.ws_url}/socket') as websocket:
            assert echoes(websocket)
        server.wait_for_log('cannot connect to Redis')


@pytest.mark.parametrize(
    ('handlers', 'words'),
    [
        ({'other': 'tests.handlers.sample_handlers.Echo'}, 'DEFAULT_WS_HANDLERS'),
        ({'default': 'no.such.Handler'}, 'DEFAULT_WS_HANDLERS'),
    ],
)
def test_wrong_handlers_are_an_error_at_start(
    redis_server: RedisServer, handlers: dict[str, str], words: str
) -> None:
    settings = {'DEFAULT_WS_HANDLERS': handlers}
    server = StandaloneServer(redis_server=redis_server, django_settings=settings)
    with pytest.raises(ServerFailed, match=words):
        server.start()


def test_statistics_and_pings_work_as_everywhere(redis_server: RedisServer) -> None:
    settings = settings_with_handlers(WS4REDIS_PING_INTERVAL=0.5)
    with StandaloneServer(redis_server=redis_server, django_settings=settings) as server:
        with RawWebSocket(f'{server.ws_url}/socket') as websocket:
            assert websocket.receive_frame().opcode == 9
