"""What goes wrong, or is set up otherwise: Redis away, wrong settings, Unix sockets, reloads."""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
import urllib.error
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from django.test import override_settings

from tests.e2e.conftest import Connect, post, refused
from tests.e2e.kinds import KINDS, SETTINGS, runserver, uwsgi
from tests.programs import RedisServer, RunserverProcess, ServerFailed, UwsgiServer
from tests.timeouts import SERVER_SECONDS, wait_until
from ws4redis.publisher import RedisPublisher

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parent.parent.parent


# Redis


@pytest.mark.parametrize('kind', ['gevent', 'threads', 'runserver'])
def test_without_redis_at_the_start_it_is_said_once_and_served_when_redis_comes(
    connect: Connect, transactional_db: None, kind: str
) -> None:
    with RedisServer() as redis_server:
        redis_server.stop()
        with KINDS[kind](redis_server, {}) as server:
            websocket = connect(server, 'foo?subscribe-broadcast&publish-broadcast&echo')
            server.wait_for_log(r'cannot connect to Redis \(pub/sub\)')
            websocket.send('waits for Redis')
            server.wait_for_log(r'cannot connect to Redis \(commands\)')
            redis_server.start()
            server.wait_for_log(r'connected to Redis again \(pub/sub\)')
            server.wait_for_log(r'connected to Redis again \(commands\)')
            # Either live, or as the kept message.
            assert websocket.receive() == 'waits for Redis'
            for link in (r'\(pub/sub\)', r'\(commands\)'):
                said = re.findall(f'cannot connect to Redis {link}', server.log_text())
                assert len(said) == 1
            late = connect(server, 'foo?subscribe-broadcast')
            assert late.receive() == 'waits for Redis'


@pytest.mark.parametrize('kind', ['gevent', 'runserver'])
def test_a_redis_that_restarts_is_found_again_and_nothing_is_lost_or_repeated(
    connect: Connect, transactional_db: None, kind: str
) -> None:
    with RedisServer() as redis_server, KINDS[kind](redis_server, {}) as server:
        websocket = connect(server, 'foo?subscribe-broadcast')
        sender = connect(server, 'foo?publish-broadcast')
        sender.send('before')
        assert websocket.receive() == 'before'
        since = server.log_position()
        # Redis has confirmed it by now, too. Otherwise it would be published again, as documented.
        with redis_server.client() as client:
            client.ping()
        redis_server.kill()
        server.wait_for_log(r'lost the connection to Redis \(commands\)', since=since)
        sender.send('meanwhile')
        redis_server.start()
        assert websocket.receive(timeout=20) == 'meanwhile'
        sender.send('after')
        assert websocket.receive() == 'after'


def test_the_publisher_raises_redis_connection_error_to_the_view(redis_server: RedisServer) -> None:
    nobody = {'host': '127.0.0.1', 'port': 1}
    with override_settings(WS4REDIS_CONNECTION=nobody):
        with pytest.raises(redis.ConnectionError):
            RedisPublisher(facility='foo', broadcast=True).publish_message('lost')
        with pytest.raises(redis.ConnectionError):
            RedisPublisher().fetch_message(None, 'foo', 'broadcast')


@pytest.mark.parametrize('kind', ['gevent', 'runserver'])
def test_a_view_that_publishes_without_redis_gets_its_connection_error(
    transactional_db: None, kind: str
) -> None:
    with RedisServer() as redis_server:
        redis_server.stop()
        with KINDS[kind](redis_server, {}) as server:
            with pytest.raises(urllib.error.HTTPError) as caught:
                post(server, '/publish/', facility='foo', to='broadcast', message='lost')
            caught.value.close()
            assert caught.value.code == 500
            server.wait_for_log(r'redis\.exceptions\.ConnectionError')
            redis_server.start()
            # Views need no restart either.
            answer = post(server, '/publish/', facility='foo', to='broadcast', message='hello')
            assert answer == '{"channels": ["broadcast:foo"]}'


@pytest.mark.parametrize('kind', ['gevent', 'runserver'])
def test_redis_on_a_unix_socket(
    start: Any, connect: Connect, redis_server: RedisServer, redis_client: redis.Redis, kind: str
) -> None:
    server = start(KINDS[kind], WS4REDIS_CONNECTION=redis_server.unix_connection)
    websocket = connect(server, 'foo?subscribe-broadcast&publish-broadcast&echo')
    with override_settings(WS4REDIS_CONNECTION=redis_server.unix_connection):
        RedisPublisher(facility='foo', broadcast=True).publish_message('through the socket')
    assert websocket.receive() == 'through the socket'
    websocket.send('back')
    assert websocket.receive() == 'back'
    assert redis_client.get('broadcast:foo') == b'back'


