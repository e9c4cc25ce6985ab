"""The client protocol over streams, against Centrifuge's own client: `sse` and `http_stream`."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import quote

import pytest
import redis
from django.test import override_settings

from tests.clients.cuttable import Cuttable
from tests.clients.node_client import NodeClient, NodeError
from tests.clients.project import SETTINGS
from tests.clients.scenarios import assert_what_was_missed_is_recovered, publish
from tests.e2e.kinds import KINDS
from tests.programs import RedisServer
from tests.serving import Served, served
from tests.timeouts import SOON_SECONDS, wait_until
from ws4redis.applications.wsgi import WebSocketServer
from ws4redis.control import disconnect
from ws4redis.protocol.client.streams import MAX_BODY_BYTES
from ws4redis.tokens import connection_token

TRANSPORTS = ['sse', 'http_stream']
CONNECT = '{"id": 1, "connect": {}}'
PING = '{"id": 900, "ping": {}}'
SSE = {'Accept': 'text/event-stream'}
JSON = {'Content-Type': 'application/json'}
Connect = Callable[..., NodeClient]


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def streams(transport: str) -> Iterator[Connect]:
    """Start a client in Node and connect it: ``streams(port, **options)``."""
    with ExitStack() as stack:

        def start(
            port: int, *, folder: str = '/connection', connects: bool = True, **options: Any
        ) -> NodeClient:
            url = f'http://127.0.0.1:{port}{folder}'
            client = stack.enter_context(NodeClient.over_streams(transport, url, **options))
            if connects:
                client.run('centrifuge.connect(); await centrifuge.ready();')
            return client

        yield start


def say(client: NodeClient, data: str, session: str = 'centrifuge._session') -> None:
    """Send a text by the client's own transport, which its codec would not have let through."""
    client.run(f'centrifuge._transport.send({json.dumps(data)}, {session}, centrifuge._node);')


