"""A test case that a fixture of pytest sets up and tears down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ws4redis.test.cases import WebSocketTestCase


class _OfFixture(WebSocketTestCase):
    """The test is another function."""

    def test(self) -> None:
        raise NotImplementedError


@contextmanager
def running_test_case() -> Iterator[WebSocketTestCase]:
    """Set a test case up, as Django's test runner does, and tear it down at the end."""
    with ExitStack() as stack:
        stack.callback(_OfFixture.doClassCleanups)
        _OfFixture.setUpClass()
        stack.callback(_OfFixture.tearDownClass)
        case = _OfFixture('test')
        case._pre_setup()  # type: ignore[attr-defined]
        stack.callback(case._post_teardown)
        yield case
