"""The elements of ``ws4redis-elements.js`` in Chromium, against a server and Redis."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.browser.elements import TEMPLATE, Open, publish, wait_for_text
from tests.browser.static_pages import CLIENT
from tests.timeouts import wait_until
from ws4redis.live import Fragments, Progress, mark_read, notify

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ELEMENTS = CLIENT.with_name('ws4redis-elements.js')


def test_the_script_is_small() -> None:
    assert len(gzip.compress(ELEMENTS.read_bytes(), 9)) <= 6_000


# Progress


def test_progress_is_shown_from_the_first_step_to_the_end(open_page: Open) -> None:
    page = open_page('<ws4redis-progress facility="job"></ws4redis-progress>')
    wait_for_text(page, 'ws4redis-progress[data-state=waiting]', 'Waiting')
    with Progress('job', total=4) as progress:
        progress.advance(1, 'reading')
        wait_for_text(page, 'ws4redis-progress[data-state=running]', '25 %')
        assert 'reading' in page.inner_text('ws4redis-progress')
        assert '/s' in page.inner_text('ws4redis-progress')
        assert 'left' in page.inner_text('ws4redis-progress')
        progress.advance(3)
    wait_for_text(page, 'ws4redis-progress[data-state=done]', '100 % · Done')
    assert page.locator('progress').evaluate('bar => bar.value') == 1
    # There is nothing to do.
    with Progress('job', total=0):
        wait_for_text(page, 'ws4redis-progress[data-state=running]', '100 %')
    wait_for_text(page, 'ws4redis-progress[data-state=done]', '100 % · Done')


def test_those_who_come_late_see_the_state_at_once(open_page: Open) -> None:
    progress = Progress('late', total=4)
    progress.fail('The file has no header.')
    page = open_page('<ws4redis-progress facility="late"></ws4redis-progress>')
    wait_for_text(page, 'ws4redis-progress[data-state=failed]', 'The file has no header.')
    # An element that comes later still shares the websocket, and gets what came last.
    page.evaluate(
        """() => document.querySelector('main').insertAdjacentHTML(
            'beforeend', '<ws4redis-progress facility="late" id="second"></ws4redis-progress>')"""
    )
    wait_for_text(page, '#second[data-state=failed]', 'Failed')


def test_a_total_that_nobody_knows_is_counted(open_page: Open) -> None:
    page = open_page('<ws4redis-progress facility="job"></ws4redis-progress>')
    Progress('job').advance(1234)
    wait_for_text(page, 'ws4redis-progress', '1,234')
    assert not page.locator('progress').get_attribute('value')


def test_silence_is_told(open_page: Open) -> None:
    page = open_page('<ws4redis-progress facility="job" stale="1"></ws4redis-progress>')
    Progress('job', total=4).advance(1)
    wait_for_text(page, 'ws4redis-progress[data-state=silent]', 'no news for')
    Progress('job', total=4).advance(2)
    wait_for_text(page, 'ws4redis-progress[data-state=running]', '50 %')


NONSENSE = [
    '',
    'null',
    '7',
    '[]',
    '{}',
    '<p>',
    '{"type": 7}',
    '{"type": "progress"}',
    '{"type": "progress", "done": -1, "total": 4, "state": "running"}',
    '{"type": "progress", "done": 1, "total": -1, "state": "running"}',
    '{"type": "progress", "done": "1", "total": 4, "state": "running"}',
    '{"type": "progress", "done": 1, "total": 4, "state": "constructor"}',
    '{"type": "unread", "unread": "many"}',
    '{"type": "notification", "text": {}}',
    b'\xff\xfe',
]


@pytest.mark.parametrize('message', NONSENSE)
def test_nonsense_is_shown_as_an_error_and_the_next_message_counts(
    open_page: Open, message: str | bytes
) -> None:
    page = open_page(
        '<ws4redis-progress facility="job"></ws4redis-progress>'
        '<ws4redis-badge facility="job" audience="broadcast"></ws4redis-badge>'
        '<ws4redis-toasts facility="job" audience="broadcast"></ws4redis-toasts>'
    )
    publish(message)
    page.locator('[data-error="Unreadable message"]').first.wait_for(state='attached')
    Progress('job', total=4).advance(1)
    wait_for_text(page, 'ws4redis-progress', '25 %')
    assert page.locator('ws4redis-progress[data-error]').count() == 0
    publish('{"type": "unread", "unread": 3}')
    wait_for_text(page, 'ws4redis-badge', '3')
    publish('{"type": "notification", "text": "paid"}')
    wait_for_text(page, '.ws4redis-toast', 'paid')


def test_what_is_missing_is_said(open_page: Open) -> None:
    page = open_page()
    page.evaluate(
        "document.querySelector('main').innerHTML = '<ws4redis-progress></ws4redis-progress>'"
    )
    page.locator('[data-error="ws4redis-progress needs the attribute facility"]').wait_for()
    page = open_page(path='untouched/')
    page.locator('[data-error="ws4redis.js is not loaded"]').wait_for()


def test_elements_follow_their_attributes_and_leave_nothing_behind(
    open_page: Open, redis_client: Any
) -> None:
    def subscribed(name: str) -> bool:
        return bool(redis_client.pubsub_numsub(f'broadcast:{name}')[0][1])

    page = open_page('<ws4redis-progress facility="a"></ws4redis-progress>' * 2)
    wait_until(lambda: subscribed('a'))
    page.evaluate(
        """() => document.querySelectorAll('ws4redis-progress').forEach(
            element => element.setAttribute('facility', 'b/c d'))"""
    )
    wait_until(lambda: subscribed('b/c d') and not subscribed('a'))
    page.evaluate("document.querySelector('main').replaceChildren()")
    wait_until(lambda: not subscribed('b/c d'))


def test_an_element_whose_facility_comes_later_subscribes_then(open_page: Open) -> None:
    page = open_page()
    page.evaluate(
        """() => document.querySelector('main').append(
            document.createElement('ws4redis-progress'))"""
    )
    page.locator('ws4redis-progress[data-error]').wait_for()
    page.evaluate("document.querySelector('ws4redis-progress').setAttribute('facility', 'job')")
    page.locator('ws4redis-progress[data-connection=connected]').wait_for()
    Progress('job', total=4).advance(1)
    wait_for_text(page, 'ws4redis-progress', '25 %')


# Notifications


def test_a_notification_is_a_toast_and_counts_on_all_pages(open_page: Open) -> None:
    pages = [open_page(path='notifications/?user=mary') for _ in range(2)]
    for page in pages:
        page.locator('ws4redis-toasts[data-connection=connected]').wait_for(state='attached')
    notify('john', 'for another', on_commit=False)
    notify('mary', 'Order <7> is paid.', url='/rows/', title='Orders', on_commit=False)
    notify('mary', 'evil', url='javascript:alert(1)', level='error', on_commit=False)
    for page in pages:
        wait_for_text(page, 'ws4redis-badge', '2')
        assert page.locator('.ws4redis-text').all_inner_texts() == ['Order <7> is paid.', 'evil']
        assert page.locator('.ws4redis-toast a').count() == 1
    pages[0].get_by_role('button', name='Close').first.click()
    assert pages[0].locator('.ws4redis-toast').count() == 1
    # A page that opens now shows the number, and no toast again.
    later = open_page(path='notifications/?user=mary')
    wait_for_text(later, 'ws4redis-badge', '2')
    assert later.locator('.ws4redis-toast').count() == 0
    mark_read('mary')
    for page in (*pages, later):
        page.locator('ws4redis-badge[data-state=none]').wait_for(state='hidden')


def test_toasts_go_by_themselves_and_are_never_many(open_page: Open) -> None:
    page = open_page(
        '<ws4redis-toasts facility="t" audience="broadcast" seconds="0.5"></ws4redis-toasts>'
    )
    for number in range(9):
        publish(json.dumps({'type': 'notification', 'text': str(number)}), 't')
    wait_for_text(page, '.ws4redis-toast', '8')
    assert page.locator('.ws4redis-toast').count() <= 5
    page.locator('.ws4redis-toast').first.wait_for(state='detached')


def test_toasts_take_any_level_and_any_time(open_page: Open) -> None:
    page = open_page(
        '<ws4redis-toasts facility="t" audience="broadcast" seconds="Infinity"></ws4redis-toasts>'
    )
    odd_level = {'toString': None, 'valueOf': None}
    publish(json.dumps({'type': 'notification', 'text': 'paid', 'level': odd_level}), 't')
    wait_for_text(page, '.ws4redis-toast .ws4redis-text', 'paid')
    page.evaluate('new Promise(done => setTimeout(done, 50))')
    assert page.locator('.ws4redis-toast').count() == 1


# The same messages with the libraries that others use


def test_htmx_swaps_what_publish_html_publishes(
    open_page: Open, node_modules: Path, redis_client: Any
) -> None:
    page = open_page(path='htmx/')
    wait_until(lambda: redis_client.pubsub_numsub('broadcast:orders')[0][1])
    publish('<ul id="orders" hx-swap-oob="beforeend"><li>first</li></ul>', 'orders')
    publish('<ul id="orders" hx-swap-oob="beforeend"><li>second</li></ul>', 'orders')
    page.locator('#orders li').nth(1).wait_for()
    assert page.locator('#orders li').all_inner_texts() == ['first', 'second']


def test_turbo_takes_fragments(open_page: Open, node_modules: Path, redis_client: Any) -> None:
    page = open_page(path='turbo/')
    wait_until(lambda: redis_client.pubsub_numsub('broadcast:orders')[0][1])
    fragments = Fragments('orders')
    fragments.append('orders', TEMPLATE, {'live_id': 'row-1', 'group': {'name': 'first'}})
    fragments.append('orders', TEMPLATE, {'live_id': 'row-2', 'group': {'name': 'second'}})
    fragments.remove('row-1')
    page.locator('#row-1').wait_for(state='detached')
    page.locator('#row-2').wait_for()
    assert page.locator('#orders li').all_inner_texts() == ['second']
