"""The client protocol against Centrifuge's own client for Python, and by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

import pytest
from django.test import override_settings

from tests.clients.conftest import PATH
from tests.clients.cuttable import Cuttable
from tests.clients.project import SETTINGS
from tests.clients.scenarios import publish
from tests.django_requests import logged_in_request, make_user
from tests.programs import RedisServer
from tests.requirements import require
from tests.serving import Served, served
from tests.timeouts import SOON_SECONDS
from tests.websocket_client import HandshakeRefused, RawWebSocket
from ws4redis.applications.wsgi import WebSocketServer
from ws4redis.publisher import RedisPublisher

# The client of PyPI leaves transports to the garbage collector where the server closes.
pytestmark = pytest.mark.filterwarnings(
    'ignore::pytest.PytestUnraisableExceptionWarning', 'ignore:unclosed:ResourceWarning'
)


# Centrifuge's client


class Seen:
    """What a subscription was told, in order."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    async def next(self, name: str) -> Any:
        """Return the next event of a name; the others before it are passed over."""
        while True:
            found, context = await asyncio.wait_for(self.events.get(), SOON_SECONDS)
            if found == name:
                return context

    async def data(self, count: int) -> list[Any]:
        return [(await self.next('on_publication')).pub.data for _ in range(count)]


def handler(base: type[Any], seen: Seen) -> Any:
    def note(name: str) -> Callable[[Any, Any], Awaitable[None]]:
        async def method(self: Any, context: Any) -> None:
            seen.events.put_nowait((name, context))

        return method

    names = [name for name in dir(base) if name.startswith('on_')]
    return type('Handler', (base,), {name: note(name) for name in names})()


async def with_client(port: int, use: Callable[[Any], Awaitable[None]]) -> None:
    require(find_spec('centrifuge'), 'centrifuge-python is not installed')
    from centrifuge import Client

    client = Client(
        f'ws://127.0.0.1:{port}{PATH}', min_reconnect_delay=0.05, max_reconnect_delay=0.5
    )
    try:
        await client.connect()
        await client.ready(timeout=SOON_SECONDS)
        await use(client)
    finally:
        await client.disconnect()


def run(port: int, use: Callable[[Any], Awaitable[None]]) -> None:
    asyncio.run(with_client(port, use))


async def subscribe(client: Any, channel: str) -> tuple[Any, Seen]:
    from centrifuge import SubscriptionEventHandler

    seen = Seen()
    subscription = client.new_subscription(
        channel,
        events=handler(SubscriptionEventHandler, seen),
        min_resubscribe_delay=0.05,
        max_resubscribe_delay=0.5,
    )
    await subscription.subscribe()
    await subscription.ready(timeout=SOON_SECONDS)
    return subscription, seen


def test_it_publishes_receives_calls_and_reads_a_history(server: Served) -> None:
    async def use(client: Any) -> None:
        from centrifuge import CentrifugeError

        chat, seen = await subscribe(client, 'chat/1')
        await chat.publish({'a': 1})
        await asyncio.to_thread(publish, 'chat/1', 2)
        assert await seen.data(2) == [{'a': 1}, 2]
        page = await chat.history(limit=10)
        assert [publication.data for publication in page.publications] == [{'a': 1}, 2]
        assert (await client.rpc('add', [2, 3])).data['sum'] == 5
        with pytest.raises(CentrifugeError, match='no such poll'):
            await client.rpc('poll.vote', 1)

    run(server.port, use)


def test_it_recovers_after_a_cut(server: Served) -> None:
    with Cuttable(server.port) as proxy:

        async def use(client: Any) -> None:
            _, seen = await subscribe(client, 'recovery:x')
            await asyncio.to_thread(publish, 'recovery:x', 1)
            assert await seen.data(1) == [1]
            proxy.hold()
            proxy.cut()
            await seen.next('on_subscribing')
            await asyncio.to_thread(publish, 'recovery:x', 2, 3)
            proxy.let_in()
            told = await seen.next('on_subscribed')
            assert told.was_recovering
            assert told.recovered
            assert await seen.data(2) == [2, 3]

        run(proxy.port, use)


