"""One of the three chats, as its user handles it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.browser.example_server import PASSWORD

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page


# Makes the browser of a user, or of a guest if there is no name; options are Playwright's.
NewContext = Callable[..., 'BrowserContext']


#: Lets the scripts of a page offer no subprotocol, so that they do not speak the client protocol.
PLAIN_WEBSOCKETS = (
    'window.WebSocket = class extends WebSocket { constructor(url) { super(url); } };'
)


def log_in(context: BrowserContext, url: str, username: str, *, path: str = '/login/') -> None:
    """Log a user in by the form at this path; the browser context keeps the session."""
    page = context.new_page()
    page.goto(url + path)
    page.fill('input[name=username]', username)
    page.fill('input[name=password]', PASSWORD)
    page.click('main [type=submit], #content [type=submit]')
    page.wait_for_url(lambda current: '/login/' not in current)
    page.close()


@dataclass
class ChatPage:
    """A page with a chat; its text is what a reader sees."""

    page: Page
    url: str

    def open(self) -> ChatPage:
        """Load the page and wait until its websocket is open."""
        self.page.goto(self.url)
        self.wait_for_state('connected')
        return self

    def wait_for_state(self, state: str, *, timeout_ms: float | None = None) -> None:
        """Wait until the page says that its websocket is connecting, connected or closed."""
        self.page.wait_for_selector(f'#connection[data-state={state}]', timeout=timeout_ms)

    def wait_until_not_connected(self) -> None:
        """Wait until the page says that its websocket is anything but connected."""
        self.page.wait_for_selector('#connection:not([data-state=connected])')

    def write(self, text: str) -> None:
        """Type a message and press Enter."""
        self.page.fill('#text_message', text)
        self.page.press('#text_message', 'Enter')

    def choose(self, recipient: str) -> None:
        """Choose the user or group to write to."""
        self.page.locator('.pill', has_text=recipient).click()

    def wait_for_text(self, text: str) -> None:
        """Wait until a message with exactly this text is shown."""
        self.page.locator('#message-list .text').get_by_text(text, exact=True).wait_for()

    def wait_for_error(self, text: str) -> None:
        self.page.locator('#error', has_text=text).wait_for()

    def texts(self) -> list[str]:
        return self.page.locator('#message-list .text').all_text_contents()

    def own_texts(self) -> list[str]:
        return self.page.locator('#message-list .own .text').all_text_contents()

    def senders(self) -> list[str]:
        return self.page.locator('#message-list .sender').all_text_contents()
