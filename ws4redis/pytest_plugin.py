"""Fixtures that pytest finds by itself: ``ws4redis_outbox`` and ``websocket_client``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

# Nothing of Django's at the top: pytest loads this before the settings are known.
if TYPE_CHECKING:
    from ws4redis.test import MemoryBroker, WebSocketClient


@pytest.fixture
def ws4redis_outbox() -> Iterator[MemoryBroker]:
    """Keep what the test publishes in memory: ``outbox``, ``published(facility, …)``, ``clear()``.

    Histories, kept messages and notifications are read from memory as well. No Redis is needed.
    """
    from ws4redis.test import publish_in_memory

    with publish_in_memory() as memory:
        yield memory


@pytest.fixture
def websocket_client(
    request: pytest.FixtureRequest, transactional_db: None
) -> Iterator[Callable[..., WebSocketClient]]:
    """Open websockets to Django and the websocket loop, which run in threads of the test.

    ``websocket_client(path, user=…)`` takes what ``WebSocketTestCase.websocket()`` takes, and is
    used in ``with``. It needs pytest-django, and the Redis of the settings; the test has a prefix
    of its own there, and its tables are emptied afterwards.
    """
    if 'ws4redis_outbox' in request.fixturenames:
        raise pytest.UsageError(
            'Messages of ws4redis_outbox stay in memory and reach no websocket: leave it out of a '
            'test with websocket_client.'
        )
    from ws4redis.test.fixtures import running_test_case

    with running_test_case() as case:
        yield case.websocket
