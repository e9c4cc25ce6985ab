"""Server processes: started, waited for, accounted by `/proc`, and ended by their pid."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

READY_SECONDS = 30.0
STOP_SECONDS = 3.0


class ServerFailed(Exception):
    """A server did not start, or ended by itself; the message holds the end of its log."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return int(sock.getsockname()[1])


class ServerProcess:
    """A server that listens on a port of 127.0.0.1, in a process with maybe children.

    Args:
        command: the command line.
        port: it is ready as soon as it accepts connections there.
        log: file that its output goes to.
        environment: variables added to those of this process.
        stdin: passed to `subprocess.Popen`.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        port: int | None,
        log: Path,
        environment: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        self.port = port
        self.log = log
        with log.open('wb') as output:
            self.popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Python and uWSGI import from the working directory first.
                cwd=log.parent,
                env={**os.environ, **(environment or {})},
                # Ctrl-C in the terminal goes to the benchmark alone, which ends its servers.
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Return when the server accepts connections.

        Raises:
            ServerFailed: it ended, or was not ready after `READY_SECONDS`.
        """
        assert self.port is not None
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end:
            self.check()
            with socket.socket() as sock:
                if sock.connect_ex(('127.0.0.1', self.port)) == 0:
                    return
            time.sleep(0.02)
        raise ServerFailed(f'not ready after {READY_SECONDS:g} seconds\n{self.log_tail()}')

    def check(self) -> None:
        """Raise `ServerFailed` if the process has ended."""
        if self.popen.poll() is not None:
            raise ServerFailed(f'ended with status {self.popen.returncode}\n{self.log_tail()}')

    def log_tail(self) -> str:
        """Return the end of what the process has written."""
        text = self.log.read_text(errors='replace') if self.log.exists() else ''
        return '\n'.join(text.splitlines()[-15:])

    def stop(self) -> None:
        """End the process and its descendants: asked first, then killed."""
        pids = process_tree(self.popen.pid)
        self.popen.terminate()
        try:
            self.popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        for pid in pids:
            if process_group(pid) == self.popen.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def kill(self) -> None:
        """Kill the process and its descendants, without a warning."""
        os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def cpu_seconds(self) -> float:
        """Return the CPU time that the process and its descendants have spent so far."""
        return sum(cpu_seconds(pid) for pid in process_tree(self.popen.pid))

    def private_bytes(self) -> int:
        """Return the memory that belongs to the process and its descendants alone."""
        return sum(private_bytes(pid) for pid in process_tree(self.popen.pid))


def process_tree(root: int) -> list[int]:
    """Return the pids of a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    tree = [root]
    for pid in tree:
        tree += children.get(pid, [])
    return tree


def process_group(pid: int) -> int | None:
    """Return the process group of a process, None if there is no such process."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that all threads of a process have spent so far.

    `schedstat` counts nanoseconds, `stat` only ticks of 10 ms: too coarse for short measurements.
    """
    total = 0
    for task in Path(f'/proc/{pid}/task').glob('*/schedstat'):
        with contextlib.suppress(OSError):
            total += int(task.read_text().split()[0])
    return total / 1e9


def private_bytes(pid: int) -> int:
    """Return the memory that a process does not share with others, in bytes."""
    total = 0
    with contextlib.suppress(OSError):
        for line in Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines():
            if line.startswith(('Private_Clean:', 'Private_Dirty:')):
                total += int(line.split()[1]) * 1024
    return total


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path('/proc').iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / 'stat').read_text()
                # The command's name, in parentheses, may itself hold spaces and parentheses.
                yield int(entry.name), int(stat.rpartition(')')[2].split()[1])
