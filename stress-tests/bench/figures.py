"""Figures that a script of its own measures: told by it, and read by the benchmark that ran it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .processes import ServerProcess

FILE_VARIABLE = 'WS4REDIS_BENCH_FIGURES'
SCRIPT_SECONDS = 600.0
CLEAN_UP_SECONDS = 20.0
STRESS_TESTS = Path(__file__).resolve().parent.parent


class ScriptFailed(Exception):
    """A script did not tell all figures that were wanted; the message holds what it printed."""


def tell(figures: Mapping[str, float]) -> None:
    """Tell the benchmark figures by their titles; without one, nobody."""
    if name := os.environ.get(FILE_VARIABLE):
        with Path(name).open('a') as file:
            file.write(json.dumps(figures) + '\n')


def figures_of(
    script: str, arguments: Sequence[str], wanted: set[str], directory: Path
) -> dict[str, float]:
    """Run a script of `stress-tests/`, and return what it tells.

    Args:
        script: name of the file.
        arguments: of its command line.
        wanted: titles of the figures that it has to tell.
        directory: for its log.

    Raises:
        ScriptFailed: one of them was missing.
    """
    file = directory / 'figures.json'
    file.write_text('')
    process = ServerProcess(
        [sys.executable, STRESS_TESTS / script, *arguments],
        port=None,
        log=directory / f'{script}.log',
        environment={FILE_VARIABLE: str(file)},
    )
    status: int | None = None
    try:
        status = process.popen.wait(SCRIPT_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if status is None:
            # So it ends what it started.
            process.popen.send_signal(signal.SIGINT)
            try:
                process.popen.wait(CLEAN_UP_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            process.stop()
    print(process.log.read_text(errors='replace').rstrip(), flush=True)
    figures: dict[str, float] = {}
    for line in file.read_text().splitlines():
        figures |= json.loads(line)
    if missing := wanted - figures.keys():
        ending = 'did not end in time' if status is None else f'ended with status {status}'
        raise ScriptFailed(f'{script} {ending}, without {missing}\n{process.log_tail()}')
    return figures
