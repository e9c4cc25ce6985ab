"""The PROXY protocol, versions 1 and 2: who the client of a proxy is, said before all else.

See https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Final, NamedTuple

#: The longest line of version 1.
MAX_LINE_BYTES: Final = 107
#: Addresses and what proxies add to them in version 2; it could be 65,535 bytes.
MAX_BLOCK_BYTES: Final = 4096

_SIGNATURE: Final = b'\r\n\r\n\0\r\nQUIT\n'
_FIXED_BYTES: Final = 16
_LOCAL: Final = 0
_PROXY: Final = 1
_IPV4: Final = 1
_IPV6: Final = 2
_LAST_PORT: Final = 65535


class ProxyProtocolError(Exception):
    """The peer says something else, so it is none of our proxies."""


class ProxyHeader(NamedTuple):
    """What a proxy said: ``client`` is ``None`` where it speaks for itself, in a health check say.

    ``length`` is how many bytes it took.
    """

    client: tuple[str, int] | None
    length: int


def parse_proxy_header(data: bytes) -> ProxyHeader | None:
    """Read the header from the first bytes of a connection; ``None`` if more are needed.

    Raise :class:`ProxyProtocolError` if it is no header of the PROXY protocol.
    """
    if data[: len(_SIGNATURE)] == _SIGNATURE[: len(data)]:
        return _version_2(data)
    if data[:6] == b'PROXY '[: len(data)]:
        return _version_1(data)
    raise ProxyProtocolError('it does not begin as the PROXY protocol does')


def _version_1(data: bytes) -> ProxyHeader | None:
    end = data.find(b'\r\n', 0, MAX_LINE_BYTES)
    if end < 0:
        if len(data) >= MAX_LINE_BYTES:
            raise ProxyProtocolError('its line is too long')
        return None
    words = data[:end].split(b' ')
    if words[1] == b'UNKNOWN':
        return ProxyHeader(None, end + 2)
    if len(words) != 6 or words[1] not in (b'TCP4', b'TCP6'):
        raise ProxyProtocolError('its line has no addresses')
    try:
        source = ipaddress.ip_address(words[2].decode('ascii'))
        port = int(words[4].decode('ascii'))
    except ValueError as exc:
        raise ProxyProtocolError(str(exc)) from None
    if source.version != (4 if words[1] == b'TCP4' else 6) or not 0 <= port <= _LAST_PORT:
        raise ProxyProtocolError('its addresses are of another family')
    return ProxyHeader((str(source), port), end + 2)


def _version_2(data: bytes) -> ProxyHeader | None:
    if len(data) < _FIXED_BYTES:
        return None
    version, command = data[12] >> 4, data[12] & 15
    family = data[13] >> 4
    size = int.from_bytes(data[14:16], 'big')
    if version != 2 or command not in (_LOCAL, _PROXY):
        raise ProxyProtocolError('it is of another version')
    if size > MAX_BLOCK_BYTES:
        raise ProxyProtocolError('its block is too long')
    length = _FIXED_BYTES + size
    if len(data) < length:
        return None
    block = data[_FIXED_BYTES:length]
    if command == _LOCAL or family not in (_IPV4, _IPV6):
        return ProxyHeader(None, length)
    octets = 4 if family == _IPV4 else 16
    if size < 2 * octets + 4:
        raise ProxyProtocolError('its block is too short')
    source = socket.inet_ntop(
        socket.AF_INET if family == _IPV4 else socket.AF_INET6, block[:octets]
    )
    port = int.from_bytes(block[2 * octets : 2 * octets + 2], 'big')
    return ProxyHeader((source, port), length)
