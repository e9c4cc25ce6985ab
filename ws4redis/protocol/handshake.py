"""The opening handshake, seen from the server (RFC 6455, sections 4.2 to 4.4)."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha1
from typing import Final

from ws4redis.exceptions import HandshakeError, UpgradeRequiredError
from ws4redis.protocol.extensions import TOKEN

VERSION: Final = '13'

#: All headers of a handshake together, names and values; cookies take most of it.
MAX_HEADER_BYTES: Final = 32768

_ACCEPT_GUID: Final = b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
_KEY_BYTES: Final = 16

#: Versions without upgrades: an upgrade in such a request is ignored (RFC 9110, section 7.8).
_TOO_OLD: Final = frozenset({'HTTP/0.9', 'HTTP/1.0'})

#: What no value of a header may contain (RFC 9110, section 5.5); some servers let it through.
_LINE_BREAK: Final = re.compile(r'[\0\r\n]')


def check_upgrade(
    method: str,
    headers: Mapping[str, str],
    *,
    http_version: str = 'HTTP/1.1',
    max_header_bytes: int = MAX_HEADER_BYTES,
) -> None:
    """Check that a request is a websocket's opening handshake (RFC 6455, section 4.2.1).

    ``headers`` has lower-case names; a header that came several times is one value with commas.

    Raises ``HandshakeError`` with the status 400 (not an upgrade, HTTP/1.0, no valid key, or a line
    break inside a header), 426 (another version) or 431 (headers of more than
    ``max_header_bytes``).
    """
    check_headers(headers, max_header_bytes=max_header_bytes)
    if (
        method.upper() != 'GET'
        or 'websocket' not in _tokens(headers.get('upgrade', ''))
        or 'upgrade' not in _tokens(headers.get('connection', ''))
    ):
        raise HandshakeError(
            400, 'This is the address of a websocket: the client must upgrade to a websocket.'
        )
    if http_version in _TOO_OLD:
        raise HandshakeError(
            400,
            'Websockets need HTTP/1.1, and this request is HTTP/1.0. '
            'Behind NGINX, set proxy_http_version 1.1.',
        )
    if headers.get('sec-websocket-version', '').strip() != VERSION:
        raise UpgradeRequiredError(
            426,
            f'Only version {VERSION} of the websocket protocol is supported.',
            {'Sec-WebSocket-Version': VERSION},
        )
    if not _is_key(headers.get('sec-websocket-key', '').strip()):
        raise HandshakeError(400, 'The header Sec-WebSocket-Key is missing or malformed.')


def check_headers(headers: Mapping[str, str], *, max_header_bytes: int = MAX_HEADER_BYTES) -> None:
    """Check the headers of any request; raise ``HandshakeError`` 400 or 431."""
    values = ''.join(headers.values())
    if len(''.join(headers)) + len(values) > max_header_bytes:
        raise HandshakeError(431, 'The headers of the request are too large.')
    if _LINE_BREAK.search(values):
        raise HandshakeError(400, 'A header of the request has a line break in its value.')


def _tokens(value: str) -> set[str]:
    return {token.strip().lower() for token in value.split(',')}


def _is_key(key: str) -> bool:
    try:
        return len(b64decode(key, validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        return False


def accept_key(key: str) -> str:
    """Return the value of ``Sec-WebSocket-Accept`` (RFC 6455, section 4.2.2)."""
    digest = sha1(key.strip().encode() + _ACCEPT_GUID, usedforsecurity=False).digest()
    return b64encode(digest).decode()


# The name under which a websocket speaks the client protocol, where its URL does.
CLIENT_PROTOCOL = 'centrifuge-json'


def choose_subprotocol(offered: str, supported: Sequence[str] | None) -> str | None:
    """Return the first subprotocol offered by the client that is supported, else ``None``.

    ``offered`` is the value of ``Sec-WebSocket-Protocol``, ``''`` where there is none. Names are
    compared as they are, case included. Where ``supported`` is ``None``, any name is, but that of
    the client protocol: a client that was granted it would speak it. When ``None`` is returned the
    handshake goes on without a subprotocol.
    """
    for name in offered.split(','):
        name = name.strip()
        # It goes into a header of the answer, so nothing else than a name may pass.
        is_supported = name != CLIENT_PROTOCOL if supported is None else name in supported
        if TOKEN.fullmatch(name) and is_supported:
            return name
    return None


def response_headers(
    key: str, *, subprotocol: str | None = None, extensions: str | None = None
) -> list[tuple[str, str]]:
    """Return the headers of the response 101 (RFC 6455, section 4.2.2).

    ``key`` is the request's ``Sec-WebSocket-Key``, ``extensions`` what ``negotiate`` returned.
    """
    headers = [
        ('Upgrade', 'websocket'),
        ('Connection', 'Upgrade'),
        ('Sec-WebSocket-Accept', accept_key(key)),
    ]
    if subprotocol is not None:
        headers.append(('Sec-WebSocket-Protocol', subprotocol))
    if extensions is not None:
        headers.append(('Sec-WebSocket-Extensions', extensions))
    return headers
