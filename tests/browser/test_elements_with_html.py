"""Live HTML in the elements of ``ws4redis-elements.js``, in Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from tests.browser.elements import FACILITIES, TEMPLATE, Open, publish, wait_for_text
from tests.programs import UwsgiServer
from tests.timeouts import wait_until
from ws4redis.history import get_position
from ws4redis.live import Fragments
from ws4redis.publisher import RedisPublisher

if TYPE_CHECKING:
    from playwright.sync_api import Route

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_fragments_change_a_list(open_page: Open) -> None:
    page = open_page('<ws4redis-html facility="list"><ul id="list"></ul></ws4redis-html>')
    fragments = Fragments('list')
    for name in ('b', 'c', 'b'):
        # The same row twice is there once.
        context = {'live_id': f'row-{name}', 'group': {'name': name}}
        fragments.append('list', TEMPLATE, context)
    fragments.prepend('list', TEMPLATE, {'live_id': 'row-a', 'group': {'name': 'a'}})
    fragments.replace('row-c', TEMPLATE, {'live_id': 'row-c', 'group': {'name': 'C'}})
    fragments.remove('row-nowhere')
    wait_for_text(page, '#row-c', 'C')
    assert page.locator('#list li').all_inner_texts() == ['a', 'C', 'b']
    fragments.remove('row-a')
    fragments.update('list', TEMPLATE, {'live_id': 'only', 'group': {'name': 'only'}})
    page.locator('#only').wait_for()
    assert page.locator('#list li').count() == 1


def test_plain_html_becomes_the_content_also_for_those_who_come_late(open_page: Open) -> None:
    publisher = RedisPublisher(facility='card', broadcast=True)
    publisher.publish_html(TEMPLATE, {'live_id': 'x', 'group': {'name': 'one'}})
    page = open_page('<ws4redis-html facility="card">…</ws4redis-html>')
    wait_for_text(page, '#x', 'one')
    publisher.publish_html(TEMPLATE, {'live_id': 'x', 'group': {'name': 'two'}})
    wait_for_text(page, '#x', 'two')


HOSTILE = [
    '<script>alert(1)</script>',
    '<img src=x onerror=alert(1)>',
    '<svg onload=alert(1)><animate attributeName=href values=javascript:alert(1) /></svg>',
    '<svg><a xlink:href="javascript:alert(1)"><text>x</text></a></svg>',
    '<a href="java&#10;script:alert(1)" class=click>x</a>',
    '<a href=" &#1;javascript:alert(1)" class=click>x</a>',
    '<form action="javascript:alert(1)"><button class=click>x</button></form>',
    (
        '<form onsubmit=alert(1)><input name=attributes><input name=getAttributeNames>'
        '<input name=getAttribute><input name=removeAttribute><button class=click>x</button></form>'
    ),
    '<button formaction="javascript:alert(1)" form=f class=click>x</button><form id=f></form>',
    '<iframe srcdoc="<script>parent.alert(1)</script>"></iframe>',
    '<iframe src="javascript:parent.alert(1)"></iframe>',
    '<object data="javascript:alert(1)"></object><embed src="javascript:alert(1)">',
    '<math><mtext><table><mglyph><style><img src=x onerror=alert(1)></style></mglyph></table>',
    '<template><img src=x onerror=alert(1)></template>',
    '<base href="https://evil.example.com/"><meta http-equiv=refresh content="0;url=/evil">',
    '<details open ontoggle=alert(1)>x</details>',
    '<div hx-on:load="alert(1)" data-hx-on:load="alert(1)" hx-on--load="alert(1)">x</div>',
]


@pytest.mark.parametrize('html', HOSTILE)
@pytest.mark.parametrize(
    'around', ['{}', '<turbo-stream action="update" target="box"><template>{}</template>']
)
def test_nothing_that_is_published_is_executed(open_page: Open, html: str, around: str) -> None:
    # Without a policy: what is tested is the element.
    page = open_page(
        '<ws4redis-html id="box" facility="box"></ws4redis-html>', path='elements/?policy=no'
    )
    page.evaluate(
        """() => {
            window.alert = () => { document.title = 'executed'; };
            document.addEventListener('submit', (event) => event.preventDefault());
        }"""
    )
    publish(around.format(html), 'box')
    publish('<turbo-stream action="append" target="box"><template><p id="end">', 'box')
    page.locator('#end').wait_for(state='attached')
    for element in page.locator('.click').all():
        element.dispatch_event('click')
    page.evaluate('new Promise(done => setTimeout(done, 50))')
    assert page.title() == 'Live'
    assert (
        page.evaluate("Array.from(document.querySelectorAll('#box script, #box iframe')).length")
        == 0
    )
    attributes = page.evaluate(
        """() => Array.from(document.querySelectorAll('#box *')).flatMap((element) =>
            Element.prototype.getAttributeNames.call(element).map((name) =>
                [name, Element.prototype.getAttribute.call(element, name)]))"""
    )
    assert [name for name, _ in attributes if name.startswith(('on', 'hx-on', 'data-hx'))] == []
    assert [value for _, value in attributes if 'script:' in value] == []


def test_a_forged_target_outside_of_the_element_is_left_alone(open_page: Open) -> None:
    page = open_page(
        '<p id="balance">100</p><ws4redis-html facility="box"><p id="in">x</p></ws4redis-html>'
    )
    publish('<turbo-stream action="update" target="balance"><template>0</template>', 'box')
    publish('<turbo-stream action="update" target="in"><template>y</template>', 'box')
    wait_for_text(page, '#in', 'y')
    assert page.inner_text('#balance') == '100'


def test_turbo_finds_no_streams_in_what_is_published(open_page: Open, node_modules: Path) -> None:
    page = open_page(
        '<p id="balance">100</p><ws4redis-html id="box" facility="box"></ws4redis-html>',
        path='elements/?policy=no',
    )
    page.add_script_tag(url='/npm/@hotwired/turbo/dist/turbo.es2017-umd.js')
    forged = '<turbo-stream action="update" target="balance"><template>0</template></turbo-stream>'
    source = '<turbo-stream-source src="ws://127.0.0.1:9/"></turbo-stream-source>'
    for html in (f'<div>{forged}{source}</div>', f'{forged}{source}'):
        publish(
            f'<turbo-stream action="append" target="box"><template>{html}</template>'
            '</turbo-stream>',
            'box',
        )
    publish(f'<div id="end">{forged}</div>', 'box')
    page.locator('#end').wait_for(state='attached')
    assert page.locator('#box turbo-stream, #box turbo-stream-source').count() == 0
    assert page.inner_text('#balance') == '100'


@pytest.mark.parametrize('action', ['explode', 'constructor', '__proto__', ''])
def test_an_unknown_action_is_an_error_and_the_next_message_counts(
    open_page: Open, action: str
) -> None:
    page = open_page('<ws4redis-html facility="box">x</ws4redis-html>')
    publish(f'<turbo-stream action="{action}"><template>0</template>', 'box')
    page.locator('ws4redis-html[data-error="Unreadable message"]').wait_for()
    publish('fine', 'box')
    wait_for_text(page, 'ws4redis-html', 'fine')
    assert page.locator('ws4redis-html[data-error]').count() == 0


def test_renderings_are_batched(open_page: Open) -> None:
    page = open_page('<ws4redis-html facility="list"><ul id="list"></ul></ws4redis-html>')
    page.evaluate(
        """() => { window.renderings = 0; document.addEventListener(
            'ws4redis-rendered', () => { window.renderings += 1; }); }"""
    )
    fragment = (
        '<turbo-stream action="append" target="list"><template><li>x</li></template></turbo-stream>'
    )
    publish(fragment * 1000, 'list')
    for _ in range(500):
        publish(fragment, 'list')
    publish('<turbo-stream action="append" target="list"><template><li id="end">', 'list')
    page.locator('#end').wait_for(state='attached')
    assert page.locator('#list li').count() == 1501
    assert page.evaluate('window.renderings') < 250


def test_what_was_missed_is_loaded_after_a_reconnection(open_page: Open, site: UwsgiServer) -> None:
    site.get('/rows/?set=a')
    page = open_page('<ws4redis-html facility="rows" src="/rows/" id="rows"></ws4redis-html>')
    site.restart()
    site.get('/rows/?set=a&set=b')
    page.evaluate("window.dispatchEvent(new Event('online'))")
    wait_for_text(page, '#row-b', 'b')
    publish('<turbo-stream action="append" target="rows"><template><li id="row-c">c', 'rows')
    wait_for_text(page, '#row-c', 'c')
    assert page.locator('#rows li').all_inner_texts() == ['a', 'b', 'c']


@override_settings(WS4REDIS_FACILITIES=FACILITIES)
def test_with_a_history_what_was_missed_comes_by_itself_and_a_gap_loads_all(
    open_page: Open, site: UwsgiServer, redis_client: Any
) -> None:
    def add(name: str) -> None:
        publish(
            f'<turbo-stream action="append" target="story"><template><li id="row-{name}">{name}'
            '</li></template></turbo-stream>',
            'story/1',
        )

    def come_back() -> None:
        site.start()
        page.evaluate("window.dispatchEvent(new Event('online'))")

    add('before')
    since = get_position('story/1', broadcast=True)
    page = open_page(
        f'<ws4redis-html facility="story/1" id="story" src="/rows/" since="{since}">'
        '</ws4redis-html>'
    )
    page.evaluate(
        """() => { window.gaps = 0; document.addEventListener(
            'ws4redis-gap', () => { window.gaps += 1; }); }"""
    )
    add('a')
    page.locator('#row-a').wait_for()
    site.kill()
    for name in 'bcd':
        add(name)
    come_back()
    page.locator('#row-d').wait_for()
    assert page.locator('#story li').all_inner_texts() == ['a', 'b', 'c', 'd']
    assert page.evaluate('window.gaps') == 0
    site.kill()
    redis_client.flushall()
    add('late')
    come_back()
    page.locator('#row-all').wait_for()
    assert page.evaluate('window.gaps') == 1
    assert page.locator('#row-a').count() == 0


@pytest.mark.parametrize('has_position', [False, True])
@override_settings(WS4REDIS_FACILITIES=FACILITIES)
def test_an_element_that_is_put_back_shows_what_was_published_meanwhile(
    open_page: Open, site: UwsgiServer, *, has_position: bool
) -> None:
    def add(name: str) -> None:
        publish(
            f'<turbo-stream action="append" target="list"><template><b>{name}</b>', 'story/list'
        )

    site.get('/rows/?set=a&set=b')
    since = f'since="{get_position("story/list", broadcast=True)}"' if has_position else ''
    page = open_page(
        f'<ws4redis-html facility="story/list" id="list" src="/rows/" {since}></ws4redis-html>'
    )
    add('x')
    wait_for_text(page, '#list b', 'x')
    page.evaluate(
        """() => { window.list = document.getElementById('list'); window.list.remove(); }"""
    )
    add('y')
    page.evaluate("document.querySelector('main').append(window.list)")
    page.locator('#row-b').wait_for()
    add('z')
    wait_for_text(page, '#list b', 'z')
    assert page.locator('#list > *').all_inner_texts() == ['a', 'b', 'z']


def test_what_is_missed_while_the_content_loads_is_loaded_after_it(open_page: Open) -> None:
    page = open_page('<ws4redis-html facility="box" id="box" src="/rows/"></ws4redis-html>')
    asked: list[Route] = []
    page.route('**/rows/', lambda route: asked.append(route))

    def put_back() -> None:
        page.evaluate("document.querySelector('main').append(document.getElementById('box'))")
        page.locator('#box[data-connection=connected]').wait_for(state='attached')

    def are_asked(number: int) -> bool:
        # The evaluation lets Playwright tell of requests.
        return bool(page.evaluate('true')) and len(asked) == number

    put_back()
    wait_until(lambda: are_asked(1))
    put_back()
    asked[0].fulfill(body='old')
    wait_until(lambda: are_asked(2))
    asked[1].fulfill(body='new')
    wait_for_text(page, '#box', 'new')
