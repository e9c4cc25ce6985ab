"""A client of event streams, which reads them as the HTML standard says a browser does."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from tests.timeouts import SOON_SECONDS


@dataclass(frozen=True)
class StreamEvent:
    """What a page gets: the data of an event, and its name, `message` by default."""

    data: str
    name: str = 'message'


class EventStreamParser:
    """Take the bytes of a stream, and return the events that are complete."""

    def __init__(self) -> None:
        self._rest = b''
        self._data: list[str] = []
        self._name = ''
        self.last_event_id = ''
        self.retry: int | None = None
        self.comments = 0

    def feed(self, data: bytes) -> list[StreamEvent]:
        *lines, self._rest = (self._rest + data).split(b'\n')
        events = []
        for line in lines:
            if line:
                self._take(line.decode())
            elif self._data or self._name:
                # A position is no message: it may come at any time, and `last_event_id` has it.
                if self._name != 'position':
                    events.append(StreamEvent('\n'.join(self._data), self._name or 'message'))
                self._data, self._name = [], ''
        return events

    def _take(self, line: str) -> None:
        field, _, value = line.partition(':')
        value = value.removeprefix(' ')
        if not field:
            self.comments += 1
        elif field == 'data':
            self._data.append(value)
        elif field == 'event':
            self._name = value
        elif field == 'id':
            self.last_event_id = value
        elif field == 'retry':
            self.retry = int(value)


class EventStreamClient:
    """One stream; opened in ``with`` or by hand, at ``http://…`` or ``https://…``."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        last_event_id: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(url)
        port = parts.port or (443 if ssl_context else 80)
        self.parser = EventStreamParser()
        self._events: list[StreamEvent] = []
        self.socket: Any = socket.create_connection((parts.hostname, port), SOON_SECONDS)
        if ssl_context is not None:
            self.socket = ssl_context.wrap_socket(self.socket, server_hostname=parts.hostname)
        lines = {
            'Host': parts.netloc,
            'Accept': 'text/event-stream',
            'Cache-Control': 'no-cache',
            **(headers or {}),
        }
        if last_event_id is not None:
            lines['Last-Event-ID'] = last_event_id
        target = f'{parts.path}?{parts.query}' if parts.query else parts.path
        request = [f'GET {target} HTTP/1.1', *(f'{name}: {lines[name]}' for name in lines), '', '']
        self.socket.sendall('\r\n'.join(request).encode())
        self._read_head()

    def _read_head(self) -> None:
        head = b''
        while b'\r\n\r\n' not in head:
            data = self.socket.recv(65536)
            assert data, f'the server said no more than {head!r}'
            head += data
        head, _, rest = head.partition(b'\r\n\r\n')
        first, *lines = head.decode('latin-1').split('\r\n')
        self.status = int(first.split()[1])
        self.headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(':') for line in lines)
        }
        self._is_chunked = self.headers.get('transfer-encoding') == 'chunked'
        self._chunks = b''
        self._take(rest)

    def _take(self, data: bytes) -> None:
        if not self._is_chunked:
            self._events += self.parser.feed(data)
            return
        # Proxies may cut the stream as they like.
        self._chunks += data
        while b'\r\n' in self._chunks:
            size_line, _, rest = self._chunks.partition(b'\r\n')
            size = int(size_line, 16)
            if len(rest) < size + 2:
                return
            self._events += self.parser.feed(rest[:size])
            self._chunks = rest[size + 2 :]

    def receive(self) -> StreamEvent:
        """Return the next event."""
        while not self._events:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError('the stream has ended')
            self._take(data)
        return self._events.pop(0)

    def expect_end(self) -> None:
        """Read to the end; no event may come."""
        while data := self.socket.recv(65536):
            self._take(data)
        assert not self._events

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
