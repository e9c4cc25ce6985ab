"""A child of the supervisor that does what a test tells it: ``scripted_child.py SOCKET OPTIONS``.

Each line that the test writes is a command: ``serve`` or ``end STATUS``. Signals end the child, and
are reported before; with ``ignore`` they are only reported.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys


def main() -> None:
    """Report to the test, and obey."""
    options = json.loads(sys.argv[2])
    control = socket.socket(socket.AF_UNIX)
    ignores = False

    def report(number: int, frame: object) -> None:
        control.sendall(signal.Signals(number).name.encode() + b'\n')
        if not ignores:
            os._exit(0)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, report)
    control.connect(sys.argv[1])
    control.sendall(json.dumps({'pid': os.getpid(), 'role': options['role']}).encode() + b'\n')
    for line in control.makefile():
        command, _, argument = line.strip().partition(' ')
        if command == 'serve':
            os.write(options['ready'], b'\0')
            os.close(options['ready'])
        elif command == 'ignore':
            ignores = True
            control.sendall(b'ignoring\n')
        elif command == 'end':
            os._exit(int(argument))


main()
