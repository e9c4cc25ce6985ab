"""Take the screenshots of the documentation anew: `python tests/browser/take_screenshots.py`.

They show the example under uWSGI in Chromium. What is said, and when, is written here, so that the
pictures change only when the pages do. With Pillow installed they are stored with 256 colours,
which makes them a third as large.
"""

from __future__ import annotations

import base64
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

ROOT = Path(__file__).resolve().parent.parent.parent
if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))

from tests.browser.chat_page import ChatPage, log_in  # noqa: E402
from tests.browser.chromium import chromium  # noqa: E402
from tests.browser.example_server import FACILITY, ExampleServer  # noqa: E402
from tests.programs import RedisServer  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

IMAGES = ROOT / 'docs' / 'images'

START = datetime(2026, 3, 2, 9, 14, tzinfo=UTC)
# What is published as plain text bears the time of its arrival: that of the fourth message.
ARRIVAL = START + timedelta(minutes=3)

Scheme = Literal['light', 'dark']
# Sender, recipient, text.
Conversation = Sequence[tuple[str, str, str]]

EVERYONE: Conversation = (
    ('Ada', '', 'Good morning! Is the new release out?'),
    ('john', '', 'Since ten minutes ago.'),
    ('john', '', 'No restart needed, the websockets came back by themselves.'),
    ('redis', '', 'Deployed 1.0.0 to all 12 servers'),
    ('mary', '', 'That was quick. Thanks!'),
)
ONE_TO_ONE: Conversation = (
    ('john', 'mary', 'Do you have a minute?'),
    ('mary', 'john', 'For you, always.'),
    ('john', 'mary', 'The login page looks odd on my phone.'),
    ('mary', 'john', 'I see it too. One moment …'),
    ('mary', 'john', 'Fixed. Reload, please.'),
)
GROUP: Conversation = (
    ('mary', 'chatters', 'Lunch at twelve?'),
    ('john', 'chatters', 'The Thai place again?'),
    ('mary', 'chatters', 'I will book a table. Who else is coming?'),
)


class Studio:
    """A browser, a server, and what is said there."""

    def __init__(self, browser: Browser, redis_server: RedisServer, example: ExampleServer) -> None:
        self.browser = browser
        self.redis = redis_server.client()
        self.example = example

    @contextmanager
    def visitor(
        self, name: str | None, scheme: Scheme, size: tuple[int, int], *, scale: float = 1
    ) -> Iterator[BrowserContext]:
        """Open a browser context for a user, or for a guest if there is no name."""
        with self.browser.new_context(
            color_scheme=scheme,
            viewport={'width': size[0], 'height': size[1]},
            device_scale_factor=scale,
            locale='en-GB',
            timezone_id='UTC',
        ) as context:
            if name is not None:
                log_in(context, self.example.url, name)
            yield context

    def say(self, channels: Sequence[str], conversation: Conversation) -> None:
        """Publish a conversation, with the times at which it was held."""
        for number, (sender, recipient, text) in enumerate(conversation):
            sent_at = START + number * timedelta(minutes=1)
            message = {
                'id': f'{channels[0]} {number}',
                'sender': sender,
                'recipient': recipient,
                'text': text,
                'sent_at': int(sent_at.timestamp() * 1000),
            }
            payload = text if sender == 'redis' else json.dumps(message)
            for channel in channels:
                self.redis.publish(f'{channel}:{FACILITY}', payload)

    def picture(self, context: BrowserContext, path: str, said: Conversation = ()) -> bytes:
        """Return a picture of a page, taken when it shows all that was said."""
        page = context.new_page()
        page.clock.set_fixed_time(ARRIVAL)
        chat = ChatPage(page, self.example.url + path)
        if said:
            chat.open()
            channels = {
                '/chat/': ['broadcast'],
                '/userchat/': ['user:john', 'user:mary'],
                '/groupchat/': ['group:chatters'],
            }[path]
            self.say(channels, said)
            chat.wait_for_text(said[-1][2])
        else:
            page.goto(chat.url)
        return page.screenshot()

    def lost_connection(self, context: BrowserContext) -> bytes:
        """Return a picture of a chat whose server is away."""
        page = context.new_page()
        page.clock.set_fixed_time(ARRIVAL)
        # The longest delay before the next attempt leaves time for the picture.
        page.add_init_script('Math.random = () => 0.999;')
        chat = ChatPage(page, f'{self.example.url}/chat/').open()
        self.say(['broadcast'], EVERYONE)
        chat.wait_for_text(EVERYONE[-1][2])
        self.example.kill()
        chat.wait_for_state('closed')
        picture = page.screenshot()
        self.example.start()
        return picture

    def side_by_side(self, *pictures: bytes, scale: float = 1) -> bytes:
        """Return one picture of several, on a plain ground."""
        images = ''.join(
            f'<img src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
            for picture in pictures
        )
        with self.browser.new_context(device_scale_factor=scale) as context:
            page = context.new_page()
            page.set_content(f"""<style>
                body {{ margin: 0; }}
                div {{ display: inline-flex; gap: 24px; padding: 24px; background: #5b7f78; }}
                img {{ border-radius: 12px; zoom: {1 / scale}; box-shadow: 0 8px 32px #0006; }}
            </style><div>{images}</div>""")
            return page.locator('div').screenshot()


