"""A WSGI application that depends on nothing, to test the servers themselves."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answer with the process's number and its interpreter's prefix."""
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [f'{os.getpid()} {sys.prefix}'.encode()]
