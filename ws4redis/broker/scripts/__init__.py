"""Redis's scripts, each in a file of its own, and how to call them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Final

from ws4redis.broker.publication import Command


class Script:
    """One script: called by its digest, and by its text where Redis does not know it (NOSCRIPT)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = files(__name__).joinpath(f'{name}.lua').read_bytes()
        # Redis names scripts by it; it guards nothing.
        self.digest: bytes = sha1(self.text, usedforsecurity=False).hexdigest().encode()

    def call(self, keys: Sequence[bytes], arguments: Sequence[bytes | str | int]) -> Command:
        """Return the command that runs the script (``EVALSHA``)."""
        return (b'EVALSHA', self.digest, len(keys), *keys, *arguments)

    def with_text(self, command: Command) -> Command:
        """Return the same command with the script's text (``EVAL``), after ``NOSCRIPT``."""
        return (b'EVAL', self.text, *command[2:])


PUBLISH: Final = Script('publish')
READ: Final = Script('read')
LEASE: Final = Script('lease')
PRESENCE_JOIN: Final = Script('presence_join')
PRESENCE_LEAVE: Final = Script('presence_leave')
PRESENCE_READ: Final = Script('presence_read')

_BY_DIGEST: Final = {
    script.digest: script
    for script in (PUBLISH, READ, LEASE, PRESENCE_JOIN, PRESENCE_LEAVE, PRESENCE_READ)
}


def script_of(command: Command) -> Script:
    """Return the script that a command calls by its digest."""
    digest = command[1]
    assert isinstance(digest, bytes)
    return _BY_DIGEST[digest]
