"""Heads of HTTP/1.1 requests (RFC 9112), as the native door reads them: bytes in, heads out.

``httptools`` parses a head once it is whole. What it lets through and a door must not is looked at
here: line feeds alone, headers that contradict each other, other versions, targets that are no
path.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote_to_bytes

import httptools

from ws4redis.exceptions import HandshakeError
from ws4redis.protocol.handshake import MAX_HEADER_BYTES

#: The first line may be so long, and all of a head: the line, the headers and their separators.
MAX_LINE_BYTES: Final = 8192
MAX_HEAD_BYTES: Final = MAX_HEADER_BYTES + MAX_LINE_BYTES
MAX_HEADERS: Final = 200

_END: Final = b'\r\n\r\n'
_HTTP2_PREFACE: Final = b'PRI * HTTP/2.0\r\n'
_TLS_HANDSHAKE: Final = 0x16
_VERSIONS: Final = frozenset({'1.0', '1.1'})
_AUTHORITY: Final = re.compile(r'[A-Za-z0-9._~:\[\]%-]+')
#: Two of these contradict each other, or nobody knows which one another server would believe.
_ONCE: Final = frozenset(
    {
        'authorization',
        'content-length',
        'content-type',
        'host',
        'last-event-id',
        'origin',
        'sec-websocket-key',
        'sec-websocket-version',
        'transfer-encoding',
    }
)


class RequestHead:
    """The first line and the headers of a request.

    ``headers`` has lower-case names; a header that came several times is one value with commas.
    ``path`` is decoded as WSGI wants it: percent-encoding undone, each byte one character.
    """

    __slots__ = ('body', 'headers', 'method', 'path', 'query', 'target', 'version')

    def __init__(
        self, method: str, target: str, version: str, headers: dict[str, str], path: str, query: str
    ) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.headers = headers
        self.path = path
        self.query = query
        # Once it has been read, where somebody wants it.
        self.body: bytes | None = None

    @property
    def line(self) -> str:
        return f'{self.method} {self.target} HTTP/{self.version}'

    @property
    def has_body(self) -> bool:
        """Tell whether a body is announced, which most requests here have no use for."""
        headers = self.headers
        return 'transfer-encoding' in headers or headers.get('content-length', '0').strip('0') != ''

    @property
    def keeps_alive(self) -> bool:
        """Tell whether the client may send another request on the same connection."""
        options = self.headers.get('connection', '').lower()
        if 'close' in options or (self.has_body and self.body is None):
            return False
        return self.version == '1.1' or 'keep-alive' in options


class HeadReader:
    """Collect the bytes of one head; raise ``HandshakeError`` as soon as it cannot be one."""

    __slots__ = ('_data', 'rest')

    def __init__(self) -> None:
        self._data: bytearray | None = None
        # What came behind the head.
        self.rest = b''

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing of the head has come yet."""
        return not self._data

    def receive_data(self, data: bytes) -> RequestHead | None:
        """Take bytes, and return the head if they complete it; see :attr:`rest` then."""
        collected = self._data
        if collected is None:
            # Line breaks that another request left behind are skipped (RFC 9112, section 2.2).
            data = data.lstrip(b'\r\n')
            if not data:
                return None
            end = data.find(_END)
            if end < 0:
                self._data = bytearray(data)
                self._refuse_early(self._data, 0)
                return None
        else:
            searched = max(0, len(collected) - len(_END) + 1)
            collected += data
            end = collected.find(_END, searched)
            if end < 0:
                self._refuse_early(collected, searched)
                return None
            data = bytes(collected)
            self._data = None
        end += len(_END)
        self.rest = data[end:]
        return parse_head(data[:end] if self.rest else data)

    def _refuse_early(self, data: bytearray, searched: int) -> None:
        """Refuse what cannot become a head, however it goes on."""
        if data[0] == _TLS_HANDSHAKE:
            raise HandshakeError(400, 'This port speaks plain HTTP, and the client speaks TLS.')
        _refuse_bare_line_feeds(data, searched)
        if len(data) > MAX_LINE_BYTES and data.find(b'\r\n', 0, MAX_LINE_BYTES) < 0:
            raise HandshakeError(414, 'The target of the request is too long.')
        if len(data) > MAX_HEAD_BYTES:
            raise HandshakeError(431, 'The headers of the request are too large.')


def _refuse_bare_line_feeds(data: bytes | bytearray, start: int = 0) -> None:
    # A line that one server takes for two is how requests are smuggled past a proxy.
    if data.count(b'\n', start) != data.count(b'\r\n', max(0, start - 1)):
        raise HandshakeError(400, 'A line of the request ends in a line feed alone.')