class Answer:
    """What a server says to a request that is no stream."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.text = response.read().decode() if self.status != 200 or self.is_whole else ''

    @property
    def is_whole(self) -> bool:
        return 'content-length' in self.headers


def ask(
    server: Any,
    method: str,
    path: str,
    body: str | bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    connection = http.client.HTTPConnection('127.0.0.1', server.port, timeout=SOON_SECONDS)
    try:
        connection.request(method, path, body, dict(headers or {}))
        return Answer(connection.getresponse())
    finally:
        connection.close()


def emulate(server: Any, session: str, node: str, data: str = '{}', **headers: str) -> Answer:
    body = json.dumps({'session': session, 'node': node, 'data': data})
    return ask(server, 'POST', '/connection/emulation', body, {**JSON, **headers})


# Centrifuge's client


def test_it_subscribes_publishes_and_calls(server: Served, streams: Connect) -> None:
    client = streams(server.port)
    told = client.subscribe('chat/1')
    assert told['recoverable'] is told['positioned'] is True
    client.run("await subs['chat/1'].publish({a: [1, 'ü']}); await subs['chat/1'].publish('text');")
    publish('chat/1', None, 7)
    assert client.received('chat/1', 4) == [{'a': [1, 'ü']}, 'text', None, 7]
    assert client.run("return centrifuge.rpc('add', [1, 2]);")['data']['sum'] == 3
    with pytest.raises(NodeError) as caught:
        client.run("return centrifuge.rpc('unknown', 1);")
    assert caught.value.thrown['code'] == 104
    told = client.subscribe('private')
    assert (told['name'], told['code']) == ('sub_unsubscribed', 103)


def test_channels_may_have_long_names_and_short_ones(server: Served, streams: Connect) -> None:
    client = streams(server.port)
    client.subscribe('open')
    client.subscribe('broadcast:open/2')
    for facility in ('open', 'open/2'):
        publish(facility, 'line\nbreak', 2)
    for name in ('open', 'broadcast:open/2'):
        assert client.received(name, 2) == ['line\nbreak', 2]


def test_what_was_missed_is_recovered_after_a_cut(server: Served, streams: Connect) -> None:
    with Cuttable(server.port) as proxy:
        client = streams(proxy.port)
        assert_what_was_missed_is_recovered(client, proxy)


def test_a_client_learns_why_it_is_disconnected(server: Served, streams: Connect) -> None:
    client = streams(server.port)
    say(client, '{"id": 7, "connect": {}}')
    told = client.event('disconnected')
    assert (told['code'], told['reason']) == (3501, 'bad request')


def test_a_disconnection_that_is_temporary_lets_it_come_back(
    server: Served, streams: Connect
) -> None:
    client = streams(server.port, token=connection_token('mary'))
    client.subscribe('open')
    disconnect(user='mary', code=3011)
    assert client.event('connecting', 2)['code'] == 3011
    client.event('connected', 2)
    client.event('sub_subscribed', 2)


def test_a_session_that_is_not_its_own_is_refused_and_it_begins_anew(
    server: Served, streams: Connect
) -> None:
    client = streams(server.port)
    say(client, '{}', session="'x'")
    client.event('connected', 2)
    assert client.run("return centrifuge.rpc('echo', 1);") == {'data': 1}


def test_pings_are_answered_by_requests(redis_server: RedisServer, streams: Connect) -> None:
    options = {'WS4REDIS_PING_INTERVAL': 1, 'WS4REDIS_PING_TIMEOUT': 1}
    with override_settings(**SETTINGS, **options), served(WebSocketServer()) as server:
        client = streams(server.port)
        client.run("""
            const transport = centrifuge._transport, send = transport.send;
            globalThis.pongs = [];
            transport.send = function (data, session, node) {
                pongs.push(data);
                note('pong', {});
                return send.call(transport, data, session, node);
            };
        """)
        client.event('pong', 3)
        assert client.run('return pongs.slice(0, 3);') == ['{}'] * 3
        assert client.run('return centrifuge.state;') == 'connected'


def test_a_client_that_answers_no_ping_is_let_go_of(
    redis_server: RedisServer, streams: Connect
) -> None:
    options = {'WS4REDIS_PING_INTERVAL': 1, 'WS4REDIS_PING_TIMEOUT': 1}
    with override_settings(**SETTINGS, **options), served(WebSocketServer()) as server:
        client = streams(server.port)
        client.run('centrifuge._transport.send = function () {};')
        assert client.event('connecting', 2)['code'] == 3012


@pytest.mark.parametrize('kind', ['gevent', 'threads', 'router', 'runserver', 'alone-native'])
def test_all_servers_carry_them(
    redis_server: RedisServer, django_db_setup: None, streams: Connect, kind: str
) -> None:
    # Where a project leads all websockets by their prefix to the websocket loop.
    settings = {**SETTINGS, 'WS4REDIS_CLIENT_URL': 'connection/websocket'}
    with KINDS[kind](redis_server, settings) as server, override_settings(**SETTINGS):
        client = streams(server.port, folder='/ws/connection')
        client.subscribe('chat/1')
        client.run("await subs['chat/1'].publish(1);")
        publish('chat/1', 2)
        assert client.received('chat/1', 2) == [1, 2]


@contextmanager
def other_server(redis_server: RedisServer) -> Iterator[Any]:
    with KINDS['alone-native'](redis_server, SETTINGS) as other:
        yield other


def test_another_process_passes_on_what_a_client_says(
    server: Served, redis_server: RedisServer, streams: Connect, django_db_setup: None
) -> None:
    with other_server(redis_server) as other:
        emulation = f'{other.url}/connection/emulation'
        client = streams(server.port, emulationEndpoint=emulation)
        client.subscribe('chat/1')
        client.run("await subs['chat/1'].publish(1);")
        assert client.received('chat/1', 1) == [1]


def test_a_process_that_has_gone_lets_its_clients_begin_anew(
    server: Served, redis_server: RedisServer, streams: Connect, django_db_setup: None
) -> None:
    client = streams(server.port)
    client.run("centrifuge._node = 'f00';")
    client.run("centrifuge.rpc('echo', 1).catch(function () {});")
    client.event('connected', 2)
    assert client.run("return centrifuge.rpc('echo', 1);") == {'data': 1}


# What is refused


def test_only_whoever_asks_as_a_client_gets_a_stream(server: Served) -> None:
    sse = f'/connection/sse?cf_connect={quote(CONNECT)}'
    assert ask(server, 'GET', sse, headers=SSE).status == 200
    # A link or a picture of another page.
    assert ask(server, 'GET', sse).status == 406
    assert ask(server, 'GET', '/connection/sse', headers=SSE).status == 400
    assert ask(server, 'POST', sse, CONNECT, JSON).status == 405
    stream = '/connection/http_stream'
    assert ask(server, 'POST', stream, CONNECT, JSON).status == 200
    assert ask(server, 'GET', stream).headers['allow'] == 'POST, OPTIONS'
    protobuf = {'Content-Type': 'application/octet-stream'}
    for kind in (protobuf, {'Content-Type': 'text/plain'}, {}):
        assert ask(server, 'POST', stream, CONNECT, kind).status == 415


@pytest.mark.parametrize(
    'commands',
    [
        '',
        'nonsense',
        '{"id": 1, "rpc": {"method": "add", "data": [1]}}',
        f'{CONNECT}\n{{"id": 2, "publish": {{"channel": "open", "data": 1}}}}',
    ],
)
def test_a_stream_begins_with_connect_and_does_no_more(
    server: Served, redis_client: redis.Redis, commands: str
) -> None:
    sse = f'/connection/sse?cf_connect={quote(commands)}'
    assert ask(server, 'GET', sse, headers=SSE).status == 400
    assert ask(server, 'POST', '/connection/http_stream', commands, JSON).status == 400
    assert redis_client.get('broadcast:open') is None


def test_pages_of_other_sites_get_nothing(server: Served) -> None:
    foreign = {'Origin': 'http://evil.example'}
    sse = f'/connection/sse?cf_connect={quote(CONNECT)}'
    assert ask(server, 'GET', sse, headers={**SSE, **foreign}).status == 403
    assert (
        ask(server, 'POST', '/connection/http_stream', CONNECT, {**JSON, **foreign}).status == 403
    )
    assert emulate(server, 'x', 'y', **foreign).status == 403
    for path in ('sse', 'http_stream', 'emulation'):
        assert ask(server, 'OPTIONS', f'/connection/{path}', headers=foreign).status == 403
    # A page that cannot read the answer sends no Origin.
    blind = {'Sec-Fetch-Site': 'cross-site'}
    assert ask(server, 'GET', sse, headers={**SSE, **blind}).status == 403
    assert emulate(server, 'x', 'y', **blind).status == 403


def test_pages_that_are_named_may_ask_first(server: Served) -> None:
    origin = {'Origin': 'https://friend.example'}
    with override_settings(WS4REDIS_ALLOWED_ORIGINS=['https://friend.example']):
        answer = ask(server, 'OPTIONS', '/connection/emulation', headers=origin)
        assert answer.status == 200
        assert answer.headers['access-control-allow-origin'] == 'https://friend.example'
        assert answer.headers['access-control-allow-methods'] == 'POST, OPTIONS'
        assert answer.headers['access-control-allow-headers'] == 'Content-Type'
        answer = ask(server, 'POST', '/connection/http_stream', CONNECT, {**JSON, **origin})
        assert answer.headers['access-control-allow-origin'] == 'https://friend.example'


@pytest.mark.parametrize(
    ('body', 'headers', 'status'),
    [
        ('nonsense', JSON, 400),
        ('[' * 50_000, JSON, 400),
        ('[]', JSON, 400),
        ('{"session": 1, "node": "x", "data": "{}"}', JSON, 400),
        ('{"session": "x", "node": "x"}', JSON, 400),
        ('{"session": "x", "node": "x", "data": "\\ud800"}', JSON, 400),
        ('{}', {}, 415),
        ('x' * (MAX_BODY_BYTES + 1), JSON, 413),
        ('{"session": "x", "node": "none", "data": "{}"}', JSON, 404),
        ('{"session": "x", "node": "a:b\\nc", "data": "{}"}', JSON, 404),
        ('{"session": "\\ud800", "node": "none", "data": "{}"}', JSON, 404),
    ],
)
@pytest.mark.parametrize('kind', ['runserver', 'native'])
def test_what_is_no_emulation_is_refused(
    refusing: Mapping[str, Any], body: str, headers: dict[str, str], status: int, kind: str
) -> None:
    answer = ask(refusing[kind], 'POST', '/connection/emulation', body, headers)
    assert answer.status == status, answer.text


@pytest.fixture(scope='module')
def refusing(redis_server: RedisServer, django_db_setup: None) -> Iterator[Mapping[str, Any]]:
    with (
        KINDS['runserver'](redis_server, SETTINGS) as runserver,
        KINDS['alone-native'](redis_server, SETTINGS) as native,
    ):
        yield {'runserver': runserver, 'native': native}


def test_frames_are_as_large_and_as_many_as_on_a_websocket(
    redis_server: RedisServer, streams: Connect
) -> None:
    options = {'WS4REDIS_MAX_MESSAGE_SIZE': 1000, 'WS4REDIS_MAX_MESSAGES_PER_SECOND': 1}
    with override_settings(**SETTINGS, **options), served(WebSocketServer()) as server:
        client = streams(server.port)
        session, node = client.run('return [centrifuge._session, centrifuge._node];')
        assert emulate(server, session, node, 'x' * 1001).status == 413
        statuses = {emulate(server, session, node).status for _ in range(5)}
        assert statuses == {200, 429}


def test_what_is_said_while_code_is_slow_is_bounded(
    server: Served, streams: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('ws4redis.hub.clients.sessions.MAX_WAITING_FRAMES', 2)
    client = streams(server.port)
    session, node = client.run('return [centrifuge._session, centrifuge._node];')
    # More than four calls at once wait, and with them what comes behind.
    calls = '\n'.join(
        f'{{"id": {number}, "rpc": {{"method": "take_long", "data": 1.5}}}}'
        for number in range(100, 105)
    )
    assert emulate(server, session, node, calls).status == 200
    statuses = [emulate(server, session, node, PING).status for _ in range(5)]
    assert 429 in statuses
    wait_until(lambda: emulate(server, session, node, PING).status == 200)


def test_a_session_ends_with_its_stream(server: Served, streams: Connect) -> None:
    client = streams(server.port)
    session, node = client.run('return [centrifuge._session, centrifuge._node];')
    assert emulate(server, session, node).status == 200
    client.run('centrifuge.disconnect();')
    wait_until(lambda: emulate(server, session, node).status == 404)
