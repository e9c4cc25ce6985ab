"""Negotiation of permessage-deflate (RFC 6455, section 9; RFC 7692, sections 5 and 7.1).

We always answer with both ``no_context_takeover`` parameters: then a message to many websockets is
compressed once for all of them, and no websocket keeps a window in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from ws4redis.exceptions import HandshakeError
from ws4redis.protocol.wire import DeflateWire, deflate_wire

PERMESSAGE_DEFLATE: Final = 'permessage-deflate'

#: zlib cannot deflate with a window of 8 bits (without its own header), the RFC's smallest.
MIN_WINDOW_BITS: Final = 9
MAX_WINDOW_BITS: Final = 15

_NAME_CHARACTERS = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_NAME = re.compile(rf'[ \t]*({_NAME_CHARACTERS})[ \t]*')
_VALUE = re.compile(rf'=[ \t]*(?:({_NAME_CHARACTERS})|"((?:[^"\\]|\\.)*)")[ \t]*')
TOKEN = re.compile(_NAME_CHARACTERS)
# `$` would match before a line feed at the end, too, and so without moving on.
_EMPTY_ELEMENT = re.compile(r'[ \t]*(?:,|\Z)')
_WINDOW_BITS = re.compile(r'[89]|1[0-5]')

#: One parameter: its name, and its value or None.
Parameter = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Compression:
    """Say whether and how messages are compressed.

    ``minimum_size`` is the number of bytes from which a message of ours is compressed, ``level``
    zlib's, 1 (fast) to 9 (small), ``window_bits`` the base-2 logarithm of the window, 9 to 15.
    """

    enabled: bool = False
    minimum_size: int = 256
    level: int = 6
    window_bits: int = MAX_WINDOW_BITS

    @classmethod
    def from_setting(cls, value: object) -> Compression:
        """Build from ``WS4REDIS_COMPRESSION``: ``True``, ``False``, ``None`` or a dict.

        A dict enables compression; it may have the keys ``'minimum_size'``, ``'level'`` and
        ``'window_bits'``. Raises ``ValueError`` for anything else.
        """
        if value is None or isinstance(value, bool):
            return cls(enabled=bool(value))
        if not isinstance(value, Mapping):
            raise ValueError(f'WS4REDIS_COMPRESSION must be True, False or a dict, not {value!r}.')
        unknown = set(value) - set(_OPTION_RANGES)
        if unknown:
            known = ', '.join(map(repr, _OPTION_RANGES))
            names = ', '.join(sorted(map(repr, unknown)))
            raise ValueError(f'WS4REDIS_COMPRESSION has unknown keys {names}; known are {known}.')
        return cls(enabled=True, **{name: _option(name, value[name]) for name in value})


#: Smallest and largest value of each key of the setting; None: unbounded.
_OPTION_RANGES: Final[dict[str, tuple[int, int | None]]] = {
    'minimum_size': (0, None),
    'level': (1, 9),
    'window_bits': (MIN_WINDOW_BITS, MAX_WINDOW_BITS),
}


def _option(name: str, value: object) -> int:
    smallest, largest = _OPTION_RANGES[name]
    allowed = f'{smallest} to {largest}' if largest is not None else f'{smallest} or more'
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or value < smallest
        or (largest is not None and value > largest)
    ):
        raise ValueError(
            f'WS4REDIS_COMPRESSION[{name!r}] must be an integer, {allowed}, not {value!r}.'
        )
    return value


@dataclass(frozen=True, slots=True)
class NegotiatedDeflate:
    """What client and server agreed on. Shared by all websockets that agreed on the same.

    ``wire`` is the format of messages to the client.
    """

    wire: DeflateWire


@cache
def _negotiated(window_bits: int, level: int, minimum_size: int) -> NegotiatedDeflate:
    return NegotiatedDeflate(deflate_wire(window_bits, level, minimum_size))


def negotiate(offered: str, config: Compression) -> tuple[str | None, NegotiatedDeflate | None]:
    """Choose among a client's offers; the first one that can be accepted is.

    ``offered`` is the value of ``Sec-WebSocket-Extensions``, ``''`` where there is none. Returns
    the value of that header for the response and what was agreed on: both ``None`` when nothing is
    accepted, which is no error.

    Raises ``HandshakeError`` (400) for a header that is not well-formed (RFC 6455, section 9.1).
    """
    for name, parameters in parse_extensions(offered):
        if config.enabled and name == PERMESSAGE_DEFLATE and _is_acceptable(parameters):
            return _accept(dict(parameters), config)
    return None, None


def _accept(offer: dict[str, str | None], config: Compression) -> tuple[str, NegotiatedDeflate]:
    answer = f'{PERMESSAGE_DEFLATE}; server_no_context_takeover; client_no_context_takeover'
    requested = offer.get('server_max_window_bits')
    window_bits = config.window_bits
    if requested is not None:
        # The answer may be smaller than what the client asks for (RFC 7692, section 7.1.2.1). So
        # there are two windows: were it the client's choice, seven clients could make each message
        # be compressed seven times.
        if int(requested) < window_bits:
            window_bits = MIN_WINDOW_BITS
        answer += f'; server_max_window_bits={window_bits}'
    return answer, _negotiated(window_bits, config.level, config.minimum_size)


def _is_acceptable(parameters: list[Parameter]) -> bool:
    """Tell whether an offer has only known parameters, once each, with valid values."""
    names = [name for name, _ in parameters]
    return len(names) == len(set(names)) and all(
        name in _IS_VALID_VALUE and _IS_VALID_VALUE[name](value) for name, value in parameters
    )


def _is_absent(value: str | None) -> bool:
    return value is None


def _is_window_we_can_use(value: str | None) -> bool:
    return value is not None and bool(_WINDOW_BITS.fullmatch(value)) and value != '8'


def _is_window_hint(value: str | None) -> bool:
    # We inflate with the largest window whatever the client uses: nothing to answer or to keep.
    return value is None or bool(_WINDOW_BITS.fullmatch(value))


#: For each parameter, whether a value is one that we can accept (RFC 7692, section 7.1).
_IS_VALID_VALUE: Final[dict[str, Callable[[str | None], bool]]] = {
    'server_no_context_takeover': _is_absent,
    'client_no_context_takeover': _is_absent,
    'server_max_window_bits': _is_window_we_can_use,
    'client_max_window_bits': _is_window_hint,
}


def parse_extensions(header: str) -> list[tuple[str, list[Parameter]]]:
    """Parse ``Sec-WebSocket-Extensions``: names and parameters in the client's order.

    Raises ``HandshakeError`` (400) for a header that is not well-formed (RFC 6455, section 9.1).
    """
    extensions: list[tuple[str, list[Parameter]]] = []
    position = 0
    while position < len(header):
        empty = _EMPTY_ELEMENT.match(header, position)
        if empty:
            assert empty.end() > position
            position = empty.end()
            continue
        name, position = _parse_name(header, position)
        parameters: list[Parameter] = []
        while header.startswith(';', position):
            parameter, position = _parse_parameter(header, position + 1)
            parameters.append(parameter)
        if position < len(header) and header[position] != ',':
            raise _malformed()
        position += 1
        extensions.append((name, parameters))
    return extensions


def _parse_name(header: str, position: int) -> tuple[str, int]:
    match = _NAME.match(header, position)
    if not match:
        raise _malformed()
    return match[1], match.end()


def _parse_parameter(header: str, position: int) -> tuple[Parameter, int]:
    name, position = _parse_name(header, position)
    if not header.startswith('=', position):
        return (name, None), position
    match = _VALUE.match(header, position)
    if not match:
        raise _malformed()
    value = match[1]
    if value is None:
        # Quoted, a value must still be a token (RFC 6455, section 9.1).
        value = re.sub(r'\\(.)', r'\1', match[2])
        if not TOKEN.fullmatch(value):
            raise _malformed()
    return (name, value), match.end()


def _malformed() -> HandshakeError:
    return HandshakeError(400, 'The header Sec-WebSocket-Extensions is malformed.')
