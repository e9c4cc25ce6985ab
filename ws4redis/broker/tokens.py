"""Positions on several channels as one opaque text, for pages and URLs.

The text holds no name: a page must not learn a session key, and a digest tells channels apart.
It is not signed: all that a forged one gets is a gap, or messages that its sender may read.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Final
from urllib.parse import parse_qsl

from ws4redis.broker.history import Position

_SEPARATOR: Final = '~'
# Longer ones than any page needs are not looked at: they are what a client sends.
MAX_TOKEN_LENGTH: Final = 16384
# What nobody has seen: whoever names it gets a gap.
NONSENSE: Final = Position('?', 0)


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


class Since:
    """What a websocket's URL says its client has seen: ``since=<positions>``.

    Nonsense is a gap on every channel; on a channel that it does not name, it has seen nothing.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._token: PositionsToken | None = PositionsToken(text)
        except ValueError:
            self._token = None

    def position_on(self, channel: str) -> Position | None:
        """Return the position on a channel, None where nothing was seen of it."""
        return NONSENSE if self._token is None else self._token.position_on(channel)


def since_of(query_string: str) -> Since | None:
    """Return what a query string names as seen, None where it names nothing."""
    if 'since' not in query_string.lower() and '%' not in query_string:
        # Most often, and to parse it costs as much as to write the answer.
        return None
    for name, value in parse_qsl(query_string, keep_blank_values=True, errors='replace'):
        if name.strip().lower() == 'since':
            return Since(value)
    return None
