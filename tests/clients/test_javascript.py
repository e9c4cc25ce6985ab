"""The client protocol against Centrifuge's own client for JavaScript."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from django.test import override_settings

from tests.clients.conftest import PATH, Connect
from tests.clients.cuttable import Cuttable
from tests.clients.node_client import NodeError
from tests.clients.project import SETTINGS
from tests.clients.scenarios import assert_what_was_missed_is_recovered, publish
from tests.programs import RedisServer, UwsgiServer
from tests.serving import Served, served
from tests.timeouts import SERVER_SECONDS
from tests.websocket_client import HandshakeRefused, RawWebSocket
from ws4redis.applications.wsgi import WebSocketServer
from ws4redis.publisher import RedisPublisher

# Where a project leads all websockets by their prefix to the websocket loop.
UNDER_WS = {**SETTINGS, 'WS4REDIS_CLIENT_URL': 'connection/websocket'}


@contextmanager
def uwsgi(redis_server: RedisServer) -> Iterator[UwsgiServer]:
    with (
        override_settings(**UNDER_WS),
        UwsgiServer(redis_server=redis_server, django_settings=UNDER_WS) as server,
    ):
        yield server


@pytest.fixture
def proxy(server: Served) -> Iterator[Cuttable]:
    with Cuttable(server.port) as proxy:
        yield proxy


def test_it_subscribes_publishes_and_is_told_positions(server: Served, node: Connect) -> None:
    client = node(server.port)
    told = client.subscribe('chat/1')
    assert told['recoverable'] is told['positioned'] is True
    assert told['streamPosition']['offset'] == 0
    client.run("await subs['chat/1'].publish({a: [1, 'ü']}); await subs['chat/1'].publish('text');")
    publish('chat/1', None, 7)
    assert client.received('chat/1', 4) == [{'a': [1, 'ü']}, 'text', None, 7]
    offsets = client.run("return publications('chat/1').map(function (p) { return p.offset; });")
    assert offsets == [1, 2, 3, 4]


def test_text_bytes_and_values_arrive_as_what_they_are(server: Served, node: Connect) -> None:
    client = node(server.port)
    for facility in ('open', 'chat/1'):
        client.subscribe(facility)
        publisher = RedisPublisher(facility=facility, broadcast=True)
        publisher.publish_message('{"a": 1}')
        publisher.publish_message(b'\xff\x00')
        publisher.publish_json({'a': 1})
        assert client.received(facility, 3) == ['{"a": 1}', {'b64': '/wA='}, {'a': 1}]


def test_newcomers_get_the_newest_as_what_it_is(server: Served, node: Connect) -> None:
    publisher = RedisPublisher(facility='chat/1', broadcast=True)
    for number, message in enumerate(({'a': 1}, '{"a": 1}')):
        if isinstance(message, str):
            publisher.publish_message(message)
        else:
            publisher.publish_json(message)
        # The first one finds a server that knows nothing of the channel.
        client = node(server.port)
        client.subscribe('chat/1')
        assert client.received('chat/1', 1) == [message], number


def test_a_plain_publish_arrives_without_a_position(
    server: Served, node: Connect, redis_client: redis.Redis
) -> None:
    client = node(server.port)
    client.subscribe('chat/1')
    redis_client.publish('broadcast:chat/1', 'from redis-cli')
    publish('chat/1', 1)
    assert client.received('chat/1', 2) == ['from redis-cli', 1]


def test_what_was_missed_is_recovered_after_a_cut(
    server: Served, node: Connect, proxy: Cuttable
) -> None:
    client = node(proxy.port)
    assert_what_was_missed_is_recovered(client, proxy)


def test_it_is_told_when_its_position_cannot_be_recovered(
    server: Served, node: Connect, proxy: Cuttable
) -> None:
    client = node(proxy.port)
    client.subscribe('recovery:x')
    publish('recovery:x', 1)
    client.received('recovery:x', 1)
    proxy.hold()
    proxy.cut()
    client.event('connecting', 2)
    publish('recovery:x', *range(2, 20))
    proxy.let_in()
    told = client.event('sub_subscribed', 2)
    assert told['wasRecovering'] is True
    assert told['recovered'] is False
    assert told['streamPosition']['offset'] == 19
    publish('recovery:x', 20)
    # The newest one is kept for whoever comes without a position.
    assert client.received('recovery:x', 3) == [1, 19, 20]


def test_what_was_missed_is_recovered_after_the_server_was_killed(
    redis_server: RedisServer, redis_client: redis.Redis, node: Connect
) -> None:
    with uwsgi(redis_server) as server:
        client = node(server.port, path='/ws/connection/websocket')
        client.subscribe('chat/1')
        publish('chat/1', 1)
        client.received('chat/1', 1)
        server.kill_worker()
        publish('chat/1', 2)
        told = client.event('sub_subscribed', 2)
        assert told['recovered'] is True
        publish('chat/1', 3)
        assert client.received('chat/1', 3) == [1, 2, 3]


def test_a_history_is_read_in_pages(server: Served, node: Connect) -> None:
    client = node(server.port)
    client.subscribe('chat/1')
    publish('chat/1', 1, 2, 3, 4)

    def history(options: str) -> Any:
        return client.run(f"return subs['chat/1'].history({options});")

    def data(page: Any) -> list[Any]:
        return [publication['data'] for publication in page['publications']]

    page = history('{limit: 2}')
    assert data(page) == [1, 2]
    assert page['offset'] == 4
    since = f'{{epoch: "{page["epoch"]}", offset: 2}}'
    assert data(history(f'{{limit: 10, since: {since}}}')) == [3, 4]
    assert data(history(f'{{limit: 10, since: {since}, reverse: true}}')) == [1]
    assert data(history('{limit: 3, reverse: true}')) == [4, 3, 2]
    assert data(history('{limit: -1}')) == [1, 2, 3, 4]
    assert data(history('{}')) == []
    with pytest.raises(NodeError) as caught:
        history('{limit: 10, since: {epoch: "other", offset: 2}}')
    assert caught.value.thrown['code'] == 112


def test_there_is_no_history_without_one(server: Served, node: Connect) -> None:
    client = node(server.port)
    client.subscribe('open')
    with pytest.raises(NodeError) as caught:
        client.run('return subs.open.history({limit: 1});')
    assert caught.value.thrown['code'] == 108


def test_code_of_the_project_is_called(server: Served, node: Connect) -> None:
    client = node(server.port)
    assert client.run("return centrifuge.rpc('add', [1, 2]);") == {
        'data': {'sum': 3, 'user': 'AnonymousUser'}
    }
    assert client.run("return centrifuge.rpc('echo', {deep: [null]});") == {
        'data': {'deep': [None]}
    }
    assert client.run("await centrifuge.send('nobody takes it'); return 1;") == 1


@pytest.mark.parametrize(
    ('method', 'code', 'message'),
    [
        ('poll.vote', 441, 'no such poll'),
        ('unknown', 104, 'method not found'),
        ('forbid', 103, 'permission denied'),
        ('fail', 100, 'internal server error'),
        ('nonsense', 100, 'internal server error'),
    ],
)
def test_its_errors_reach_the_client(
    server: Served, node: Connect, method: str, code: int, message: str
) -> None:
    client = node(server.port)
    with pytest.raises(NodeError) as caught:
        client.run(f"return centrifuge.rpc('{method}', 1);")
    assert (caught.value.thrown['code'], caught.value.thrown['message']) == (code, message)
    # The connection has not suffered.
    assert client.run("return centrifuge.rpc('echo', 1);") == {'data': 1}


def test_slow_code_delays_nothing_else_and_has_a_deadline(server: Served, node: Connect) -> None:
    client = node(server.port)
    order = client.run("""
        const order = [];
        const slow = centrifuge.rpc('take_long', 2.5).catch(function (e) { order.push(e.code); });
        await centrifuge.rpc('echo', 1);
        order.push('fast');
        await slow;
        return order;
    """)
    assert order == ['fast', 100]


@pytest.mark.parametrize(
    ('channel', 'code'),
    [
        ('private', 103),
        ('members', 103),
        ('user:inbox', 103),
        ('session:cart', 103),
        ('group:staff:news', 103),
        ('room/cellar', 103),
        ('group:nonsense', 107),
        ('x' * 300, 107),
    ],
)
def test_what_is_not_granted_is_refused(
    server: Served, node: Connect, channel: str, code: int
) -> None:
    client = node(server.port)
    told = client.subscribe(channel)
    assert (told['name'], told['code']) == ('sub_unsubscribed', code)


def test_publishing_needs_a_grant(server: Served, node: Connect) -> None:
    client = node(server.port)
    client.subscribe('plain')
    with pytest.raises(NodeError) as caught:
        client.run('return subs.plain.publish(1);')
    assert caught.value.thrown['code'] == 103


def test_code_of_the_project_decides_by_facility_and_audience(
    server: Served, node: Connect
) -> None:
    client = node(server.port)
    assert client.subscribe('room/lobby')['name'] == 'sub_subscribed'


def test_both_forms_of_a_name_work_on_one_connection(server: Served, node: Connect) -> None:
    client = node(server.port)
    client.subscribe('chat/1')
    client.subscribe('broadcast:chat/2')
    assert client.subscribe('broadcast:chat/1')['code'] == 105
    publish('chat/1', 1)
    publish('chat/2', 2)
    assert client.received('chat/1', 1) == [1]
    assert client.received('broadcast:chat/2', 1) == [2]


def test_500_subscriptions_on_one_connection(server: Served, node: Connect) -> None:
    client = node(server.port)
    client.run("""
        for (let i = 0; i < 500; i += 1) { subscription('chat/' + i).subscribe(); }
        await Promise.all(Object.values(subs).map(function (sub) { return sub.ready(); }));
    """)
    for number in (0, 250, 499):
        publish(f'chat/{number}', number)
        assert client.received(f'chat/{number}', 1) == [number]


def test_subscribing_and_unsubscribing_in_a_loop_while_messages_flow(
    server: Served, node: Connect
) -> None:
    client = node(server.port)
    publisher, reader = node(server.port), node(server.port)
    reader.subscribe('chat/1')
    publisher.run("""
        globalThis.count = 0;
        globalThis.flow = setInterval(async function () {
            count += 1;
            await centrifuge.publish('chat/1', count);
        }, 2);
    """)
    client.run(
        """
        const sub = subscription('chat/1');
        for (let i = 0; i < 100; i += 1) {
            sub.subscribe();
            await sub.ready();
            await new Promise(function (resolve) { setTimeout(resolve, i % 5); });
            sub.unsubscribe();
        }
        sub.subscribe();
        await sub.ready();
        """,
        timeout=SERVER_SECONDS,
    )
    count = publisher.run('clearInterval(flow); return count;')
    data = reader.received('chat/1', count)
    assert data == list(range(1, count + 1))
    last = client.run(f"""
        return until(function () {{
            const data = publications('chat/1').map(function (p) {{ return p.data; }});
            return data.includes({count}) && data;
        }});
    """)
    # It recovers what was published between its subscriptions.
    assert last == sorted(set(last))


def test_a_client_that_sends_nonsense_is_sent_away_for_good(server: Served, node: Connect) -> None:
    client = node(server.port)
    client.run("centrifuge._transport._transport.send('nonsense');")
    told = client.event('disconnected')
    assert (told['code'], told['reason']) == (3501, 'bad request')


def test_it_comes_back_after_a_shutdown(
    redis_server: RedisServer, redis_client: redis.Redis, node: Connect
) -> None:
    with uwsgi(redis_server) as server:
        client = node(server.port, path='/ws/connection/websocket')
        client.subscribe('chat/1')
        server.reload()
        assert client.event('connecting', 2)['code'] == 3001
        publish('chat/1', 1)
        assert client.received('chat/1', 1) == [1]


def test_the_server_pings_and_the_client_answers(
    redis_server: RedisServer, node: Connect, settings: Any
) -> None:
    settings.WS4REDIS_PING_INTERVAL = 0.4
    settings.WS4REDIS_PING_TIMEOUT = 0.4
    with override_settings(**SETTINGS), served(WebSocketServer()) as server:
        client = node(server.port)
        client.run('await new Promise(function (resolve) { setTimeout(resolve, 2000); });')
        names = client.run('return seen.map(function (each) { return each.name; });')
        assert names == ['connecting', 'connected']


def test_protobuf_is_refused(server: Served) -> None:
    with pytest.raises(HandshakeRefused) as caught:
        RawWebSocket(
            server.ws_url + PATH, headers={'Sec-WebSocket-Protocol': 'centrifuge-protobuf'}
        )
    assert caught.value.response.status == 400
