"""Positions on several channels as one opaque text, for pages and URLs.

The text holds no name: a page must not learn a session key, and a digest tells channels apart.
It is not signed: all that a forged one gets is a gap, or messages that its sender may read.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

from ws4redis.broker.history import Position

_SEPARATOR: Final = '~'
# Longer ones than any page needs are not looked at: they are what a client sends.
MAX_TOKEN_LENGTH: Final = 16384


def _digest(channel: str) -> str:
    return blake2b(channel.encode(errors='surrogateescape'), digest_size=6).hexdigest()


def encode_positions(positions: Mapping[str, Position]) -> str:
    """Return a text, safe in URLs, that names a position on each of some channels."""
    return _SEPARATOR.join(
        f'{_digest(channel)}.{position}' for channel, position in positions.items()
    )


class PositionsToken:
    """The positions that a text names; raise ``ValueError`` when it is nonsense."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_TOKEN_LENGTH:
            raise ValueError('the text is too long for positions')
        self._by_digest: dict[str, Position] = {}
        for item in text.split(_SEPARATOR) if text else ():
            digest, _, position = item.partition('.')
            self._by_digest[digest] = Position.parse(position)

    def position_on(self, channel: str) -> Position | None:
        """Return the position on a channel, None where the text names none."""
        return self._by_digest.get(_digest(channel))
