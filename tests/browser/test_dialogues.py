"""The example's views with websockets in Chromium, under uWSGI behind its router."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser.example_server import ExampleServer
from tests.timeouts import SOON_SECONDS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context() as context:
        context.set_default_timeout(SOON_SECONDS * 1000)
        yield context.new_page()


def test_the_echo_comes_back_with_its_time(page: Page, example: ExampleServer) -> None:
    page.goto(f'{example.url}/echo/')
    page.locator('#connection[data-state="connected"]').wait_for()
    for text in ('Hello?', '<b>äöü 😀</b>'):
        page.get_by_label('Message').fill(text)
        page.get_by_role('button', name='Send').click()
        page.locator('.echoes li', has_text=text).wait_for()
    assert page.locator('.echoes li').count() == 2
    assert page.locator('.took').first.inner_text().endswith(' ms')


def test_the_countdown_ends_with_its_view(page: Page, example: ExampleServer) -> None:
    page.goto(f'{example.url}/countdown/')
    page.get_by_label('Seconds', exact=True).fill('2')
    page.get_by_role('button', name='Start').click()
    page.get_by_text('Done').wait_for()
    page.get_by_text('Closed by the view').wait_for()
    assert page.locator('#remaining').inner_text() == '0'


def test_the_countdown_can_be_stopped(page: Page, example: ExampleServer) -> None:
    page.goto(f'{example.url}/countdown/')
    page.get_by_label('Seconds', exact=True).fill('60')
    page.get_by_role('button', name='Start').click()
    page.get_by_text('Counting').wait_for()
    page.get_by_role('button', name='Stop').click()
    page.get_by_text('to go').wait_for()
    page.get_by_text('Closed by the view').wait_for()
