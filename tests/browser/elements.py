"""What the tests of the elements share: a facility with a history, and messages to show."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ws4redis.publisher import RedisPublisher

if TYPE_CHECKING:
    from playwright.sync_api import Page

FACILITIES = {'story/*': {'HISTORY_SIZE': 5}}
TEMPLATE = 'live/group.html'
Open = Callable[..., 'Page']


def publish(message: str | bytes, facility: str = 'job', expire: int = 0) -> None:
    RedisPublisher(facility=facility, broadcast=True).publish_message(message, expire=expire)


def wait_for_text(page: Page, selector: str, text: str) -> None:
    page.locator(selector).filter(has_text=text).wait_for()
