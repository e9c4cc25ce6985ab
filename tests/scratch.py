"""Give servers directories of their own, which vanish with the test run."""

from __future__ import annotations

import atexit
import itertools
import tempfile
from pathlib import Path

_numbers = itertools.count(1)
_root: tempfile.TemporaryDirectory[str] | None = None


def scratch_directory() -> Path:
    """Make a new directory, with a short path: that of a Unix socket has 107 bytes at most."""
    global _root
    if _root is None:
        _root = tempfile.TemporaryDirectory(prefix='ws4redis-', ignore_cleanup_errors=True)
        atexit.register(_root.cleanup)
    directory = Path(_root.name) / str(next(_numbers))
    directory.mkdir()
    return directory
