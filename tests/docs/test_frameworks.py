"""What pages show for React, Vue and React Native runs with these, against a server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from django.test import override_settings

import ws4redis
from tests.clients.node_client import NodeProcess
from tests.django_requests import make_user
from tests.docs.code_blocks import DOCS, code_blocks
from tests.docs.pages import TEXTS, blocks_in, name_of
from tests.npm import installed_packages
from tests.programs import RedisServer
from tests.requirements import require_executable
from tests.serving import Served, served
from tests.timeouts import SERVER_SECONDS
from ws4redis.applications.wsgi import WebSocketServer
from ws4redis.publisher import RedisPublisher
from ws4redis.tokens import connection_token

pytestmark = pytest.mark.slow

REACT_AND_VUE = DOCS / 'howto' / 'react-and-vue.md'
MOBILE = DOCS / 'howto' / 'mobile.md'
CLIENT = Path(ws4redis.__file__).parent / 'static' / 'js' / 'ws4redis.js'
Start = Callable[..., NodeProcess]


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[Served]:
    chat = {'HISTORY_SIZE': 200, 'SUBSCRIBE': 'anyone', 'PUBLISH': 'anyone'}
    with (
        override_settings(WS4REDIS_FACILITIES={'chat/*': chat}),
        served(WebSocketServer()) as server,
    ):
        yield server


@pytest.fixture
def start(server: Served) -> Iterator[Start]:
    """Start a process of Node that can load the modules of a page."""
    prelude = str(Path(__file__).parent / 'frameworks.js')
    with ExitStack() as stack:

        def start(page: Path = REACT_AND_VUE) -> NodeProcess:
            modules = {b.caption: b.text for b in code_blocks(page) if b.language in {'js', 'jsx'}}
            # The test's server has no certificate.
            plain = json.dumps(modules).replace('wss:', 'ws:').replace('https:', 'http:')
            return stack.enter_context(NodeProcess(prelude, str(CLIENT), f'{server.url}/', plain))

        yield start


def say(text: str) -> None:
    RedisPublisher(facility='chat/7', broadcast=True).publish_json({'text': text})


def test_the_component_of_react_shows_what_is_published_and_publishes(start: Start) -> None:
    node = start()
    node.run("""
        const {createElement} = load('react');
        const {createRoot} = load('react-dom/client');
        globalThis.root = createRoot(app);
        root.render(createElement(load('./Chat.jsx').Chat, {room: 7}));
        while (app.querySelector('input:enabled') === null)
            await new Promise((resolve) => setTimeout(resolve, 5));
    """)
    say('one')
    say('two')
    node.run("await shown('one,two');")
    node.run("""
        const input = app.querySelector('input');
        const {set} = Object.getOwnPropertyDescriptor(window.HTMLInputElement.prototype, 'value');
        set.call(input, 'three');
        input.dispatchEvent(new window.Event('input', {bubbles: true}));
        await new Promise((resolve) => setTimeout(resolve));
        const submit = new window.Event('submit', {bubbles: true, cancelable: true});
        app.querySelector('form').dispatchEvent(submit);
        await shown('one,two,three');
    """)


def test_the_composable_of_vue_shows_what_is_published(start: Start) -> None:
    node = start()
    node.run("""
        const {createApp} = load('vue');
        globalThis.vue = createApp(load('./Chat.js').Chat, {room: 7});
        vue.mount(app);
        const {live} = load('./channel.js');
        const store = live.channel('chat/7');
        await new Promise((resolve) => store.subscribe(() => store.get().is_live && resolve()));
    """)
    say('one')
    say('two')
    node.run("await shown('one,two');")


def test_the_store_subscribes_once_and_leaves_with_the_last_listener(start: Start) -> None:
    node = start()
    asked = node.run("""
        const {connect} = load('./channels.js');
        const {channel} = connect('/ws/connection/websocket');
        const store = channel('chat/7');
        const live = new Promise((resolve) => {
            globalThis.ends = [store.subscribe(() => store.get().is_live && resolve()),
                               store.subscribe(() => {})];
        });
        await live;
        globalThis.store = store;
        return store === channel('chat/7');
    """)
    assert asked is True
    say('one')
    node.run(
        'while (store.get().messages.length === 0) await new Promise((r) => setTimeout(r, 5));'
    )
    assert node.run('ends[0](); return store.get().messages.length;') == 1
    assert node.run('ends[1](); return store.get().messages.length;') == 0


@pytest.mark.django_db(transaction=True)
def test_an_app_gets_a_token_and_what_it_missed(start: Start, server: Served) -> None:
    token = connection_token(make_user('john'))
    node = start(MOBILE)
    node.run(f"""
        globalThis.fetch = async (address, options) => {{
            globalThis.asked = [address, options.headers.Authorization];
            return {{status: 200, json: async () => ({{token: {json.dumps(token)}}})}};
        }};
        const {{connect, listen}} = load('./live.js');
        globalThis.texts = [];
        globalThis.missed = 0;
        globalThis.centrifuge = connect('127.0.0.1:{server.port}', () => ({{Authorization: 'x'}}));
        const subscription = listen(
            centrifuge, 'chat/7', (data) => texts.push(data.text), () => {{ missed += 1; }}
        );
        centrifuge.connect();
        await subscription.ready();
    """)
    say('one')
    until_two = 'while (texts.length < {}) await new Promise((r) => setTimeout(r, 5));'
    node.run(until_two.format(1) + 'centrifuge.disconnect();')
    say('while in the background')
    node.run('centrifuge.connect();' + until_two.format(2))
    assert node.run('return [texts, missed];') == [['one', 'while in the background'], 0]
    address, authorization = node.run('return asked;')
    assert address.endswith('/api/websocket-token/')
    assert authorization == 'x'


def test_every_block_of_javascript_calls_what_is_there(tmp_path: Path) -> None:
    blocks = [
        (f'{name_of(page)}:{block.line}', block.text)
        for page in TEXTS
        for block in blocks_in(page, 'js')
        # What others have, for comparison.
        if block.caption != 'before'
    ]
    file = tmp_path / 'blocks.json'
    file.write_text(json.dumps(blocks), encoding='utf-8')
    prelude = Path(__file__).parent / 'run_blocks.js'
    done = subprocess.run(
        [require_executable('node'), prelude, installed_packages(), CLIENT, file],
        capture_output=True,
        text=True,
        timeout=SERVER_SECONDS,
        check=False,
    )
    assert done.stdout, done.stderr
    assert json.loads(done.stdout) == []
    assert len(blocks) > 10
