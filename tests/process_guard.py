"""Kill the servers of a test run when the run itself dies.

A run that ends normally stops its servers itself. This small process is for the run that is killed:
it reads ``+<group>`` and ``-<group>`` lines from its standard input, and when that ends it kills
the process groups that are left. It imports nothing of the project, since it is started as a file.
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    # Ctrl-C reaches the whole foreground group; the run must be able to stop its servers first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        sign, group = line[0], int(line[1:])
        if sign == '+':
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            pass


if __name__ == '__main__':
    main()
