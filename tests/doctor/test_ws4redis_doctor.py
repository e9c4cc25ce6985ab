"""The command as its user runs it: in this process, against real servers."""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command, get_commands
from django.test import override_settings

from tests.clients.cuttable import Cuttable
from tests.free_ports import free_port
from tests.programs import RedisServer, RunserverProcess, UwsgiServer
from tests.standalone.server import StandaloneServer
from tests.timeouts import SOON_SECONDS, scaled

Server = UwsgiServer | RunserverProcess | StandaloneServer


def examine(**options: Any) -> tuple[dict[str, list[dict[str, Any]]], bool]:
    """Run the doctor; return its findings by subject, and whether it found all well."""
    output = StringIO()
    is_well = True
    # Who wants to see a websocket outlive pings says so.
    options.setdefault('quick', True)
    try:
        call_command('ws4redis_doctor', json=True, stdout=output, **options)
    except CommandError:
        is_well = False
    findings: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(output.getvalue()):
        findings.setdefault(finding['subject'], []).append(finding)
    return findings, is_well


def verdicts(findings: list[dict[str, Any]]) -> list[str]:
    return [finding['verdict'] for finding in findings]


def test_a_sound_installation_has_no_errors(redis_server: RedisServer) -> None:
    findings, is_well = examine()
    assert is_well
    assert verdicts(findings['Redis permissions']) == ['ok']
    assert verdicts(findings['pub/sub connection']) == ['ok']
    assert verdicts(findings['settings']) == ['ok']
    assert verdicts(findings['static file']) == ['ok']


def test_text_names_verdict_subject_and_remedy(redis_server: RedisServer) -> None:
    output = StringIO()
    with override_settings(TEMPLATES=[]):
        call_command('ws4redis_doctor', stdout=output, no_color=True)
    lines = output.getvalue().splitlines()
    start = next(i for i, line in enumerate(lines) if 'context processor' in line)
    assert lines[start].startswith('warning context processor: ')
    assert 'ws4redis.context_processors.default' in lines[start + 1]


def test_redis_that_is_not_running_is_an_error() -> None:
    with override_settings(WS4REDIS_CONNECTION={'host': '127.0.0.1', 'port': 1}):
        findings, is_well = examine()
    assert not is_well
    assert verdicts(findings['Redis']) == ['error']
    assert 'Start Redis' in findings['Redis'][0]['remedy']
    assert 'Redis version' not in findings


def test_a_wrong_password_is_told_apart_from_a_redis_that_is_away(
    redis_server: RedisServer,
) -> None:
    connection = redis_server.connection
    with override_settings(WS4REDIS_CONNECTION={**connection, 'password': 'wrong'}):
        findings, is_well = examine()
    assert not is_well
    assert 'refuses the login' in findings['Redis'][0]['text']


def test_missing_rights_are_named(redis_server: RedisServer) -> None:
    client = redis_server.client()
    client.execute_command('ACL', 'SETUSER', 'narrow', 'on', '>secret', '~*', '&*', '+@all', '-set')
    connection = {**redis_server.connection, 'username': 'narrow', 'password': 'secret'}
    try:
        with override_settings(WS4REDIS_CONNECTION=connection):
            findings, is_well = examine()
    finally:
        client.execute_command('ACL', 'DELUSER', 'narrow')
    assert not is_well
    assert verdicts(findings['Redis permissions']) == ['error']
    assert 'SET (' in findings['Redis permissions'][0]['text']
    assert 'PUBLISH (' not in findings['Redis permissions'][0]['text']


def test_a_small_pubsub_buffer_is_a_warning(redis_server: RedisServer) -> None:
    client = redis_server.client()
    before = str(client.config_get('client-output-buffer-limit')['client-output-buffer-limit'])
    client.config_set('client-output-buffer-limit', 'pubsub 1048576 65536 5')
    try:
        findings, _ = examine()
    finally:
        client.config_set('client-output-buffer-limit', before)
    assert verdicts(findings['client-output-buffer-limit pubsub']) == ['warning']


