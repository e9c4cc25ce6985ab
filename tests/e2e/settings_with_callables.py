"""The tests' settings with callbacks as callables, not as dotted paths."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.settings import *  # noqa: F403

ROOT_URLCONF = 'tests.e2e.urls'


def WS4REDIS_ALLOWED_CHANNELS(request: Any, channels: list[str]) -> Iterable[str]:  # noqa: N802
    from tests.e2e.callbacks import allowed_channels

    return allowed_channels(request, channels)


def WS4REDIS_PROCESS_REQUEST(request: Any) -> None:  # noqa: N802
    from tests.e2e.callbacks import process_request

    process_request(request)
