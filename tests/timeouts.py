"""Scale all time-outs of the tests by one factor, for machines that are slow or busy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

TIMEOUT_FACTOR = float(os.environ.get('WS4REDIS_TEST_TIMEOUT_FACTOR', '1'))


def scaled(seconds: float) -> float:
    """Return ``seconds`` as this machine needs them."""
    return seconds * TIMEOUT_FACTOR


#: How long something may take that is expected to happen at once.
SOON_SECONDS = scaled(10)
#: How long a server may take to start or to stop.
SERVER_SECONDS = scaled(30)


def wait_until(
    condition: Callable[[], object],
    *,
    timeout: float = SOON_SECONDS,
    message: str = 'condition did not become true',
) -> None:
    """Wait until ``condition()`` is true.

    For states of another process that announce themselves by no event, such as the number of
    subscribers in Redis; where there is an event, wait for that. ``timeout`` is in seconds,
    already scaled. Raises AssertionError.
    """
    deadline = time.monotonic() + timeout
    pause = 0.001
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f'{message} within {timeout:g} s')
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
