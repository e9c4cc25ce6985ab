"""``ws4redis.js`` on the client protocol, in Node; browsers are in ``tests/browser``."""

from __future__ import annotations

import gzip
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
from django.test import override_settings

import ws4redis
from tests.browser.blocking_proxy import BlockingProxy
from tests.clients.conftest import PATH
from tests.clients.cuttable import Cuttable
from tests.clients.node_client import NodeError, NodeProcess
from tests.clients.project import SETTINGS
from tests.django_requests import logged_in_request, make_user
from tests.npm import installed_packages
from tests.programs import RedisServer
from tests.requirements import require_executable
from tests.serving import Served, served
from tests.timeouts import SERVER_SECONDS, SOON_SECONDS, wait_until
from ws4redis.applications.wsgi import WebSocketServer
from ws4redis.control import disconnect
from ws4redis.handshake import clients
from ws4redis.handshake.identity import identity_of as look_up
from ws4redis.history import get_position
from ws4redis.hub.identity import Identity
from ws4redis.publisher import RedisPublisher
from ws4redis.publishing.tokens import sign
from ws4redis.servers.process import existing_hub
from ws4redis.tokens import connection_token

STATIC = Path(ws4redis.__file__).parent / 'static' / 'js'
SCRIPT = STATIC / 'ws4redis.js'