def test_redis_with_a_password_another_user_and_another_database(connect: Connect) -> None:
    with RedisServer(password='secret') as redis_server, redis_server.client() as client:
        client.execute_command('ACL', 'SETUSER', 'loop', 'on', '>loops own', '+@all', '~*', '&*')
        connection = {
            **redis_server.connection,
            'username': 'loop',
            'password': 'loops own',
            'db': 5,
        }
        with uwsgi(redis_server, {'WS4REDIS_CONNECTION': connection}) as server:
            websocket = connect(server, 'foo?subscribe-broadcast&publish-broadcast&echo')
            websocket.send('hello')
            assert websocket.receive() == 'hello'
            client.select(5)
            assert client.get('broadcast:foo') == b'hello'
            assert 'loops own' not in server.log_text()


# Settings


WRONG_SETTINGS = {
    'WS4REDIS_SUBSCRIBER': 'tests.no_such_module.Subscriber',
    'WS4REDIS_ALLOWED_CHANNELS': 'tests.e2e.callbacks.no_such_function',
    'WS4REDIS_PROCESS_REQUEST': 42,
    'WS4REDIS_EXPIRE': 'an hour',
    'WS4REDIS_CONNECTION': 'localhost:6379',
    'WEBSOCKET_URL': 'ws/',
    'WS4REDIS_HEARTBEAT': 5,
}


@pytest.mark.parametrize('name', WRONG_SETTINGS)
def test_uwsgi_does_not_start_with_a_wrong_setting_and_names_it(
    redis_server: RedisServer, name: str
) -> None:
    settings = {name: WRONG_SETTINGS[name]}
    with pytest.raises(ServerFailed, match=f'ImproperlyConfigured: {name}'):
        uwsgi(redis_server, settings).start()


def test_runserver_does_not_start_with_a_wrong_setting_and_names_it(
    redis_server: RedisServer,
) -> None:
    with pytest.raises(ServerFailed, match='WS4REDIS_EXPIRE'):
        runserver(redis_server, {'WS4REDIS_EXPIRE': 'an hour'}).start()


def test_uwsgi_that_runs_no_thread_beside_its_requests_is_refused(
    redis_server: RedisServer,
) -> None:
    class Single(UwsgiServer):
        def command(self) -> list[str]:
            return [word for word in super().command() if word != '--enable-threads']

    server = Single(gevent=None, redis_server=redis_server, django_settings=SETTINGS)
    with pytest.raises(ServerFailed, match='ImproperlyConfigured: .*--gevent'):
        server.start()


# runserver


def test_runserver_reloads_changed_code_and_websockets_come_back(
    redis_server: RedisServer, connect: Connect, tmp_path: Path
) -> None:
    module = tmp_path / 'changing_callbacks.py'
    template = 'def allowed_channels(request, channels):\n    return [{option!r}]\n'
    module.write_text(template.format(option='subscribe-broadcast'), encoding='utf-8')
    server = RunserverProcess(
        redis_server=redis_server,
        autoreload=True,
        django_settings=SETTINGS
        | {'WS4REDIS_ALLOWED_CHANNELS': 'changing_callbacks.allowed_channels'},
        env={'PYTHONDONTWRITEBYTECODE': '1'},
    )
    environment = server.environment()
    server._extra_env['PYTHONPATH'] = os.pathsep.join([environment['PYTHONPATH'], str(tmp_path)])
    address = 'foo?subscribe-broadcast&publish-broadcast'
    with server, redis_server.client() as client:
        websocket = connect(server, address)
        assert server.get('/hello/') == 'hello from Django'
        client.publish('broadcast:foo', 'hello')
        assert websocket.receive() == 'hello'
        since = server.log_position()
        module.write_text(template.format(option='publish-broadcast'), encoding='utf-8')
        now = module.stat().st_mtime
        moments = itertools.count(int(now) + 10)

        def reloads() -> bool:
            # The reloader compares with what it saw first, and nothing tells when that was.
            os.utime(module, (now, next(moments)))
            return 'changed, reloading' in server.log_text(since)

        wait_until(reloads, timeout=SERVER_SECONDS)
        assert websocket.receive_close()[0] in {1001, 1006, 1012}
        server.wait_until_ready(since)
        again = connect(server, address)
        again.send('new code')
        wait_until(lambda: client.get('broadcast:foo') == b'new code')
        assert not client.pubsub_channels('broadcast:*')