# By hand


@pytest.fixture
def connect(server: Served) -> Iterator[Callable[..., RawWebSocket]]:
    with ExitStack() as stack:

        def connect(
            path: str = PATH, *, headers: dict[str, str] | None = None, **request: Any
        ) -> RawWebSocket:
            websocket = stack.enter_context(RawWebSocket(server.ws_url + path, headers=headers))
            send(websocket, {'id': 1, 'connect': request})
            return websocket

        yield connect


Connect = Callable[..., RawWebSocket]


def send(websocket: RawWebSocket, *commands: Any) -> None:
    websocket.send('\n'.join(map(json.dumps, commands)))


def replies(websocket: RawWebSocket) -> list[Any]:
    frame = websocket.receive()
    assert isinstance(frame, str)
    return [json.loads(line) for line in frame.split('\n')]


def test_several_commands_in_a_frame_are_answered_in_a_frame(connect: Connect) -> None:
    websocket = connect()
    replies(websocket)
    send(websocket, {'id': 2, 'ping': {}}, {'id': 3, 'ping': {}}, {'id': 4, 'teleport': {}})
    assert replies(websocket) == [
        {'id': 2, 'ping': {}},
        {'id': 3, 'ping': {}},
        {'id': 4, 'error': {'code': 104, 'message': 'method not found'}},
    ]


@pytest.mark.parametrize(
    'commands',
    [
        [{'id': 1, 'ping': {}}],
        [{'id': 1, 'connect': {}}, {'id': 2, 'connect': {}}],
        [{'id': 1, 'subscribe': {'channel': 'a'}}, {'id': 2, 'connect': {}}],
    ],
)
def test_commands_out_of_order_end_the_connection(server: Served, commands: Any) -> None:
    with RawWebSocket(server.ws_url + PATH) as websocket:
        send(websocket, *commands)
        assert websocket.receive_close() == (3501, 'bad request')


