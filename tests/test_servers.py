"""The servers that tests start: they start, stop, die and come back as the tests need."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import redis
from django.contrib.auth.models import User

from tests.free_ports import free_port
from tests.programs import RedisServer, RunserverProcess, UwsgiServer
from tests.server_process import ROOT, ServerFailed, running, still_alive
from tests.timeouts import SOON_SECONDS, scaled, wait_until


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(('127.0.0.1', port)) != 0


def hello_server(**options: object) -> UwsgiServer:
    return UwsgiServer('tests.wsgi_hello', **options)  # type: ignore[arg-type]


def test_redis_serves_by_port_and_by_unix_socket() -> None:
    with RedisServer() as server:
        with server.client() as client:
            client.set('name', 'value')
        with redis.Redis(unix_socket_path=server.unix_socket_path) as client:
            assert client.get('name') == b'value'


def test_redis_asks_for_its_password() -> None:
    with RedisServer(password='secret') as server:
        with server.client() as client:
            assert client.ping()
        server.password = None
        with server.client() as client, pytest.raises(redis.AuthenticationError):
            client.ping()


@pytest.mark.parametrize('end', ['stop', 'kill'])
def test_a_redis_that_ended_frees_its_port_and_comes_back_on_it(end: str) -> None:
    with RedisServer() as server:
        getattr(server, end)()
        assert not server.is_running
        assert port_is_free(server.port)
        server.start()
        with server.client() as client:
            assert client.ping()
    assert port_is_free(server.port)
    assert server not in running


def test_a_paused_redis_takes_connections_but_does_not_answer_until_it_is_resumed() -> None:
    with RedisServer() as server, server.client(socket_timeout=scaled(0.2)) as client:
        server.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        server.resume()
        assert client.ping()


def test_a_paused_redis_can_be_stopped() -> None:
    with RedisServer() as server:
        server.pause()
    assert not server.is_running
    assert port_is_free(server.port)


def test_a_server_that_fails_to_start_shows_its_log() -> None:
    with RedisServer() as first:
        second = RedisServer(port=first.port)
        with pytest.raises(ServerFailed, match='Address already in use'):
            second.start()
        assert not second.is_running


def test_the_session_redis_is_empty_and_django_points_at_it(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    from django.conf import settings

    assert redis_client.dbsize() == 0
    assert settings.WS4REDIS_CONNECTION['port'] == redis_server.port
    redis_client.set('left', 'behind')


def test_the_session_redis_is_there_again_after_a_test_killed_it(
    redis_server: RedisServer,
) -> None:
    redis_server.kill()
    assert not redis_server.is_running


def test_the_session_redis_was_emptied(redis_client: redis.Redis) -> None:
    assert redis_client.dbsize() == 0


@pytest.mark.parametrize('http', ['http-socket', 'http'])
def test_uwsgi_serves_and_leaves_no_process_and_no_port(http: str) -> None:
    with hello_server(http=http, workers=2) as server:
        pid = int(server.get('/').split()[0])
        assert pid in server.worker_pids()
        processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
        assert len(processes) == (3 if http == 'http-socket' else 4)
    assert still_alive(processes) == []
    assert port_is_free(server.port)


def test_uwsgi_serves_with_threads() -> None:
    with hello_server(gevent=None, threads=2) as server:
        assert server.get('/').split()[1] == sys.prefix


def test_uwsgi_reloads_within_its_virtual_environment() -> None:
    with hello_server() as server:
        before, prefix = server.get('/').split()
        server.reload()
        after, prefix_after = server.get('/').split()
    assert before != after
    assert prefix == prefix_after == sys.prefix


def test_a_killed_uwsgi_worker_is_replaced() -> None:
    with hello_server() as server:
        before = server.worker_pids()
        server.kill_worker()
        assert server.worker_pids() != before
        assert int(server.get('/').split()[0]) == server.worker_pids()[0]


def test_uwsgi_without_its_application_fails_with_its_log() -> None:
    with pytest.raises(ServerFailed, match='no_such_module'):
        UwsgiServer('tests.no_such_module').start()


@pytest.mark.parametrize('autoreload', [False, True])
def test_runserver_serves_and_leaves_no_process(autoreload: bool) -> None:
    # Django's own WSGI handler: this tests the server process, not ws4redis.
    django_settings = {'WSGI_APPLICATION': None}
    with RunserverProcess(autoreload=autoreload, django_settings=django_settings) as server:
        assert server.get('/hello/') == 'hello from Django'
        processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
        assert len(processes) == (2 if autoreload else 1)
    assert still_alive(processes) == []
    assert port_is_free(server.port)


@pytest.mark.django_db(transaction=True)
def test_a_server_sees_the_database_of_its_test(django_user_model: type[User]) -> None:
    django_user_model.objects.create_user('john')
    with RunserverProcess(django_settings={'WSGI_APPLICATION': None}) as server:
        assert server.get('/users/') == 'john'


def test_servers_die_with_a_killed_test_run(tmp_path: Path) -> None:
    program = (
        'import sys; from tests.programs import RedisServer;'
        'server = RedisServer().start(); print(server.port, server.pid, flush=True);'
        'sys.stdin.read()'
    )
    run = subprocess.Popen(
        [sys.executable, '-c', program],
        cwd=ROOT,
        env={**os.environ, 'TMPDIR': str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert run.stdout is not None
    port, pid = (int(word) for word in run.stdout.readline().split())
    assert not port_is_free(port)
    server = psutil.Process(pid)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert still_alive([server]) == []
    # A zombie as soon as its first thread has ended, its others hold the port a moment longer.
    wait_until(lambda: port_is_free(port))


def test_ports_are_not_given_twice() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50


def test_waiting_for_a_log_line_ends_when_the_server_does() -> None:
    with RedisServer() as server:
        started = time.monotonic()
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerFailed, match='ended without a line'):
            server.wait_for_log('never written')
        assert time.monotonic() - started < SOON_SECONDS