def take_all(studio: Studio) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of all pictures."""
    desktop, phone = (1000, 680), (390, 760)
    # A browser each, in which a chat is open at the same time.
    with (
        studio.visitor('john', 'light', (620, 720)) as john,
        studio.visitor('mary', 'dark', (620, 720)) as mary,
    ):
        yield (
            'two-browsers',
            studio.side_by_side(
                studio.picture(john, '/userchat/', ONE_TO_ONE),
                studio.picture(mary, '/userchat/', ONE_TO_ONE),
            ),
        )
    schemes: tuple[Scheme, Scheme] = ('light', 'dark')
    for scheme in schemes:
        with studio.visitor('mary', scheme, desktop) as mary:
            yield f'chat-{scheme}', studio.picture(mary, '/chat/', EVERYONE)
        with studio.visitor('john', scheme, phone) as john:
            yield f'groupchat-phone-{scheme}', studio.picture(john, '/groupchat/', GROUP)
    with studio.visitor(None, 'light', desktop) as guest:
        yield 'index', studio.picture(guest, '/')
        yield 'login', studio.picture(guest, '/login/')
    with studio.visitor('mary', 'light', desktop) as mary:
        yield 'reconnecting', studio.lost_connection(mary)


def store(name: str, picture: bytes, directory: Path) -> Path:
    """Write a picture, as small as it gets."""
    path = directory / f'{name}.png'
    try:
        from PIL import Image
    except ImportError:
        path.write_bytes(picture)
        return path
    with Image.open(BytesIO(picture)) as image:
        reduced = image.convert('RGB').quantize(256, kmeans=5, dither=Image.Dither.NONE)
        reduced.save(path, optimize=True)
    return path


def main(directory: Path = IMAGES) -> list[Path]:
    """Take all screenshots and return their paths."""
    executable = shutil.which('chromium') or shutil.which('google-chrome')
    if executable is None:
        raise SystemExit('chromium is not installed')
    directory.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        RedisServer() as redis_server,
        chromium(executable) as browser,
    ):
        example = ExampleServer(redis_server, Path(scratch))
        example.make_database()
        with example:
            studio = Studio(browser, redis_server, example)
            try:
                return [store(name, picture, directory) for name, picture in take_all(studio)]
            finally:
                studio.redis.close()


if __name__ == '__main__':
    for written in main():
        print(f'{written.relative_to(ROOT)}: {written.stat().st_size:,} bytes')