def test_a_runserver_that_starts_another_server_is_noticed(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = tmp_path / 'asgi_server' / 'management' / 'commands'
    commands.mkdir(parents=True)
    (tmp_path / 'asgi_server' / '__init__.py').touch()
    (commands / 'runserver.py').write_text(
        'from django.contrib.staticfiles.management.commands.runserver import Command as Base\n'
        'class Command(Base):\n'
        '    def inner_run(self, *args, **options): pass\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    application = 'ws4redis.django_runserver.application'
    for apps, verdict in ((['asgi_server'], 'error'), ([], 'ok')):
        get_commands.cache_clear()  # type: ignore[attr-defined]
        with override_settings(
            INSTALLED_APPS=[*apps, *settings.INSTALLED_APPS],
            WSGI_APPLICATION=application,
            DEBUG=True,
        ):
            findings, _ = examine()
        assert verdicts(findings['WSGI_APPLICATION']) == [verdict]
        assert ('asgi_server' in findings['WSGI_APPLICATION'][0]['text']) == bool(apps)
    get_commands.cache_clear()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ('changes', 'subject', 'verdict'),
    [
        ({'WS4REDIS_EXPIRE': 'soon'}, 'settings', 'error'),
        ({'WSGI_APPLICATION': 'x.application', 'DEBUG': True}, 'WSGI_APPLICATION', 'error'),
        ({'WSGI_APPLICATION': 'x.application'}, 'WSGI_APPLICATION', 'note'),
        ({'ALLOWED_HOSTS': []}, 'ALLOWED_HOSTS', 'error'),
        (
            {
                'SESSION_ENGINE': 'django.contrib.sessions.backends.cache',
                'CACHES': {'default': {'BACKEND': 'django.core.cache.backends.locmem.LocMemCache'}},
            },
            'session engine',
            'error',
        ),
        (
            {'SESSION_ENGINE': 'django.contrib.sessions.backends.signed_cookies'},
            'session engine',
            'ok',
        ),
        ({'STATICFILES_FINDERS': []}, 'static file', 'error'),
        ({'STATIC_ROOT': '/nonexistent'}, 'static file', 'warning'),
        ({'WS4REDIS_MAX_CONNECTIONS': 10**9}, 'file descriptors', 'error'),
    ],
)
def test_a_fault_in_the_settings_is_found(
    redis_server: RedisServer, changes: dict[str, Any], subject: str, verdict: str
) -> None:
    with override_settings(**changes):
        findings, is_well = examine()
    assert verdict in verdicts(findings[subject])
    assert is_well == (verdict != 'error')


def test_uwsgis_options_are_examined(redis_server: RedisServer, tmp_path: Path) -> None:
    path = tmp_path / 'wsserver.ini'
    path.write_text(
        '[uwsgi]\nhttp = :80\n; gevent = 100\nmodule = wsgi\nmaster\nbuffer-size = 4096\n'
    )
    findings, is_well = examine(uwsgi=[str(path)])
    assert not is_well
    texts = ' '.join(finding['text'] + finding['remedy'] for finding in findings['uWSGI'])
    assert '--gevent 100' in texts
    assert 'http-websockets' in texts
    assert 'buffer-size' in texts

    path.write_text(
        '[uwsgi]\nhttp = :80\nhttp-websockets = true\ngevent = 100\n'
        'buffer-size = 32768\ndie-on-term = true\n[other]\nhttps-socket = :443\n'
    )
    findings, is_well = examine(uwsgi=[str(path)])
    assert is_well
    assert set(verdicts(findings['uWSGI'])) == {'ok'}


def test_options_that_end_workers_with_their_websockets_are_warned_of(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    path = tmp_path / 'wsserver.ini'
    path.write_text(
        '[uwsgi]\nhttp-socket = :80\ngevent = 100\nbuffer-size = 32768\ndie-on-term = true\n'
        'max-requests = 1000\nidle = 60\nharakiri = 30\ngevent-monkey-patch\n'
    )
    findings, is_well = examine(uwsgi=[str(path)])
    assert is_well
    by_text = {finding['text']: finding['verdict'] for finding in findings['uWSGI']}
    for option, verdict in {
        'max-requests': 'warning',
        'idle': 'warning',
        'gevent-monkey-patch': 'warning',
        'harakiri': 'note',
    }.items():
        assert [v for text, v in by_text.items() if option in text] == [verdict]


def test_a_file_that_is_not_there_is_an_error(redis_server: RedisServer) -> None:
    findings, is_well = examine(uwsgi=['/nonexistent.ini'])
    assert not is_well
    assert 'cannot be read' in findings['uWSGI'][0]['text']


@pytest.fixture(scope='module', params=['uwsgi', 'router', 'runserver', 'native'])
def server(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[Server]:
    servers: dict[str, Callable[[], Server]] = {
        'native': lambda: StandaloneServer(redis_server=redis_server, django_settings={}),
        'uwsgi': lambda: UwsgiServer(redis_server=redis_server),
        'router': lambda: UwsgiServer(
            redis_server=redis_server, http='http', options=['--http-websockets']
        ),
        'runserver': lambda: RunserverProcess(redis_server=redis_server),
    }
    with servers[request.param]() as running:
        yield running


def test_every_hop_of_the_chain_is_timed(server: Server, redis_server: RedisServer) -> None:
    findings, is_well = examine(url=f'ws://127.0.0.1:{server.port}/ws/')
    assert is_well
    for subject in ('connection', 'handshake', 'ping', 'message'):
        assert verdicts(findings[subject]) == ['ok']
        assert findings[subject][0]['details']['milliseconds'] > 0


def test_the_doctor_tells_which_door_answers_and_that_event_streams_arrive(
    server: Server, redis_server: RedisServer
) -> None:
    findings, is_well = examine(url=f'ws://127.0.0.1:{server.port}/ws/')
    assert is_well
    opens, brings = findings['event stream']
    assert (opens['verdict'], brings['verdict']) == ('ok', 'ok')
    doors = {UwsgiServer: 'uwsgi', RunserverProcess: 'wsgi', StandaloneServer: 'run_wsserver'}
    assert findings['door'][0]['details']['server'] == doors[type(server)]


class HoldingProxy(Cuttable):
    """A proxy that waits for the end of a stream, or, with ``lets_head``, of its first event."""

    lets_head = False

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        head = source.recv(65536)
        if b'text/event-stream; charset' not in head:
            target.sendall(head)
            super()._forward(source, target)
            return
        if self.lets_head:
            target.sendall(head)
        while source.recv(65536):
            pass


@pytest.mark.parametrize('lets_head', [False, True])
def test_a_proxy_that_holds_event_streams_back_is_noticed(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, lets_head: bool
) -> None:
    monkeypatch.setattr('ws4redis.doctor.probe.TIMEOUT_SECONDS', scaled(1))
    monkeypatch.setattr(HoldingProxy, 'lets_head', lets_head)
    with RunserverProcess(redis_server=redis_server) as server, HoldingProxy(server.port) as proxy:
        findings, is_well = examine(url=f'ws://127.0.0.1:{proxy.port}/ws/', origin='')
    # Websockets get through, so nothing has to be mended.
    assert is_well
    assert verdicts(findings['message']) == ['ok']
    assert findings['event stream'][-1]['verdict'] == 'warning'
    assert 'X-Accel-Buffering' in findings['event stream'][-1]['remedy']


def test_a_foreign_origin_is_explained(server: Server, redis_server: RedisServer) -> None:
    findings, is_well = examine(
        url=f'ws://127.0.0.1:{server.port}/ws/', origin='https://elsewhere.example'
    )
    assert not is_well
    assert findings['handshake'][0]['details']['status'] == 403
    assert 'WS4REDIS_ALLOWED_ORIGINS' in findings['handshake'][0]['remedy']


def test_the_origin_is_that_of_the_url_unless_told_otherwise(
    server: Server, redis_server: RedisServer
) -> None:
    url = f'ws://127.0.0.1:{server.port}/ws/'
    assert examine(url=url)[1]
    assert examine(url=url, origin='')[1]
    assert not examine(url=url, origin='null')[1]


@pytest.mark.parametrize(
    ('allowed_here', 'remedy'),
    [
        (['127.0.0.1'], "Add 'localhost' to ALLOWED_HOSTS"),
        (['127.0.0.1', 'localhost'], 'proxy_set_header Host $http_host;'),
    ],
)
def test_a_host_that_is_not_allowed_is_told_from_one_that_a_proxy_replaced(
    redis_server: RedisServer, allowed_here: list[str], remedy: str
) -> None:
    with (
        RunserverProcess(
            redis_server=redis_server, django_settings={'ALLOWED_HOSTS': ['127.0.0.1']}
        ) as server,
        override_settings(ALLOWED_HOSTS=allowed_here),
    ):
        findings, is_well = examine(url=f'ws://localhost:{server.port}/ws/')
    assert not is_well
    assert findings['handshake'][0]['details']['status'] == 400
    assert remedy in findings['handshake'][0]['remedy']


PINGS = {'WS4REDIS_PING_INTERVAL': 1, 'WS4REDIS_PING_TIMEOUT': SOON_SECONDS}


def test_a_quiet_websocket_is_seen_to_outlive_two_pings(redis_server: RedisServer) -> None:
    with (
        RunserverProcess(redis_server=redis_server, django_settings=PINGS) as server,
        override_settings(**PINGS),
    ):
        findings, is_well = examine(url=f'ws://127.0.0.1:{server.port}/ws/', quick=False)
    assert is_well
    assert verdicts(findings['quiet websocket']) == ['ok']


def test_a_proxy_that_closes_quiet_websockets_is_noticed(redis_server: RedisServer) -> None:
    pings = {'WS4REDIS_PING_INTERVAL': 600}
    with (
        RunserverProcess(redis_server=redis_server, django_settings=pings) as server,
        impatient_proxy(server.port) as port,
        override_settings(**pings),
    ):
        findings, is_well = examine(url=f'ws://127.0.0.1:{port}/ws/', origin='', quick=False)
    assert not is_well
    assert verdicts(findings['message']) == ['ok']
    assert verdicts(findings['quiet websocket']) == ['error']
    assert 'proxy_read_timeout' in findings['quiet websocket'][0]['remedy']


@contextmanager
def impatient_proxy(port: int, patience_seconds: float = 1.0) -> Iterator[int]:
    """Pass one connection on to a port, and end it when neither side has said anything."""

    def serve() -> None:
        client, _ = listener.accept()
        with client, socket.create_connection(('127.0.0.1', port)) as upstream:
            others = {client: upstream, upstream: client}
            while ready := select.select(list(others), [], [], patience_seconds)[0]:
                for sock in ready:
                    others[sock].sendall(sock.recv(65536))

    with socket.create_server(('127.0.0.1', 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(SOON_SECONDS)


def test_pings_that_do_not_come_are_noticed(redis_server: RedisServer) -> None:
    pings = {'WS4REDIS_PING_INTERVAL': 600}
    with (
        RunserverProcess(redis_server=redis_server, django_settings=pings) as server,
        override_settings(WS4REDIS_PING_INTERVAL=0.1),
        patch('ws4redis.doctor.probe.TIMEOUT_SECONDS', 1.0),
    ):
        findings, _ = examine(url=f'ws://127.0.0.1:{server.port}/ws/', quick=False)
    assert verdicts(findings['quiet websocket']) == ['warning']
    assert 'got 0 pings' in findings['quiet websocket'][0]['text']


def test_another_prefix_than_the_servers_is_noticed(
    server: Server, redis_server: RedisServer
) -> None:
    with override_settings(WS4REDIS_PREFIX='elsewhere'):
        findings, is_well = examine(url=f'ws://127.0.0.1:{server.port}/ws/')
    assert not is_well
    assert 'WS4REDIS_PREFIX' in findings['message'][0]['remedy']


def test_a_router_without_its_option_is_explained(redis_server: RedisServer) -> None:
    # With a socket besides it starts all the same, since websockets might come by that.
    address = f'127.0.0.1:{free_port()}'
    options = ['--socket', address, '--http-to', address]
    with UwsgiServer(redis_server=redis_server, http='http', options=options) as server:
        findings, is_well = examine(url=f'ws://127.0.0.1:{server.port}/ws/')
    assert not is_well
    assert verdicts(findings['handshake']) == ['ok']
    assert '--http-websockets' in findings['ping'][0]['remedy']


def test_a_page_in_place_of_the_websocket_loop_is_explained(
    server: Server, redis_server: RedisServer
) -> None:
    findings, is_well = examine(url=f'ws://127.0.0.1:{server.port}/elsewhere/')
    assert not is_well
    assert findings['handshake'][0]['details']['status'] == 404


@pytest.mark.parametrize('url', ['http://localhost/ws/', 'ws://', 'localhost:8000'])
def test_an_address_that_is_none_is_refused(redis_server: RedisServer, url: str) -> None:
    findings, is_well = examine(url=url)
    assert not is_well
    assert 'is not the address of a websocket' in findings['websocket'][0]['text']


def test_a_server_that_is_not_running_is_an_error(redis_server: RedisServer) -> None:
    findings, is_well = examine(url='ws://127.0.0.1:1/ws/')
    assert not is_well
    assert 'cannot be reached' in findings['connection'][0]['text']


def test_tls_that_nobody_speaks_is_an_error(server: Server, redis_server: RedisServer) -> None:
    findings, is_well = examine(url=f'wss://127.0.0.1:{server.port}/ws/')
    assert not is_well
    assert verdicts(findings['connection']) == ['error']