def test_ten_thousand_subscriptions_in_one_frame_are_bounded(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    limits = {
        'WS4REDIS_MAX_COMMANDS_PER_SECOND': 200,
        'WS4REDIS_MAX_CHANNELS_PER_CONNECTION': 100,
    }
    with override_settings(**SETTINGS, **limits), served(WebSocketServer()) as server:
        with RawWebSocket(server.ws_url + PATH) as websocket:
            send(websocket, {'id': 1, 'connect': {}})
            websocket.receive()
            numbers = range(2, 9_002)
            send(websocket, *({'id': n, 'subscribe': {'channel': f'c{n}'}} for n in numbers))
            answers: dict[int, Any] = {}
            while len(answers) < len(numbers):
                answers.update((reply['id'], reply) for reply in replies(websocket))
            granted = [reply for reply in answers.values() if 'subscribe' in reply]
            codes = {reply['error']['code'] for reply in answers.values() if 'error' in reply}
            assert len(granted) == 100
            assert codes == {106, 111}
            assert 'WS4REDIS_MAX_COMMANDS_PER_SECOND' in caplog.text
            assert 'WS4REDIS_MAX_CHANNELS_PER_CONNECTION' in caplog.text


def test_the_log_says_once_which_setting_lets_clients_publish(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    websocket = connect()
    replies(websocket)
    for number, channel in enumerate(('undecided', 'another'), start=2):
        send(websocket, {'id': number, 'publish': {'channel': channel, 'data': 1}})
        assert replies(websocket)[0]['error']['code'] == 103
    (line,) = (r.getMessage() for r in caplog.records if 'PUBLISH' in r.getMessage())
    assert "on 'undecided'" in line
    assert 'WS4REDIS_FACILITIES' in line


def test_who_does_not_connect_is_closed(redis_server: RedisServer) -> None:
    settings = {**SETTINGS, 'WS4REDIS_HANDSHAKE_TIMEOUT': 0.3}
    with override_settings(**settings), served(WebSocketServer()) as server:
        with RawWebSocket(server.ws_url + PATH) as websocket:
            assert websocket.receive_close() == (3502, 'stale')


def test_anonymous_clients_can_be_refused(redis_server: RedisServer) -> None:
    settings = {**SETTINGS, 'WS4REDIS_CLIENT_ANONYMOUS': False}
    with override_settings(**settings), served(WebSocketServer()) as server:
        with RawWebSocket(server.ws_url + PATH) as websocket:
            send(websocket, {'id': 1, 'connect': {}})
            assert replies(websocket)[0]['error']['code'] == 101


def test_a_foreign_origin_is_refused(server: Served) -> None:
    with pytest.raises(HandshakeRefused) as caught:
        RawWebSocket(server.ws_url + PATH, headers={'Origin': 'https://evil.example'})
    assert caught.value.response.status == 403


@pytest.mark.django_db(transaction=True)
def test_a_user_has_personal_channels(connect: Connect) -> None:
    user = make_user('ann', groups=['staff'])
    request = logged_in_request(user)
    cookie = f'sessionid={request.session.session_key}'
    websocket = connect(headers={'Cookie': cookie})
    replies(websocket)
    for number, channel in enumerate(('user:inbox', 'session:cart', 'group:staff:news', 'members')):
        send(websocket, {'id': number + 2, 'subscribe': {'channel': channel}})
        assert replies(websocket) == [{'id': number + 2, 'subscribe': {}}]
    send(websocket, {'id': 9, 'subscribe': {'channel': 'group:admins:news'}})
    assert replies(websocket)[0]['error']['code'] == 103
    RedisPublisher(facility='inbox', users=['ann']).publish_json(1)
    assert replies(websocket) == [{'push': {'channel': 'user:inbox', 'pub': {'data': 1}}}]
    RedisPublisher(facility='cart', sessions=[request.session.session_key]).publish_json(2)
    assert replies(websocket) == [{'push': {'channel': 'session:cart', 'pub': {'data': 2}}}]


def test_the_server_subscribes_clients_to_channels_of_the_settings(
    redis_server: RedisServer,
) -> None:
    settings = {**SETTINGS, 'WS4REDIS_CLIENT_CHANNELS': ['chat/1', 'user:inbox']}
    with override_settings(**settings), served(WebSocketServer()) as server:
        publish('chat/1', 1)
        with RawWebSocket(server.ws_url + PATH) as websocket:
            send(websocket, {'id': 1, 'connect': {}})
            (reply,) = replies(websocket)
            # The anonymous visitor has no inbox.
            assert list(reply['connect']['subs']) == ['chat/1']
            assert reply['connect']['subs']['chat/1']['offset'] == 1
            publish('chat/1', 2)
            push = {'channel': 'chat/1', 'pub': {'data': 2, 'offset': 2}}
            assert replies(websocket) == [{'push': push}]


def test_a_repeated_publication_is_published_once(connect: Connect) -> None:
    websocket = connect()
    replies(websocket)
    send(websocket, {'id': 2, 'subscribe': {'channel': 'chat/1'}})
    replies(websocket)
    for number, key in ((3, 'a'), (4, 'a'), (5, 'b')):
        request = {'channel': 'chat/1', 'data': key, 'idempotency_key': key}
        send(websocket, {'id': number, 'publish': request})
    seen: list[Any] = []
    while len(seen) < 5:
        seen += replies(websocket)
    pushed = [reply['push']['pub'] for reply in seen if 'push' in reply]
    assert pushed == [{'data': 'a', 'offset': 1}, {'data': 'b', 'offset': 2}]
    assert sorted(reply['id'] for reply in seen if 'id' in reply) == [3, 4, 5]


def test_a_page_goes_on_from_where_it_was_made(connect: Connect) -> None:
    from ws4redis.history import get_position

    publish('chat/1', 1)
    since = get_position('chat/1')
    publish('chat/1', 2, 3)
    websocket = connect()
    replies(websocket)
    send(websocket, {'id': 2, 'subscribe': {'channel': 'chat/1', 'data': {'since': since}}})
    told = replies(websocket)[0]['subscribe']
    assert [each['data'] for each in told['publications']] == [2, 3]
    assert told['recovered'] is True
    send(websocket, {'id': 3, 'unsubscribe': {'channel': 'chat/1'}})
    replies(websocket)
    send(websocket, {'id': 4, 'subscribe': {'channel': 'chat/1', 'data': {'since': 'nonsense'}}})
    assert replies(websocket)[0]['subscribe']['recovered'] is False


def test_an_unrecovered_subscription_can_be_an_error(connect: Connect) -> None:
    websocket = connect()
    replies(websocket)
    request = {'channel': 'chat/1', 'recover': True, 'epoch': 'other', 'offset': 3, 'flag': 2}
    send(websocket, {'id': 2, 'subscribe': request})
    assert replies(websocket)[0]['error']['code'] == 112
    send(websocket, {'id': 3, 'subscribe': {'channel': 'chat/1'}})
    assert 'subscribe' in replies(websocket)[0]


# The URL of a plain websocket


CLASSIC = {'Sec-WebSocket-Protocol': 'centrifuge-json'}


def test_a_plain_url_speaks_the_protocol_where_it_is_offered(connect: Connect) -> None:
    publisher = RedisPublisher(facility='chat/1', broadcast=True)
    websocket = connect('/ws/chat/1?subscribe-broadcast', headers=CLASSIC)
    subs = replies(websocket)[0]['connect']['subs']
    assert list(subs) == ['broadcast:chat/1']
    publisher.publish_json({'a': 1})
    publisher.publish_message(b'\xff')
    data = [replies(websocket)[0]['push']['pub']['data'] for _ in range(2)]
    # As a plain websocket has it: text and bytes.
    assert data == ['{"a":1}', {'b64': '/w=='}]
    websocket.close()
    publisher.publish_message('missed')
    recover = {'recover': True, 'epoch': subs['broadcast:chat/1']['epoch'], 'offset': 2}
    back = connect(
        '/ws/chat/1?subscribe-broadcast', headers=CLASSIC, subs={'broadcast:chat/1': recover}
    )
    told = replies(back)[0]['connect']['subs']['broadcast:chat/1']
    assert told['recovered'] is True
    assert [each['data'] for each in told['publications']] == ['missed']


def test_what_it_sends_is_published_without_echo_unless_it_wants_one(connect: Connect) -> None:
    url = '/ws/open?subscribe-broadcast&publish-broadcast'
    quiet, loud = connect(url, headers=CLASSIC), connect(f'{url}&echo', headers=CLASSIC)
    replies(quiet)
    replies(loud)
    send(loud, {'send': {'data': 'from loud'}})
    assert replies(loud)[0]['push']['pub']['data'] == 'from loud'
    assert replies(quiet)[0]['push']['pub']['data'] == 'from loud'
    send(quiet, {'send': {'data': 'from quiet'}})
    assert replies(loud)[0]['push']['pub']['data'] == 'from quiet'
    send(loud, {'send': {'data': 'the last'}})
    assert replies(quiet)[0]['push']['pub']['data'] == 'the last'


def test_a_plain_url_is_plain_where_nothing_is_offered(server: Served) -> None:
    with RawWebSocket(server.ws_url + '/ws/chat/1?subscribe-broadcast') as websocket:
        publish('chat/1', {'a': 1})
        assert websocket.receive() == '{"a":1}'


@pytest.mark.parametrize('facility', ['private', 'members', 'room/cellar'])
def test_facilities_say_who_may_for_plain_websockets_too(server: Served, facility: str) -> None:
    with RawWebSocket(f'{server.ws_url}/ws/{facility}?subscribe-broadcast') as websocket:
        publish(facility, 'secret')
        websocket.expect_silence(0.3)
