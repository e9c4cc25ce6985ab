"""The wake-up pipe: lets any thread interrupt the loop's poll.

A byte in the pipe makes its reading end ready, so the poll returns. One byte is enough for any
number of wake-ups: ``_signalled`` spares the system call while an earlier byte is still unread. It
is cleared after the pipe has been read, and the loop looks at its queue after that: work that was
queued in between is seen, though its wake-up wrote no byte. Cleared earlier, it could stay set over
an empty pipe, and no wake-up would get through any more.
"""

from __future__ import annotations

import contextlib
import os


class WakeUp:
    """Interrupt a poll from any thread."""

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        self._signalled = False

    def fileno(self) -> int:
        return self._read_fd

    def wake(self) -> None:
        """Make the reading end ready. Safe in any thread and in signal handlers."""
        if not self._signalled:
            self._signalled = True
            # Full: it is ready already. Closed: the loop has ended, and wants no more work.
            with contextlib.suppress(OSError):
                os.write(self._write_fd, b'\0')

    def ready(self, events: int) -> None:
        """Empty the pipe. Called in the loop."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._read_fd, 4096)
        self._signalled = False

    def close(self) -> None:
        # The numbers may soon be those of other files, which a late wake-up must not write to.
        fds = self._read_fd, self._write_fd
        self._read_fd = self._write_fd = -1
        for fd in fds:
            os.close(fd)
