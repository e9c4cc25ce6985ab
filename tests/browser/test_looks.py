"""How the pages of the example look: they fit, can be read, and lead to each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from tests.browser.chat_page import NewContext
from tests.browser.example_server import ExampleServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CHATS = ['/chat/', '/userchat/', '/groupchat/']
SHOWCASE = ['/room/', '/tasks/', '/orders/', '/notifications/', '/stream/', '/tokens/', '/break/']
SMALLER = [*CHATS, '/counter/', '/visitors/', '/echo/', '/countdown/']
TABS = [*SHOWCASE, *SMALLER]
PAGES = ['/', '/login/', *TABS]
WITHOUT_STATE = ['/login/', '/tasks/', '/orders/', '/notifications/']

LEAST_CONTRAST_OF_CONTROLS = 3.0

# The contrast between what can be used and what is around it: by its border, or by its ground where
# it has no border.
CONTRASTS_OF_CONTROLS = """() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    function channels(colour) {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return Array.from(canvas.getImageData(0, 0, 1, 1).data);
    }
    function luminance(colour) {
        const [r, g, b] = channels(colour).map(value => {
            const part = value / 255;
            return part <= 0.04045 ? part / 12.92 : Math.pow((part + 0.055) / 1.055, 2.4);
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    }
    function is_visible(colour) { return channels(colour)[3] > 0; }
    function ground(element) {
        while (element && !is_visible(getComputedStyle(element).backgroundColor)) {
            element = element.parentElement;
        }
        return getComputedStyle(element).backgroundColor;
    }
    const controls = document.querySelectorAll(
        'input:not([type=radio]):not([type=checkbox]):not([type=hidden]), select,'
        + '.quiet, .primary, .pill span, .stepper button, button.state');
    return Array.from(controls).filter(element => !element.disabled).map(element => {
        const style = getComputedStyle(element);
        const edge = is_visible(style.borderTopColor) ? style.borderTopColor
            : style.backgroundColor;
        const [a, b] = [edge, ground(element.parentElement)].map(luminance).sort((x, y) => y - x);
        return [element.outerHTML.slice(0, 80), (a + 0.05) / (b + 0.05)];
    });
}"""


def open_page(
    new_context: NewContext, example: ExampleServer, path: str, **options: object
) -> Page:
    username = None if path == '/login/' else 'john'
    page: Page = new_context(username, bypass_csp=True, **options).new_page()
    page.goto(example.url + path)
    if path not in [*WITHOUT_STATE, '/countdown/']:
        page.wait_for_selector('#connection[data-state=connected]')
    return page


@pytest.mark.parametrize('path', PAGES)
@pytest.mark.parametrize('width', [320, 390, 768, 1280])
def test_pages_fit_the_window(
    new_context: NewContext,
    example: ExampleServer,
    redis_client: redis.Redis,
    path: str,
    width: int,
) -> None:
    page = open_page(new_context, example, path, viewport={'width': width, 'height': 640})
    if path in CHATS:
        for channel in ('broadcast', 'user:john', 'group:chatters'):
            redis_client.publish(f'{channel}:foobar', 'x' * 500)
        page.wait_for_selector('#message-list .text')
        button = page.locator('#send_message').bounding_box()
        assert button is not None
        assert button['x'] + button['width'] <= width
        assert button['y'] + button['height'] <= 640
    assert page.evaluate('document.documentElement.scrollWidth') <= width


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('path', PAGES)
def test_pages_are_accessible(
    new_context: NewContext,
    example: ExampleServer,
    node_modules: Path,
    path: str,
    scheme: str,
) -> None:
    """As far as a program can tell: axe finds nothing, contrast included."""
    page = open_page(new_context, example, path, color_scheme=scheme)
    if path in CHATS:
        page.fill('#text_message', 'Hello')
        page.press('#text_message', 'Enter')
        page.wait_for_selector('.message.own')
    elif path == '/echo/':
        page.fill('#message', 'Hello')
        page.press('#message', 'Enter')
        page.wait_for_selector('.echoes li')
    elif path == '/countdown/':
        page.click('#start')
        page.wait_for_selector('#connection[data-state=connected]')
    page.add_script_tag(path=node_modules / 'axe-core/axe.min.js')
    states = [None] if path in WITHOUT_STATE else ['connected', 'connecting', 'closed', 'idle']
    for state in states:
        if state is not None:
            page.evaluate(
                'state => document.getElementById("connection").dataset.state = state', state
            )
        violations = page.evaluate("""axe.run().then(results => results.violations.map(
            found => found.id + ': ' + found.nodes.map(node => node.html).join(', ')
        ))""")
        assert violations == [], state


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('path', PAGES)
def test_controls_stand_out_from_what_is_around_them(
    new_context: NewContext, example: ExampleServer, path: str, scheme: str
) -> None:
    page = open_page(new_context, example, path, color_scheme=scheme)
    contrasts = page.evaluate(CONTRASTS_OF_CONTROLS)
    assert contrasts
    assert [found for found in contrasts if found[1] < LEAST_CONTRAST_OF_CONTROLS] == []


def test_each_page_is_one_click_away(new_context: NewContext, example: ExampleServer) -> None:
    page = open_page(new_context, example, '/')
    links = page.locator('nav a')
    assert [link.get_attribute('href') for link in links.all()] == TABS
    for number, path in enumerate(TABS):
        if path in SMALLER:
            page.get_by_text('More', exact=True).click()
        links.nth(number).click()
        page.wait_for_url(f'**{path}')
        current = page.locator('nav [aria-current=page]')
        assert current.get_attribute('href') == path
