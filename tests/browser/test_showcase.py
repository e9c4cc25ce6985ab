"""The demo's larger pages in Chromium, all on one `make demo`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.browser.chat_page import log_in
from tests.demo_server import Demo
from tests.timeouts import SERVER_SECONDS, SOON_SECONDS, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

#: Opens a page as a user, or as a guest if there is no name.
Visit = Callable[..., 'Page']


@pytest.fixture(scope='module')
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with Demo(tmp_path_factory.mktemp('demo'), options=['--own-redis']) as running:
        yield running


@pytest.fixture
def visit(browser: Browser, demo: Demo) -> Iterator[Visit]:
    """Open pages, each in a browser of its own. The test fails when one of them throws."""
    complaints: list[str] = []
    contexts: list[BrowserContext] = []

    def open_page(path: str, username: str | None = None) -> Page:
        context = browser.new_context()
        contexts.append(context)
        context.set_default_timeout(SOON_SECONDS * 1000)
        context.on('weberror', lambda error: complaints.append(str(error.error)))
        if username is not None:
            log_in(context, demo.url, username)
        page = context.new_page()
        page.goto(demo.url + path)
        if page.locator('#connection').count():
            page.wait_for_selector('#connection[data-state=connected]')
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def wait_for_text(page: Page, selector: str, text: str) -> None:
    exactly = re.compile(rf'^\s*{re.escape(text)}\s*$')
    page.locator(selector).filter(has_text=exactly).first.wait_for()


def number_in(page: Page, selector: str) -> int:
    return int(page.inner_text(selector))


def has_more(page: Page, selector: str, *, than: int) -> bool:
    return number_in(page, selector) > than


def write(page: Page, text: str) -> None:
    page.fill('#text_message', text)
    page.press('#text_message', 'Enter')


def test_the_overview_shows_figures_of_now(visit: Visit) -> None:
    page = visit('/')
    wait_for_text(page, '#orders', '4')
    assert page.inner_text('#round_trip').endswith(' ms')
    room = visit('/room/')
    wait_for_text(page, '#room', '1')
    room.close()


def test_a_room_keeps_its_past_and_shows_who_is_here_and_types_on_one_websocket(
    visit: Visit,
) -> None:
    john, mary = visit('/room/', 'john'), visit('/room/', 'mary')
    websockets: list[str] = []
    mary.on('websocket', lambda websocket: websockets.append(websocket.url))
    write(john, 'Is anybody here?')
    wait_for_text(mary, '.text', 'Is anybody here?')
    mary.reload()
    wait_for_text(mary, '.text', 'Is anybody here?')
    assert mary.locator('.text').count() == 1
    wait_for_text(mary, '#members li', 'john')
    wait_for_text(mary, '#members li', 'mary (you)')
    john.locator('#text_message').press_sequentially('Hm')
    wait_for_text(mary, '#typing', 'john is typing…')
    write(john, 'Nobody')
    wait_until(lambda: mary.inner_text('#typing') == '')
    assert len(websockets) == 1


def test_a_room_counts_what_is_unread_elsewhere(visit: Visit) -> None:
    reader, writer = visit('/room/releases/'), visit('/room/kitchen/')
    reader.goto(reader.url.replace('releases', 'lobby'))
    write(writer, 'Coffee is ready')
    write(writer, 'And cake')
    wait_for_text(reader, '[data-room=kitchen] .unread', '2')
    assert reader.locator('[data-room=releases] .unread').is_hidden()
    reader.goto(reader.url.replace('lobby', 'kitchen'))
    wait_for_text(reader, '.text', 'And cake')
    # It is read when the subscription is answered, as the list of members is.
    # The writer may have drawn the same name.
    reader.locator('#members li', has_text='(you)').first.wait_for()
    reader.goto(reader.url.replace('kitchen', 'lobby'))
    reader.wait_for_selector('#connection[data-state=connected]')
    assert reader.locator('[data-room=kitchen] .unread').is_hidden()


def test_what_is_written_without_a_connection_is_sent_later_and_once(visit: Visit) -> None:
    writer, reader = visit('/room/'), visit('/room/')
    breaker = visit('/break/')
    breaker.click('#kill')
    writer.wait_for_selector('#connection:not([data-state=connected])')
    write(writer, 'Written in the dark')
    wait_for_text(writer, '.unconfirmed .text', 'Written in the dark')
    wait_for_text(reader, '.text', 'Written in the dark')
    writer.wait_for_selector('.unconfirmed', state='detached')
    assert reader.locator('.text', has_text='Written in the dark').count() == 1


def test_a_room_shows_a_gap_where_something_is_lost(visit: Visit) -> None:
    reader, writer = visit('/room/'), visit('/room/')
    write(writer, 'Before')
    wait_for_text(reader, '.text', 'Before')
    visit('/break/').click('#forget')
    write(writer, 'After')
    reader.locator('.note.gap').wait_for()


def test_tasks_are_seen_by_those_who_come_later_and_say_why_they_fail(visit: Visit) -> None:
    visit('/tasks/', 'mary').get_by_role('button', name='Import a damaged list').click()
    late = visit('/tasks/')
    late.locator('ws4redis-progress[data-state=running]').wait_for()
    late.locator('ws4redis-progress[data-state=failed]', has_text='Line 6').wait_for()
    late.get_by_role('button', name='Checksum').click()
    late.locator('ws4redis-progress[data-state=done]', has_text='SHA-256').wait_for(
        timeout=SERVER_SECONDS * 1000
    )
    assert late.locator('.task').count() == 2


def test_a_table_changes_in_both_browsers_and_keeps_the_focus(visit: Visit) -> None:
    one, other = visit('/orders/'), visit('/orders/')
    other.wait_for_selector('ws4redis-html[data-connection=connected]')
    one.wait_for_selector('ws4redis-html[data-connection=connected]')
    row = other.locator('tr', has_text='Teapot')
    one.get_by_role('button', name='One Teapot, cast iron more').focus()
    for quantity in ('3', '4'):
        one.keyboard.press('Enter')
        row.get_by_text(quantity, exact=True).wait_for()
        one.locator('tr', has_text='Teapot').get_by_text(quantity, exact=True).wait_for()
        one.wait_for_function("document.activeElement.id.endsWith('-more')")
    one.get_by_role('button', name='Teapot, cast iron is new').click()
    row.get_by_text('Packed').wait_for()
    other.fill('#id_item', '<b>Scones</b>')
    other.get_by_role('button', name='Add').click()
    wait_for_text(one, '#orders th', '<b>Scones</b>')
    one.get_by_role('button', name='Remove <b>Scones</b>').click()
    other.locator('tr', has_text='Scones').wait_for(state='detached')


def test_a_notification_reaches_its_user_with_toast_badge_and_list(visit: Visit) -> None:
    john, mary = visit('/notifications/', 'john'), visit('/notifications/', 'mary')
    mary.wait_for_selector('ws4redis-toasts[data-connection=connected]', state='attached')
    mary.wait_for_selector('ws4redis-html[data-connection=connected]')
    john.select_option('#id_user', 'mary')
    john.fill('#id_text', 'Lunch?')
    john.get_by_role('button', name='Notify').click()
    mary.locator('.ws4redis-toast', has_text='Lunch?').wait_for()
    mary.locator('ws4redis-badge', has_text='1').wait_for()
    mary.locator('#inbox', has_text='Lunch?').wait_for()
    assert john.locator('#inbox li').count() == 0
    mary.get_by_role('button', name='Mark all as read').click()
    mary.locator('ws4redis-badge').wait_for(state='hidden')
    mary.locator('#inbox li').wait_for(state='detached')


def test_the_event_stream_receives_what_the_room_does_and_sends_by_a_post(visit: Visit) -> None:
    stream, room = visit('/stream/'), visit('/room/')
    write(room, 'By websocket')
    wait_for_text(stream, '.text', 'By websocket')
    write(stream, 'By POST')
    wait_for_text(room, '.text', 'By POST')
    wait_for_text(stream, '.text', 'By POST')


def test_an_expired_token_is_replaced_on_the_same_websocket(visit: Visit) -> None:
    page = visit('/tokens/')
    wait_until(lambda: number_in(page, '#shown') >= 2, timeout=SERVER_SECONDS)
    page.get_by_label('Give no more tokens').check()
    assert page.inner_text('#opened') == '1'


def test_nothing_is_lost_when_things_break_and_what_is_lost_is_told(visit: Visit) -> None:
    page = visit('/break/')
    # The sender wakes up when it sees somebody; until then nothing can be missed.
    page.wait_for_selector('#squares .live')
    for way in ('cut', 'kill', 'restart'):
        recovered = number_in(page, '#recovered')
        page.click(f'#{way}')
        wait_until(
            partial(has_more, page, '#recovered', than=recovered),
            # The server may be away for longer on a busy machine.
            timeout=SERVER_SECONDS,
            message=f'nothing was recovered after {way}',
        )
    page.get_by_label('Send one a second').uncheck()
    wait_until(lambda: page.inner_text('#own_waiting') == '0', timeout=SERVER_SECONDS)
    wait_until(lambda: page.inner_text('#own_received') == page.inner_text('#own_sent'))
    for counter in ('missing', 'twice', 'gaps', 'own_twice', 'own_failed'):
        assert page.inner_text(f'#{counter}') == '0', counter
    page.click('#forget')
    wait_until(lambda: number_in(page, '#gaps') > 0)
