"""Tutorials, followed to the letter."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from tests.distributions import run
from tests.docs.code_blocks import CodeBlock, commands
from tests.free_ports import free_port
from tests.programs import RedisServer, RunserverProcess


def follow(tutorial: Iterable[CodeBlock], python: Path, directory: Path) -> Path:
    """Make the project of a tutorial in a directory; return that."""
    for block in tutorial:
        if block.caption == 'commands':
            for command in commands(block):
                _follow_command(command, python, directory)
        elif block.caption.startswith('append to '):
            with (directory / block.caption.removeprefix('append to ')).open('a') as file:
                file.write(block.text)
        elif block.caption.startswith('mysite/'):
            path = directory / block.caption
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text)
    return directory


def _follow_command(command: str, python: Path, directory: Path) -> None:
    """Run one command of a tutorial; the environment and the server are the test's own."""
    words = shlex.split(command)
    if words[0] == 'django-admin':
        run(python.parent / 'django-admin', *words[1:], cwd=directory)
    elif words[:2] == ['python', 'manage.py'] and words[2] != 'runserver':
        run(python, *words[1:], cwd=directory)


def site_of(project: Path, python: Path, redis_server: RedisServer) -> RunserverProcess:
    """Return the server of a project that was made by a tutorial."""
    # The reader has Redis on its usual port; the test's listens elsewhere.
    with (project / 'mysite' / 'settings.py').open('a') as file:
        file.write(f'WS4REDIS_CONNECTION = {redis_server.connection!r}\n')
    return RunserverProcess(
        settings='mysite.settings',
        manage=project / 'manage.py',
        python=python,
        # What was installed is to be served, not the checkout.
        env={'PYTHONPATH': ''},
        cwd=project,
        port=free_port(),
    )


def effort_of(tutorial: Iterable[CodeBlock]) -> tuple[int, int]:
    """Return how many commands and how many lines of code a reader types."""
    blocks = list(tutorial)
    lines = [
        line
        for block in blocks
        if block.language != 'console'
        for line in block.text.splitlines()
        if line.strip()
    ]
    return sum(len(commands(block)) for block in blocks), len(lines)
