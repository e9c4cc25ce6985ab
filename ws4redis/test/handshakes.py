"""Handshakes as a client sees them (RFC 6455, section 4); shares no code with the server's half."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

_GUID = b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11'


@dataclass(frozen=True)
class HttpResponse:
    """An HTTP answer; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b''


def handshake_request(
    url: str,
    *,
    headers: Mapping[str, str | None] | None = None,
    method: str = 'GET',
    key: str | None = None,
) -> bytes:
    """Return the HTTP request that opens a websocket.

    ``headers`` are added, or replace those of a proper handshake; ``None`` removes one.
    """
    parts = urlsplit(url)
    fields: dict[str, str | None] = {
        'Host': parts.netloc,
        'Upgrade': 'websocket',
        'Connection': 'Upgrade',
        'Sec-WebSocket-Key': key or new_key(),
        'Sec-WebSocket-Version': '13',
    }
    names = {name.lower(): name for name in fields}
    for name, value in (headers or {}).items():
        fields[names.get(name.lower(), name)] = value
    target = (parts.path or '/') + (f'?{parts.query}' if parts.query else '')
    lines = [f'{method} {target} HTTP/1.1']
    lines += [f'{name}: {value}' for name, value in fields.items() if value is not None]
    return '\r\n'.join([*lines, '', '']).encode('latin-1')


def new_key() -> str:
    """Return a random Sec-WebSocket-Key."""
    return base64.b64encode(os.urandom(16)).decode()


def expected_accept(key: str) -> str:
    """Return the Sec-WebSocket-Accept that answers ``key`` (RFC 6455, section 4.2.2)."""
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def parse_response_head(head: bytes) -> HttpResponse:
    """Return status and headers of an HTTP answer; ``head`` ends before the blank line."""
    first, *lines = head.decode('latin-1').split('\r\n')
    headers = {}
    for line in lines:
        name, _, value = line.partition(':')
        headers[name.strip().lower()] = value.strip()
    return HttpResponse(int(first.split()[1]), headers)
