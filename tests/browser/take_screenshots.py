"""Take the screenshots of the documentation anew: `python tests/browser/take_screenshots.py`.

They show the demo in Chromium, which also makes WebP files of them, a third as large as PNG.
"""

from __future__ import annotations

import base64
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

ROOT = Path(__file__).resolve().parent.parent.parent
if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))

from tests.browser.chat_page import log_in  # noqa: E402
from tests.browser.chromium import chromium  # noqa: E402
from tests.demo_server import Demo  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES = ROOT / 'docs' / 'images'
# The front page of the project on PyPI shows PNG only.
AS_PNG = {'two-browsers'}
QUALITY = 0.9

# A time at which all is said: pictures are to change only when pages do.
SAID_AT = datetime(2026, 3, 2, 9, 14, tzinfo=UTC)
CONVERSATION = (
    ('mary', 'Is the new release out?'),
    ('john', 'Since ten minutes ago.'),
    ('john', 'No restart needed, the websockets came back by themselves.'),
    ('mary', 'I saw it: not one message was missing.'),
)

Scheme = Literal['light', 'dark']

AS_WEBP = """async ([source, quality]) => {
    const image = new Image();
    image.src = source;
    await image.decode();
    const canvas = document.createElement('canvas');
    canvas.width = image.width;
    canvas.height = image.height;
    canvas.getContext('2d').drawImage(image, 0, 0);
    return canvas.toDataURL('image/webp', quality).split(',')[1];
}"""


class Studio:
    """A browser, and the demo."""

    def __init__(self, browser: Browser, demo: Demo) -> None:
        self.browser = browser
        self.demo = demo

    @contextmanager
    def page(
        self,
        path: str,
        name: str | None = None,
        *,
        scheme: Scheme = 'light',
        size: tuple[int, int] = (1000, 680),
        is_timeless: bool = False,
    ) -> Iterator[Page]:
        """Open a page as a user, or as a guest if there is no name."""
        with self.browser.new_context(
            color_scheme=scheme,
            viewport={'width': size[0], 'height': size[1]},
            locale='en-GB',
            timezone_id='UTC',
        ) as context:
            if name is not None:
                log_in(context, self.demo.url, name)
            page = context.new_page()
            if is_timeless:
                page.clock.set_fixed_time(SAID_AT)
            page.goto(self.demo.url + path)
            yield page

    def side_by_side(self, *pictures: bytes) -> bytes:
        """Return one picture of several, on a plain ground."""
        images = ''.join(f'<img src="{as_url(picture)}">' for picture in pictures)
        with self.browser.new_context() as context:
            page = context.new_page()
            page.set_content(f"""<style>
                body {{ margin: 0; }}
                div {{ display: inline-flex; gap: 24px; padding: 24px; background: #5b7f78; }}
                img {{ border-radius: 12px; box-shadow: 0 8px 32px #0006; }}
            </style><div>{images}</div>""")
            return page.locator('div').screenshot()

    def webp(self, picture: bytes) -> bytes:
        with self.browser.new_context() as context:
            return base64.b64decode(
                context.new_page().evaluate(AS_WEBP, [as_url(picture), QUALITY])
            )

    def two_browsers(self) -> bytes:
        """Let two users chat, and show what both see."""
        half = (640, 660)
        with (
            self.page('/room/', 'john', size=half, is_timeless=True) as john,
            self.page('/room/', 'mary', scheme='dark', size=half, is_timeless=True) as mary,
            self.page('/room/kitchen/', is_timeless=True) as guest,
        ):
            pages = {'john': john, 'mary': mary}
            guest.wait_for_selector('#members li')
            say(guest, 'Coffee is ready.')
            for sender, text in CONVERSATION:
                say(pages[sender], text)
                for page in pages.values():
                    page.locator('.message:not(.unconfirmed)', has_text=text).wait_for()
            john.locator('#text_message').press_sequentially('Good')
            mary.locator('#typing', has_text='john').wait_for()
            for page in pages.values():
                page.locator('#members li').nth(1).wait_for()
                page.locator('.unread:not([hidden])').wait_for()
            return self.side_by_side(john.screenshot(), mary.screenshot())


def as_url(picture: bytes) -> str:
    return f'data:image/png;base64,{base64.b64encode(picture).decode()}'


def say(page: Page, text: str) -> None:
    page.fill('#text_message', text)
    page.press('#text_message', 'Enter')


def take_all(studio: Studio) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of all pictures."""
    yield 'two-browsers', studio.two_browsers()
    with studio.page('/room/', 'mary', scheme='dark', size=(390, 700)) as page:
        page.wait_for_selector('#members li')
        yield 'room-phone', page.screenshot()
    with studio.page('/orders/', size=(1000, 560)) as page:
        page.wait_for_selector('ws4redis-html[data-connection=connected]')
        page.get_by_role('button', name='One Teapot, cast iron more').click()
        page.locator('#orders b').get_by_text('3', exact=True).wait_for()
        page.mouse.move(0, 0)
        page.wait_for_timeout(1500)
        yield 'orders', page.screenshot()
    with studio.page('/tasks/', 'john', size=(1000, 520)) as page:
        page.get_by_role('button', name='damaged').click()
        page.wait_for_selector('[data-state=failed]')
        page.get_by_role('button', name='Checksum').click()
        page.get_by_role('button', name='Import orders').click()
        page.locator('[data-state=running]', has_text='Kettle').wait_for()
        yield 'tasks', page.screenshot()
    with studio.page('/notifications/', 'mary', size=(1000, 520)) as page:
        page.wait_for_selector('ws4redis-toasts[data-connection=connected]', state='attached')
        page.get_by_role('button', name='Notify').click()
        page.wait_for_selector('.ws4redis-toast')
        page.wait_for_selector('#inbox li')
        yield 'notifications', page.screenshot()
    with studio.page('/break/', size=(1000, 640)) as page:
        page.wait_for_selector('.square.live')
        page.wait_for_timeout(4000)
        for way in ('cut', 'kill', 'restart'):
            recovered = page.locator('.square.recovered').count()
            page.click(f'#{way}')
            page.locator('.square.recovered').nth(recovered).wait_for()
            page.wait_for_timeout(4000)
        page.mouse.move(0, 0)
        yield 'break', page.screenshot()
    with studio.page('/', size=(1000, 900)) as page:
        page.wait_for_function("document.getElementById('websockets').textContent > 0")
        yield 'index', page.screenshot()


def main(directory: Path = IMAGES) -> list[Path]:
    """Take all screenshots and return their paths."""
    executable = shutil.which('chromium') or shutil.which('google-chrome')
    if executable is None:
        raise SystemExit('chromium is not installed')
    written = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        Demo(Path(scratch), options=['--own-redis']) as demo,
        chromium(executable) as browser,
    ):
        studio = Studio(browser, demo)
        for name, picture in take_all(studio):
            is_png = name in AS_PNG
            path = directory / f'{name}.{"png" if is_png else "webp"}'
            path.write_bytes(picture if is_png else studio.webp(picture))
            written.append(path)
    return written


if __name__ == '__main__':
    for path in main():
        print(f'{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes')
