"""Start Debian's Chromium under Playwright."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FLAGS = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
]


@contextmanager
def chromium(executable: str) -> Iterator[Browser]:
    """Run the Chromium of this path, without a window, until the context ends."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable,
            args=FLAGS,
            # Playwright switches the back/forward cache off, which people's browsers have.
            ignore_default_args=['--disable-back-forward-cache'],
        )
        try:
            yield browser
        finally:
            browser.close()
