"""What ``ws4redis.js`` does where the server speaks the client protocol, in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from tests.clients.cuttable import Cuttable
from tests.clients.project import SETTINGS
from tests.npm import installed_packages
from tests.programs import RedisServer
from tests.serving import served
from ws4redis.applications.wsgi import WebSocketServer
from ws4redis.publisher import RedisPublisher

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Cuttable]:
    """A server of the client protocol, whose connections the test can cut."""
    settings = {**SETTINGS, 'WS4REDIS_ALLOWED_ORIGINS': ['*']}
    with override_settings(**settings), served(WebSocketServer()) as server:
        with Cuttable(server.port) as proxy:
            yield proxy


def publish(facility: str, *messages: str) -> None:
    publisher = RedisPublisher(facility=facility, broadcast=True)
    for message in messages:
        publisher.publish_message(message)


def wait_for(page: Page, condition: str, argument: Any = None) -> None:
    page.wait_for_function(condition, arg=argument)


def test_a_page_of_old_recovers_what_it_missed(page: Page, proxy: Cuttable) -> None:
    uri = f'ws://127.0.0.1:{proxy.port}/ws/chat/1?subscribe-broadcast&publish-broadcast&echo'
    page.evaluate('uri => { window.ws = new WS4Redis(options(uri)); }', uri)
    wait_for(page, 'ws.is_connected()')
    page.evaluate("ws.send_message('mine')")
    wait_for(page, "calls.some(call => call[1] === 'mine')")
    proxy.hold()
    proxy.cut()
    wait_for(page, "calls.some(call => call[0] === 'disconnected')")
    publish('chat/1', 'missed', 'missed too')
    proxy.let_in()
    wait_for(page, "calls.some(call => call[1] === 'missed too')")
    received = page.evaluate(
        "calls.filter(call => call[0] === 'receive_message').map(call => call[1])"
    )
    assert received == ['mine', 'missed', 'missed too']


def test_bytes_arrive_as_bytes(page: Page, proxy: Cuttable) -> None:
    uri = f'ws://127.0.0.1:{proxy.port}/ws/open?subscribe-broadcast&publish-broadcast&echo'
    page.evaluate(
        """uri => {
            window.ws = new WS4Redis({uri, receive_message: async function (data) {
                window.received = Array.from(new Uint8Array(await data.arrayBuffer()));
            }});
        }""",
        uri,
    )
    wait_for(page, 'ws.is_connected()')
    page.evaluate('ws.send_message(new Blob([new Uint8Array([255, 0, 7])]))')
    wait_for(page, 'window.received')
    assert page.evaluate('received') == [255, 0, 7]


def test_centrifuge_itself_works_in_a_browser(page: Page, proxy: Cuttable) -> None:
    page.add_script_tag(path=str(installed_packages() / 'centrifuge' / 'dist' / 'centrifuge.js'))
    page.evaluate(
        """url => {
            window.data = [];
            window.centrifuge = new Centrifuge(url, {minReconnectDelay: 50});
            const sub = centrifuge.newSubscription('recovery:x');
            sub.on('publication', context => data.push(context.data));
            sub.on('subscribed', context => { window.subscribed = context; });
            sub.subscribe();
            centrifuge.connect();
        }""",
        f'ws://127.0.0.1:{proxy.port}/connection/websocket',
    )
    wait_for(page, 'window.subscribed')
    publish('recovery:x', 'one')
    wait_for(page, 'data.length === 1')
    proxy.hold()
    proxy.cut()
    wait_for(page, "centrifuge.state === 'connecting'")
    publish('recovery:x', 'two')
    proxy.let_in()
    wait_for(page, 'data.length === 2')
    assert page.evaluate('data') == ['one', 'two']
    assert page.evaluate('subscribed.recovered') is True
