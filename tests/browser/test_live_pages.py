"""The example's pages with handlers in Chromium, under uWSGI and with Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser.chat_page import PLAIN_WEBSOCKETS, log_in
from tests.browser.example_server import ExampleServer
from tests.timeouts import SOON_SECONDS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, WebSocketRoute

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def contexts(browser: Browser) -> Iterator[list[BrowserContext]]:
    """Three people's browsers."""
    contexts = [browser.new_context() for _ in range(3)]
    for context in contexts:
        context.set_default_timeout(SOON_SECONDS * 1000)
    yield contexts
    for context in contexts:
        context.close()


def open_page(context: BrowserContext, example: ExampleServer, path: str) -> Page:
    page = context.new_page()
    page.goto(example.url + path)
    page.locator('#connection[data-state="connected"]').wait_for()
    return page


def test_visitors_see_who_comes_and_who_leaves(
    contexts: list[BrowserContext], example: ExampleServer
) -> None:
    log_in(contexts[0], example.url, 'john')
    john = open_page(contexts[0], example, '/visitors/')
    john.locator('.visitor.you', has_text='john').wait_for()
    guests = [open_page(context, example, '/visitors/') for context in contexts[1:]]
    for page in (john, *guests):
        page.locator('.visitor').nth(2).wait_for()
        assert page.locator('#number').inner_text() == '3'
        assert page.locator('.visitor.you').count() == 1
    guests[0].close()
    john.locator('.visitor').nth(2).wait_for(state='detached')
    assert john.locator('#number').inner_text() == '2'


def test_each_window_has_a_counter_of_its_own(
    contexts: list[BrowserContext], example: ExampleServer
) -> None:
    pages = [open_page(context, example, '/counter/') for context in contexts[:2]]
    for page in pages:
        page.locator('.steps li').nth(1).wait_for()
        page.get_by_role('button', name='Pause').click()
        page.get_by_role('button', name='Go on').wait_for()
    steps = [
        page.locator('.steps li').evaluate_all('items => items.map(item => item.className)')
        for page in pages
    ]
    for page, classes in zip(pages, steps, strict=True):
        total = sum(int(name.removeprefix('step-')) for name in classes)
        shown = int(page.locator('#count').inner_text())
        # One more answer may have come between the two looks.
        assert total <= shown <= total + 9


STRAY_MESSAGES = ('--heartbeat--', '7', 'null', '{}', b'\xff')


@pytest.mark.parametrize(
    ('path', 'message', 'shown'),
    [
        ('/counter/', '{"count": 41, "step": 1, "wait_ms": 60000}', '41'),
        ('/visitors/', '{"count": 1, "visitors": [{"id": "z", "name": "Zoe"}]}', 'Zoe'),
        ('/countdown/', '{"remaining": 4}', '4'),
    ],
)
def test_messages_that_a_page_does_not_understand_change_nothing(
    contexts: list[BrowserContext], example: ExampleServer, path: str, message: str, shown: str
) -> None:
    def serve(route: WebSocketRoute) -> None:
        for stray in (*STRAY_MESSAGES, message):
            route.send(stray)

    page = page_served_by(contexts[0], serve)
    errors: list[str] = []
    page.on('pageerror', lambda error: errors.append(str(error)))
    page.goto(example.url + path)
    if path == '/countdown/':
        page.get_by_role('button', name='Start').click()
    page.get_by_text(shown, exact=True).first.wait_for()
    assert errors == []


def test_what_is_no_echo_is_not_shown_as_one(
    contexts: list[BrowserContext], example: ExampleServer
) -> None:
    def serve(route: WebSocketRoute) -> None:
        def answer(message: str | bytes) -> None:
            for reply in (*STRAY_MESSAGES, message):
                route.send(reply)

        route.on_message(answer)
        route.send('--heartbeat--')

    page = page_served_by(contexts[0], serve)
    page.goto(f'{example.url}/echo/')
    page.locator('#connection[data-state="connected"]').wait_for()
    page.get_by_label('Message').fill('Hello?')
    page.get_by_role('button', name='Send').click()
    page.locator('.echoes li', has_text='Hello?').wait_for()
    assert page.locator('.echoes li').count() == 1
    assert 'NaN' not in page.locator('.took').inner_text()


def page_served_by(context: BrowserContext, serve: Callable[[WebSocketRoute], None]) -> Page:
    """Return a page whose websockets are served by the test."""
    page = context.new_page()
    page.route_web_socket('**', serve)
    page.add_init_script(PLAIN_WEBSOCKETS)
    return page
