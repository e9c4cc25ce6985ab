"""What the tests give the pool of threads: tasks that wait, and a load that they set."""

from __future__ import annotations

import threading

from tests.timeouts import SOON_SECONDS


class SetLoad:
    """A load that is as full as a test says."""

    def __init__(self, *, is_full: bool = False) -> None:
        self.full = is_full

    def is_full(self) -> bool:
        return self.full


class Gate:
    """Tasks that wait until they may end."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Event()

    def task(self) -> None:
        self.begun.release()
        assert self.may_end.wait(SOON_SECONDS)
