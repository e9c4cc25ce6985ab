"""Fail code that runs for more steps than its input warrants, endless loops above all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class TooManyStepsError(BaseException):
    """Code under a limit has run more lines; no ``except Exception`` in it may hide that."""


@contextmanager
def step_limit(lines: int) -> Iterator[None]:
    """Let at most ``lines`` lines of ws4redis run inside; raise ``TooManyStepsError`` beyond."""
    remaining = lines

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal remaining
        if not frame.f_globals.get('__name__', '').startswith('ws4redis.'):
            return None
        if event == 'line':
            remaining -= 1
            if remaining < 0:
                raise TooManyStepsError(f'more than {lines} lines')
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)