Start = Callable[[int], NodeProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def start(port: int) -> NodeProcess:
            origin = f'ws://127.0.0.1:{port}'
            return stack.enter_context(NodeProcess('browser_client.js', str(SCRIPT), origin))

        yield start


@pytest.fixture
def proxy(server: Served) -> Iterator[Cuttable]:
    with Cuttable(server.port) as proxy:
        yield proxy


def publish(facility: str, *messages: Any) -> None:
    publisher = RedisPublisher(facility=facility, broadcast=True)
    for message in messages:
        publisher.publish_message(message)


def messages(client: NodeProcess, count: int, name: str = 'message') -> list[Any]:
    client.run(f"await event('{name}', {count});")
    result: list[Any] = client.run(f"return all('{name}');")
    return result


# The interface of old


def test_a_page_of_old_recovers_what_it_missed(proxy: Cuttable, start: Start) -> None:
    client = start(proxy.port)
    client.run("await open_classic('/ws/chat/1?subscribe-broadcast');")
    publish('chat/1', 'one')
    assert messages(client, 1) == ['one']
    proxy.hold()
    proxy.cut()
    client.run("await event('disconnected', 1);")
    publish('chat/1', 'two', 'three')
    proxy.let_in()
    client.run("await event('connected', 2);")
    publish('chat/1', 'four')
    assert messages(client, 4) == ['one', 'two', 'three', 'four']
    assert client.run("return all('gap').length;") == 0


def test_a_page_of_old_is_told_of_a_gap(proxy: Cuttable, start: Start) -> None:
    client = start(proxy.port)
    client.run("await open_classic('/ws/recovery:x?subscribe-broadcast');")
    publish('recovery:x', 'one')
    messages(client, 1)
    proxy.hold()
    proxy.cut()
    client.run("await event('disconnected', 1);")
    publish('recovery:x', *map(str, range(20)))
    proxy.let_in()
    (gap,) = client.run("return event('gap', 1);")
    assert (gap['channel'], gap['offset']) == ('broadcast:recovery:x', 21)


def test_a_page_of_old_goes_on_where_its_template_was_rendered(
    proxy: Cuttable, start: Start
) -> None:
    publish('chat/1', 'shown on the page')
    since = get_position('chat/1', broadcast=True)
    publish('chat/1', 'one', 'two')
    client = start(proxy.port)
    client.run(f"await open_classic('/ws/chat/1?subscribe-broadcast&since={since}');")
    assert messages(client, 2) == ['one', 'two']
    # From now on it knows better than its URL.
    proxy.cut()
    client.run("await event('connected', 2);")
    publish('chat/1', 'three')
    assert messages(client, 3) == ['one', 'two', 'three']
    assert client.run("return all('gap').length;") == 0


def test_a_page_of_old_is_told_of_a_gap_after_its_rendering(server: Served, start: Start) -> None:
    client = start(server.port)
    client.run("await open_classic('/ws/chat/1?subscribe-broadcast&since=nonsense');")
    (gap,) = client.run("return event('gap', 1);")
    assert gap['channel'] == 'broadcast:chat/1'


def test_what_a_page_of_old_sends_is_published_and_not_sent_back(
    server: Served, start: Start
) -> None:
    client, other = start(server.port), start(server.port)
    url = '/ws/chat/1?subscribe-broadcast&publish-broadcast'
    client.run(f"await open_classic('{url}');")
    other.run(f"await open_classic('{url}&echo');")
    client.run("classic.send_message('text'); classic.send_message(new Uint8Array([255, 0]));")
    other.run("await event('message', 2);")
    assert other.run("return all('message')[0];") == 'text'
    assert other.run(
        "return Array.from(new Uint8Array(await all('message')[1].arrayBuffer()));"
    ) == [255, 0]
    other.run("classic.send_message('from the other');")
    assert messages(client, 1) == ['from the other']


def test_own_messages_do_not_come_back_with_what_was_missed(proxy: Cuttable, start: Start) -> None:
    client = start(proxy.port)
    client.run("await open_classic('/ws/chat/1?subscribe-broadcast&publish-broadcast');")
    publish('chat/1', 'first')
    messages(client, 1)
    client.run("classic.send_message('mine');")
    publish('chat/1', 'second')
    messages(client, 2)
    client.run("classic.send_message('mine too');")
    publish('chat/1', 'third')
    messages(client, 3)
    proxy.hold()
    proxy.cut()
    client.run("await event('disconnected', 1);")
    publish('chat/1', 'fourth')
    proxy.let_in()
    assert messages(client, 4) == ['first', 'second', 'third', 'fourth']


def test_nothing_is_sent_before_the_server_has_answered(server: Served, start: Start) -> None:
    client = start(server.port)
    with pytest.raises(NodeError) as caught:
        client.run("""
            void open_classic('/ws/chat/1?publish-broadcast');
            classic.send_message('too early');
        """)
    assert 'connecting' in caught.value.thrown['message']


# The interface for whole pages


def test_a_page_subscribes_publishes_and_calls(server: Served, start: Start) -> None:
    client = start(server.port)
    client.run(f"open_page('{PATH}'); globalThis.chat = page.subscribe('chat/1', handlers());")
    # Before it is connected.
    client.run("await chat.publish({a: 1}); await page.publish('chat/1', 'text');")
    assert messages(client, 2, 'received') == [{'a': 1}, 'text']
    assert client.run("return page.rpc('add', [1, 2]);")['sum'] == 3
    page = client.run("return page.history('chat/1', {limit: 10});")
    assert [each['data'] for each in page['publications']] == [{'a': 1}, 'text']
    with pytest.raises(NodeError) as caught:
        client.run("await page.rpc('poll.vote');")
    assert caught.value.thrown == {'message': 'no such poll', 'code': 441}
    client.run('chat.unsubscribe();')
    publish('chat/1', 'unheard')
    client.run("page.subscribe('chat/1', handlers()); await event('subscribed', 2);")
    publish('chat/1', 'heard')
    assert messages(client, 4, 'received')[-1] == 'heard'


def test_a_page_recovers_and_publishes_once_what_was_under_way(
    proxy: Cuttable, start: Start
) -> None:
    client = start(proxy.port)
    client.run(f"open_page('{PATH}'); page.subscribe('chat/1', handlers());")
    client.run("await event('subscribed', 1); await page.publish('chat/1', 'one');")
    proxy.hold()
    client.run("globalThis.sent = page.publish('chat/1', 'two');")
    proxy.cut()
    client.run("await event('disconnected', 1);")
    client.run("globalThis.queued = page.publish('chat/1', 'three');")
    publish('chat/1', 'by another')
    proxy.let_in()
    client.run('await sent; await queued;', timeout=SERVER_SECONDS)
    received = messages(client, 4, 'received')
    assert sorted(received) == ['by another', 'one', 'three', 'two']
    assert received[0] == 'one'
    assert client.run("return all('gap').length;") == 0


def test_what_waits_is_bounded(server: Served, start: Start) -> None:
    client = start(server.port)
    with pytest.raises(NodeError) as caught:
        client.run(f"""
            open_page('{PATH}', {{max_queue: 2}});
            void page.publish('chat/1', 1);
            void page.publish('chat/1', 2);
            await page.publish('chat/1', 3);
        """)
    assert 'too much waits' in caught.value.thrown['message']


def test_what_is_not_granted_is_told(server: Served, start: Start) -> None:
    client = start(server.port)
    client.run(f"open_page('{PATH}'); page.subscribe('user:inbox', handlers());")
    (error,) = client.run("return event('refused', 1);")
    assert error['code'] == 103


def test_it_stays_away_when_the_server_wants_it_so(redis_server: RedisServer, start: Start) -> None:
    settings = {**SETTINGS, 'WS4REDIS_CLIENT_ANONYMOUS': False}
    with override_settings(**settings), served(WebSocketServer()) as server:
        client = start(server.port)
        client.run(f"open_page('{PATH}'); await event('disconnected', 1);")
        assert client.run('return page.get_state();') == 3
        # The process could end: no timer for another attempt runs.
        timers = client.run("""
            return process.getActiveResourcesInfo().filter(function (resource) {
                return resource === 'Timeout';
            });
        """)
        assert timers == []


# Who a page is: tokens and tickets


class TokenView:
    """Answer requests for a token as a script says: a status and headers each."""

    def __init__(self, *answers: tuple[int, dict[str, str]]) -> None:
        self.asked_at: list[float] = []
        script = iter(answers)
        view = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                view.asked_at.append(time.monotonic())
                status, headers = next(script, (200, {}))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if status == 200:
                    self.wfile.write(json.dumps({'token': sign({'sub': 'mary'})}).encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
                pass

        self._server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f'http://127.0.0.1:{self._server.server_port}/token/'

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def test_a_page_fetches_its_tokens_and_waits_as_long_as_it_is_told(
    server: Served, start: Start
) -> None:
    client = start(server.port)
    # Longer than the longest delay before a second attempt.
    with TokenView((503, {'Retry-After': '3'})) as view:
        client.run(f"open_page('{PATH}', {{token_url: '{view.url}'}});")
        client.run("await event('connected', 1);", timeout=SERVER_SECONDS)
        first, second = view.asked_at
    assert second - first >= 3
    client.run("page.subscribe('user:inbox', handlers()); await event('subscribed', 1);")


def test_a_page_for_which_there_is_no_token_stays_away(server: Served, start: Start) -> None:
    client = start(server.port)
    with TokenView((403, {})) as view:
        client.run(f"open_page('{PATH}', {{token_url: '{view.url}'}});")
        client.run("await event('disconnected', 1);")
    assert client.run('return page.get_state();') == 3
    assert len(view.asked_at) == 1


@pytest.mark.django_db(transaction=True)
def test_a_page_comes_back_with_a_ticket_and_is_not_looked_up(
    proxy: Cuttable, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def identity_of(request: Any, **options: Any) -> Identity:
        asked.append(request.path)
        return look_up(request, **options)

    monkeypatch.setattr(clients, 'identity_of', identity_of)
    request = logged_in_request(make_user('mary'))
    client = start(proxy.port)
    client.run(f"cookie = 'sessionid={request.session.session_key}'; open_page('{PATH}');")
    client.run("await event('connected', 1);")
    hub = existing_hub()
    assert hub is not None
    assert hub.endings is not None
    control = hub.endings.control
    # Before that, a process takes nobody's word for what has not ended.
    wait_until(lambda: control.is_current)
    # A ticket of before that is not taken, the one that comes with the answer to it is.
    for number in (2, 3):
        proxy.cut()
        client.run(f"await event('connected', {number});")
    assert len(asked) <= 2
    assert 'ticket=' in client.run("return all('opening')[2];")
    client.run("page.subscribe('user:inbox', handlers()); await event('subscribed', 1);")


# The files


@pytest.mark.parametrize('name', ['ws4redis.js', 'ws4redis-shared.js'])
def test_it_is_small(name: str) -> None:
    assert len(gzip.compress((STATIC / name).read_bytes(), 9)) <= 8 * 1024


def test_it_is_an_es_module_too(tmp_path: Path) -> None:
    node = require_executable('node')
    program = tmp_path / 'program.mjs'
    program.write_text(
        f"import WS4Redis, {{WS4Redis as named}} from '{STATIC / 'ws4redis.mjs'}';\n"
        'console.log(typeof WS4Redis.connect, WS4Redis === named);\n'
    )
    outcome = subprocess.run(
        [node, program], capture_output=True, text=True, timeout=SOON_SECONDS, check=True
    )
    assert outcome.stdout == 'function true\n'


USE = """
import WS4Redis, {Connection, Gap, SharedConnection} from './ws4redis';

const chat = new WS4Redis({
    uri: '/ws/chat',
    receive_message: (data: string | Blob) => { console.log(data); },
    gap: (info: Gap) => { console.log(info.offset); },
});
const fallback: boolean = chat.get_transport() === 'event-stream';
WS4Redis({uri: '/ws/chat', gap: (info) => { if ('cause' in info) { console.log(info.cause); } }});
chat.send_message(new Uint8Array(2));
const page: Connection = WS4Redis.connect({uri: '/ws', get_token: async () => 'token'});
interface Message { text: string }
page.subscribe<Message>('chat/7', {received: (data) => { console.log(data.text.length); }});
const published: Promise<void> = page.publish('chat/7', {text: 'Hello', tags: [1, null]});
const votes: Promise<{votes: number}> = page.rpc<{votes: number}>('poll.vote', 3);
WS4Redis.connect({uri: '/ws', token_url: '/token/'});
const tab: SharedConnection = WS4Redis.share({uri: '/ws', identity: 'mary', worker: '/shared.js'});
const shared: boolean = tab.is_shared();
void published, votes, fallback, shared;
"""
WRONG = [
    'new WS4Redis({});',
    "new WS4Redis({uri: '/ws', recieve_message: () => {}});",
    'WS4Redis.connect({uri: 7});',
    "WS4Redis.connect({uri: '/ws'}).publish('chat/7');",
    "WS4Redis.share({uri: '/ws'});",
]


@pytest.mark.parametrize('wrong', [None, *WRONG])
def test_its_types_are_those_of_its_use(tmp_path: Path, wrong: str | None) -> None:
    require_executable('node')
    (tmp_path / 'ws4redis.d.ts').write_text((STATIC / 'ws4redis.d.ts').read_text())
    (tmp_path / 'use.ts').write_text(USE + (wrong or ''))
    outcome = subprocess.run(
        [
            installed_packages() / '.bin' / 'tsc',
            *('--noEmit', '--strict', '--target', 'es2020', '--lib', 'es2020,dom', 'use.ts'),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SERVER_SECONDS,
        check=False,
    )
    assert (outcome.returncode == 0) is (wrong is None), outcome.stdout


# Where websockets are blocked


def test_a_page_whose_websockets_are_blocked_says_and_hears_the_same_over_a_stream(
    server: Served,
) -> None:
    with BlockingProxy(server.port) as proxy, start_with_streams(proxy.port) as client:
        client.run(f"open_page('{PATH}'); page.subscribe('recovery:x', handlers());")
        # Two attempts fail before.
        client.run("await event('subscribed', 1);", timeout=SERVER_SECONDS)
        assert client.run('return page.get_transport();') == 'event-stream'
        assert proxy.refused >= 3
        client.run("""
            const said = [1, 2, 3].map(function (n) { return page.publish('recovery:x', n); });
            await Promise.all(said);
        """)
        assert messages(client, 3, 'received') == [1, 2, 3]
        assert client.run("return page.rpc('add', [1, 2]);")['sum'] == 3
        proxy.hold()
        ends = client.run("return all('disconnected').length;")
        proxy.cut()
        client.run(f"await event('disconnected', {ends + 1});")
        publish('recovery:x', 'missed')
        proxy.let_in()
        client.run("await event('received', 4);", timeout=SERVER_SECONDS)
        assert messages(client, 4, 'received')[3] == 'missed'
        assert client.run("return all('gap').length;") == 0


def test_a_page_over_a_stream_learns_why_it_is_disconnected(server: Served) -> None:
    with BlockingProxy(server.port) as proxy, start_with_streams(proxy.port) as client:
        client.run(f"open_page('{PATH}', {{token: '{connection_token('mary')}'}});")
        client.run("await event('connected', 1);", timeout=SERVER_SECONDS)
        # Those of attempts that failed have come already.
        ends = client.run("return all('disconnected').length;")
        disconnect(user='mary')
        assert client.run(f"return event('disconnected', {ends + 1});") == [3503]
        wait_until(lambda: client.run('return page.get_state();') == 3)


def start_with_streams(port: int) -> NodeProcess:
    origin = f'ws://127.0.0.1:{port}'
    return NodeProcess('browser_client.js', str(STATIC / 'ws4redis-streams.js'), origin)
