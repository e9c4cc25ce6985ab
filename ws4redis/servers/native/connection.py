"""One connection at the native door: from its acceptance to an answer, or to the hub.

All of it runs in the loop, but for :meth:`Connection.hand_over`, which a view may call in another
greenlet of the loop's thread.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from email.utils import formatdate
from enum import IntEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ws4redis.exceptions import HandshakeError
from ws4redis.handshake.machine import Running
from ws4redis.loop.poller import READABLE, WRITABLE
from ws4redis.protocol.http1 import BodyReader, HeadReader, RequestHead, encode_response
from ws4redis.protocol.proxy import MAX_BLOCK_BYTES, ProxyProtocolError, parse_proxy_header
from ws4redis.servers.bodies import TEXT, body_length
from ws4redis.servers.native.environ import make_environ
from ws4redis.servers.native.tls import TlsSocket, begin_tls

if TYPE_CHECKING:
    import _socket

    from ws4redis.servers.bodies import Response
    from ws4redis.servers.native.door import Door
    from ws4redis.servers.native.tls import PlainSocket

logger = logging.getLogger('ws4redis')
requests_logger = logging.getLogger('ws4redis.requests')

# As much as a TLS record may hold, and more than a head may have.
READ_BYTES = 65536
SEND_FLAGS = getattr(socket, 'MSG_NOSIGNAL', 0)

_TOO_EARLY = 'The client sent data before the handshake was answered.'
_NO_TLS = 'This port speaks TLS, and the client speaks plain HTTP: use wss:// or https://.'


class Stage(IntEnum):
    """How far a connection has come."""

    PROXY = 0  # a proxy is to say who its client is
    TLS = 1  # keys are agreed on
    HEAD = 2  # a request is read
    BODY = 3  # so is its body, where somebody wants it
    BUSY = 4  # it is being answered
    REPLYING = 5  # the answer is written
    LINGERING = 6  # nothing more is said; what still comes is thrown away
    GONE = 7  # closed, or handed over


class Connection:
    """A socket that was accepted."""

    __slots__ = (
        '_body',
        '_door',
        '_events',
        '_out',
        '_reader',
        '_running',
        '_sock',
        'address',
        'fd',
        'head',
        'keeps_alive',
        'requests',
        'stage',
    )

    def __init__(self, door: Door, sock: PlainSocket, address: str) -> None:
        self._door = door
        self._sock: Any = sock
        self.fd = sock.fileno()
        self.address = address
        self._events = 0
        self._reader = HeadReader()
        self._body: BodyReader | None = None
        self._running: Running | None = None
        self._out: memoryview | None = None
        self.head: RequestHead | None = None
        self.keeps_alive = False
        self.requests = 0
        self.stage = Stage.HEAD

    def __repr__(self) -> str:
        return f'<Connection fd={self.fd} {self.stage.name}>'

    def begin(self) -> None:
        """Take what has come already; most often that is the whole request."""
        door = self._door
        door.arriving.add(self)
        if door.takes_proxy_protocol:
            self.stage = Stage.PROXY
        elif door.tls is not None:
            self._begin_tls(door.tls)
        self._receive()
        if self.stage < Stage.BUSY and not self._events:
            self._watch(READABLE)

    def ready(self, events: int) -> None:
        if self.stage is Stage.REPLYING:
            self._flush()
        elif self.stage is Stage.BUSY:
            self._receive_early()
        elif self.stage is Stage.LINGERING:
            self._discard()
        else:
            self._receive()

    def failed(self) -> None:
        """Close after an exception of our own; the loop has logged it."""
        self.close()

    def _watch(self, events: int) -> None:
        loop = self._door.loop
        if not self._events:
            loop.register(self.fd, self, events)
        elif events != self._events:
            loop.poller.modify(self.fd, events)
        self._events = events

    def _unwatch(self) -> None:
        if self._events:
            self._door.loop.unregister(self.fd)
            self._events = 0

    # Before the request

    def _begin_tls(self, context: ssl.SSLContext) -> None:
        self._sock = begin_tls(self._sock, context)
        self.stage = Stage.TLS

    def _receive(self) -> None:
        """Take what there is, as the stage has it."""
        try:
            if self.stage is Stage.PROXY:
                self._receive_proxy_header()
            if self.stage is Stage.TLS:
                self._agree()
            if self.stage in (Stage.HEAD, Stage.BODY):
                self._receive_request()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            logger.debug('a client left before its request was complete: %s', exc)
            self.close()

    def _receive_proxy_header(self) -> None:
        # No byte behind it may be read, since OpenSSL reads the socket itself. A proxy sends it in
        # one piece, as it has to.
        data = self._sock.recv(MAX_BLOCK_BYTES + 16, socket.MSG_PEEK)
        try:
            if not self._door.trusted.trusts(self.address):
                raise ProxyProtocolError(f'{self.address} is not in WS4REDIS_TRUSTED_PROXIES')
            header = parse_proxy_header(data)
            if header is None:
                raise ProxyProtocolError('it is not complete')
        except ProxyProtocolError as exc:
            logger.warning('a connection without a header of the PROXY protocol: %s', exc)
            self.close()
            return
        self._sock.recv(header.length)
        if header.client is not None:
            self.address = header.client[0]
        if self._door.tls is None:
            self.stage = Stage.HEAD
        else:
            self._begin_tls(self._door.tls)

    def _agree(self) -> None:
        sock: TlsSocket = self._sock
        try:
            wants_to_write = sock.agree()
        except ssl.SSLError as exc:
            if exc.reason == 'HTTP_REQUEST':
                sock.send_unencrypted(self._encoded(400, [TEXT], f'{_NO_TLS}\n'.encode()))
            raise
        if wants_to_write is None:
            self._door.agreed(resumed=sock.was_resumed)
            self.stage = Stage.HEAD
            if self._events & WRITABLE:
                self._watch(READABLE)
        else:
            self._watch(WRITABLE if wants_to_write else READABLE)

    def _receive_request(self) -> None:
        data = self._sock.recv(READ_BYTES)
        if not data:
            self.close()
        elif self.stage is Stage.BODY:
            self._take_body(data)
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            head = self._reader.receive_data(data)
            length = None if head is None else self._body_length(head)
        except HandshakeError as error:
            self._refuse_request(error)
            return
        if head is None:
            return
        if length is None:
            self._answer(head)
        else:
            self._begin_body(head, length)

    def _body_length(self, head: RequestHead) -> int | None:
        limit = self._door.body_limit(head)
        if limit is None:
            return None
        headers = head.headers
        return body_length(headers.get('content-length'), headers.get('transfer-encoding'), limit)

    def _begin_body(self, head: RequestHead, length: int) -> None:
        self.stage = Stage.BODY
        self.head = head
        self._body = BodyReader(length)
        rest, self._reader.rest = self._reader.rest, b''
        if head.headers.get('expect', '').lower() == '100-continue' and len(rest) < length:
            # Who does not hear it sends the body after a while.
            with contextlib.suppress(OSError):
                self._sock.send(b'HTTP/1.1 100 Continue\r\n\r\n', SEND_FLAGS)
        self._take_body(rest)

    def _take_body(self, data: bytes) -> None:
        reader, head = self._body, self.head
        assert reader is not None
        assert head is not None
        head.body = reader.receive_data(data)
        if head.body is not None:
            self._reader.rest = reader.rest
            self._body = None
            self._answer(head)

    def _refuse_request(self, error: HandshakeError) -> None:
        logger.debug('a request was refused: %s', error)
        self._door.arriving.discard(self)
        self._door.refused(error.status)
        self.head = None
        self._body = None
        self.keeps_alive = False
        self._reply(error.status, [TEXT, *error.headers.items()], f'{error.body}\n'.encode())

    def expired(self) -> None:
        """Give it up: it has not sent its request in time."""
        if self.stage in (Stage.HEAD, Stage.BODY) and self._has_come():
            return
        is_idle = self.stage is Stage.HEAD and self.requests and self._reader.is_empty
        if self.stage in (Stage.HEAD, Stage.BODY) and not is_idle:
            logger.debug('a client did not send its request in time')
            self._refuse_request(HandshakeError(408, 'The request did not come in time.'))
        else:
            self.close()

    def _has_come(self) -> bool:
        """Take what the loop was too late to read; tell whether it made an end of the request."""
        requests = self.requests
        self._receive()
        return self.requests > requests or self.stage > Stage.BODY

    # The request

    def _answer(self, head: RequestHead) -> None:
        door = self._door
        door.arriving.discard(self)
        self.stage = Stage.BUSY
        self.head = head
        self.keeps_alive = head.keeps_alive
        self.requests += 1
        client = door.trusted.client_of(self.address, head.headers, is_secure=door.tls is not None)
        environ = make_environ(head, client, door.base_environ, self)
        running = Running(door.application(environ), self._answered)
        self._running = running
        door.busy.add(self)
        running.start()
        if self.stage is Stage.BUSY and (self._events or running.waits_for_project):
            # Should the client leave meanwhile, nobody has to be asked for it.
            self._watch(READABLE)

    def _receive_early(self) -> None:
        """Take note of an end or of data that come before the answer."""
        try:
            data = self._sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b''
        if not data:
            logger.debug('a client left before it was answered')
            self.close()
            return
        self._reader.rest += data
        # Another request, or something that is refused when this one is answered.
        self._unwatch()

    def hand_over(
        self, headers: list[tuple[str, str]], status: str = '101 Switching Protocols'
    ) -> _socket.socket:
        """Answer with a status and these headers, and give up the socket.

        Raise ``OSError`` when the client has gone, and ``HandshakeError`` 400 when it has sent
        something too early (RFC 6455, section 4.1).
        """
        if self.stage is not Stage.BUSY:
            raise ConnectionAbortedError('the client has gone')
        if self._reader.rest:
            # Nor is it another request.
            self.keeps_alive = False
            raise HandshakeError(400, _TOO_EARLY)
        code = int(status[:3])
        answer = encode_response(code, headers, b'')
        if self._sock.send(answer, SEND_FLAGS) != len(answer):
            raise ConnectionAbortedError('the client takes no answer')
        self._log(code)
        self._unwatch()
        sock: _socket.socket = self._sock
        self._leave()
        return sock

    def _answered(self, response: Response | None, error: BaseException | None) -> None:
        self._running = None
        if self.stage is not Stage.BUSY:
            return
        if error is not None:
            assert self.head is not None
            response = self._door.response_to(error, self.head)
        if response is None:
            # The client had gone, or so it seemed.
            self.close()
        else:
            self._reply(*response)

    # The answer

    def _reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.stage = Stage.REPLYING
        self.keeps_alive = self.keeps_alive and not self._door.is_closing
        self._log(status)
        self._door.busy.discard(self)
        self._door.arriving.add(self)
        self._out = memoryview(self._encoded(status, headers, body))
        self._flush()

    def _encoded(self, status: int, headers: list[tuple[str, str]], body: bytes) -> bytes:
        lines = [
            ('Date', formatdate(usegmt=True)),
            *headers,
            ('Content-Length', str(len(body))),
            ('Connection', 'keep-alive' if self.keeps_alive else 'close'),
        ]
        head_only = self.head is not None and self.head.method == 'HEAD'
        return encode_response(status, lines, body, head_only=head_only)

    def _flush(self) -> None:
        out = self._out
        while out:
            try:
                out = out[self._sock.send(out, SEND_FLAGS) :]
            except (BlockingIOError, InterruptedError):
                self._out = out
                self._watch(WRITABLE)
                return
            except OSError:
                self.close()
                return
        self._out = None
        if self.keeps_alive:
            self._next()
        else:
            self._linger()

    def _next(self) -> None:
        """Wait for the next request of the client, or take it if it has come already."""
        self.stage = Stage.HEAD
        self.head = None
        if self._reader.rest:
            # In another turn: a thousand of them may have come in one packet. Until then nothing is
            # read, since that would come before it.
            self._unwatch()
            self._door.loop.call_soon(self._take_rest)
        else:
            self._watch(READABLE)

    def _take_rest(self) -> None:
        if self.stage is Stage.HEAD:
            rest, self._reader.rest = self._reader.rest, b''
            self._watch(READABLE)
            self._take(rest)

    def _linger(self) -> None:
        # Closing with unread input would send a reset, which may overtake the answer.
        self.stage = Stage.LINGERING
        self._door.arriving.discard(self)
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self._door.lingering.add(self)
        self._watch(READABLE)

    def _discard(self) -> None:
        try:
            data = self._sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b''
        if not data:
            self.close()

    def close(self) -> None:
        """Let go of the client, and of its handshake if that is under way."""
        if self.stage is Stage.GONE:
            return
        self._unwatch()
        running, self._running = self._running, None
        sock = self._sock
        self._leave()
        with contextlib.suppress(OSError):
            sock.close()
        if running is not None:
            running.cancel()

    def _leave(self) -> None:
        self.stage = Stage.GONE
        self._sock = None
        self._door.left(self)

    def _log(self, status: int) -> None:
        if self._door.logs_requests:
            line = self.head.line if self.head is not None else ''
            phrase = HTTPStatus(status).phrase
            requests_logger.info('%s "%s" %d %s', self.address or '-', line, status, phrase)