class BodyReader:
    """Collect the bytes of one body."""

    __slots__ = ('_data', '_length', 'rest')

    def __init__(self, length: int) -> None:
        self._length = length
        self._data = bytearray()
        # What came behind the body.
        self.rest = b''

    def receive_data(self, data: bytes) -> bytes | None:
        """Take bytes, and return the body if they complete it; see :attr:`rest` then."""
        self._data += data
        if len(self._data) < self._length:
            return None
        self.rest = bytes(self._data[self._length :])
        return bytes(self._data[: self._length])


class _Collector:
    """What ``httptools`` calls."""

    __slots__ = ('headers', 'target')

    def __init__(self) -> None:
        self.target = b''
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))


def parse_head(data: bytes) -> RequestHead:
    """Parse a whole head, its empty line included; raise ``HandshakeError`` if it is no good.

    That is 400 for anything that is no HTTP/1.1 or HTTP/1.0 or contradicts itself, 414 and 431 for
    what is too large, and 505 for another version.
    """
    if data.startswith(_HTTP2_PREFACE):
        raise HandshakeError(505, 'Only HTTP/1.1 is spoken here.')
    line_end = data.find(b'\r\n')
    if line_end > MAX_LINE_BYTES:
        raise HandshakeError(414, 'The target of the request is too long.')
    if len(data) > MAX_HEAD_BYTES:
        raise HandshakeError(431, 'The headers of the request are too large.')
    _refuse_bare_line_feeds(data)
    collector = _Collector()
    parser = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        # It leaves to us what follows the head, of which there is nothing here.
        pass
    except httptools.HttpParserError as exc:
        raise _refusal(data[:line_end]) from exc
    version = parser.get_http_version()
    if version not in _VERSIONS:
        raise _refusal(data[:line_end])
    if len(collector.headers) > MAX_HEADERS:
        raise HandshakeError(431, 'The request has too many headers.')
    headers = _merged(collector.headers)
    target = collector.target.decode('ascii')
    path_and_query = _in_origin_form(target, headers)
    if version == '1.1' and not headers.get('host'):
        raise HandshakeError(400, 'The request has no Host.')
    path, _, query = path_and_query.partition('?')
    if '%' in path:
        path = unquote_to_bytes(path).decode('latin-1')
    return RequestHead(parser.get_method().decode(), target, version, headers, path, query)


def _refusal(line: bytes) -> HandshakeError:
    version = re.search(rb' HTTP/(\d+(?:\.\d+)?)\Z', line)
    if version is not None and version[1] not in (b'1.0', b'1.1'):
        return HandshakeError(505, 'Only HTTP/1.1 is spoken here.')
    return HandshakeError(400, 'This is no request of HTTP/1.1.')


def _merged(pairs: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name = raw_name.decode('ascii').lower()
        if '_' in name:
            # In WSGI it could not be told from the one with a dash, which a proxy may have checked.
            continue
        value = raw_value.decode('latin-1').rstrip(' \t')
        before = headers.get(name)
        if before is None:
            headers[name] = value
        elif name in _ONCE:
            raise HandshakeError(400, f'The request has the header {name} more than once.')
        else:
            headers[name] = f'{before}{";" if name == "cookie" else ","} {value}'
    return headers


def _in_origin_form(target: str, headers: dict[str, str]) -> str:
    """Return path and query of a target; an absolute one also says what the host is."""
    if target.startswith('/'):
        if '#' in target:
            raise HandshakeError(400, 'The target of the request has a fragment.')
        return target
    scheme, separator, rest = target.partition('://')
    if not separator or scheme.lower() not in ('http', 'https', 'ws', 'wss') or '#' in rest:
        raise HandshakeError(400, 'The target of the request is no path.')
    authority, slash, path = rest.partition('/')
    if not slash:
        authority, question, query = rest.partition('?')
        path = question + query
    if not _AUTHORITY.fullmatch(authority):
        raise HandshakeError(400, 'The target of the request names no host.')
    # It counts, whatever the header says (RFC 9112, section 3.2.2).
    headers['host'] = authority
    return f'/{path}'


def encode_response(
    status: int, headers: list[tuple[str, str]], body: bytes, *, head_only: bool = False
) -> bytes:
    """Return a response of HTTP/1.1; ``headers`` say how long its body is."""
    lines = [f'HTTP/1.1 {status} {HTTPStatus(status).phrase}']
    lines += [f'{name}: {value}' for name, value in headers]
    head = '\r\n'.join([*lines, '', '']).encode('latin-1')
    return head if head_only else head + body