def test_runserver_serves_static_files_beside_websockets_and_views(
    redis_server: RedisServer, connect: Connect, redis_client: redis.Redis
) -> None:
    with runserver(redis_server, {'DEBUG': True, 'ALLOWED_HOSTS': []}) as server:
        websocket = connect(server, 'foo?subscribe-broadcast')
        assert 'WS4Redis' in server.get('/static/js/ws4redis.js')
        assert server.get('/hello/') == 'hello from Django'
        redis_client.publish('broadcast:foo', 'hello')
        assert websocket.receive() == 'hello'


def test_runserver_ends_at_once_with_websockets_open(
    redis_server: RedisServer, connect: Connect
) -> None:
    with runserver(redis_server, {}) as server:
        websockets = [connect(server, 'foo?subscribe-broadcast') for _ in range(5)]
        server.stop()
    for websocket in websockets:
        assert websocket.receive_close()[0] in {1001, 1006, 1012}


# uWSGI


def test_a_reloaded_worker_frees_all_and_serves_again(
    redis_server: RedisServer, connect: Connect, redis_client: redis.Redis
) -> None:
    with uwsgi(redis_server, {}) as server:
        websocket = connect(server, 'foo?subscribe-broadcast')
        server.reload()
        assert websocket.receive_close(timeout=SERVER_SECONDS)[0] == 1012
        again = connect(server, 'foo?subscribe-broadcast')
        redis_client.publish('broadcast:foo', 'hello')
        assert again.receive() == 'hello'


def test_a_worker_whose_websockets_come_and_go_holds_no_descriptor_of_them(
    redis_server: RedisServer, connect: Connect
) -> None:
    with uwsgi(redis_server, {}) as server:
        connect(server, 'foo?subscribe-broadcast')
        worker = psutil.Process(server.worker_pids()[0])
        before = worker.num_fds()
        for number in range(100):
            websocket = connect(server, f'foo{number}?subscribe-broadcast&publish-broadcast')
            if number % 3 == 0:
                websocket.close()
            elif number % 3 == 1:
                websocket.reset()
            else:
                websocket.socket.close()
        for _ in range(20):
            assert refused(server, '/ws/foo', Sec_WebSocket_Key=None).status == 400
        wait_until(lambda: worker.num_fds() <= before)


def test_many_handshakes_at_once_are_more_than_the_greenlets_that_answer_them(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    from tests.websocket_client import WebSocketCrowd

    with uwsgi(redis_server, {}, gevent=3) as server:
        url = f'{server.ws_url}/ws/foo?subscribe-broadcast'
        with WebSocketCrowd([url] * 100) as crowd:
            redis_client.publish('broadcast:foo', 'to all')
            assert crowd.receive(1) == [['to all']] * 100


# The examples


@pytest.mark.parametrize(
    ('module', 'serves_views', 'serves_websockets'),
    [('wsgi', True, True), ('wsgi_django', True, False), ('wsgi_websocket', False, True)],
)
def test_the_wsgi_modules_of_the_examples_serve_what_they_say(
    redis_server: RedisServer,
    redis_client: redis.Redis,
    connect: Connect,
    tmp_path: Path,
    module: str,
    serves_views: bool,
    serves_websockets: bool,
) -> None:
    examples = ROOT / 'examples'
    env = {
        'WS4REDIS_URL': redis_server.url,
        'CHATSERVER_DATABASE': str(tmp_path / 'chat.sqlite3'),
        'DJANGO_SETTINGS_MODULE': 'chatserver.settings',
    }
    import subprocess

    subprocess.run(
        [sys.executable, 'manage.py', 'migrate', '--verbosity', '0'],
        cwd=examples,
        env={**os.environ, **env},
        check=True,
        timeout=SERVER_SECONDS,
    )
    server = UwsgiServer(
        module,
        settings='chatserver.settings',
        env=env,
        cwd=examples,
        options=['--pythonpath', str(examples)],
    )
    with server:
        if serves_views:
            assert '<html' in server.get('/chat/')
        if serves_websockets:
            address = 'foobar?subscribe-broadcast&publish-broadcast&echo'
            websocket = connect(server, address)
            redis_client.publish('broadcast:foobar', json.dumps('hello'))
            assert websocket.receive() == '"hello"'
            websocket.close()
        else:
            assert refused(server, '/ws/foobar?subscribe-broadcast').status == 404
