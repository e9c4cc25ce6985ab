"""TLS for the standalone server: first for pywsgi's greenlet, then for the loop.

The TLS of a connection is an object of OpenSSL's, tied to the socket. It outlives the request: at
the hand-over the same object goes on under the loop, which reads and writes it without blocking
like any other socket. There is no process, thread or greenlet in between. A TLS record is always
read whole (OpenSSL reads no further ahead, and the loop asks for more than a record may hold), so
the poller, which knows of encrypted data alone, tells of all there is.

``SSLContext._wrap_socket`` is not documented, yet ``ssl`` and ``gevent.ssl`` are made of it, and it
is the only way that is the same whether gevent has patched the standard library or not.
"""

from __future__ import annotations

import _socket
import contextlib
import io
import ssl
from typing import TYPE_CHECKING, Any

from gevent.socket import wait_read, wait_write

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

# The most that a record holds (RFC 8446, section 5.1).
RECORD_BYTES = 16384

_WANT = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
_ENDED = (ssl.SSLZeroReturnError, ssl.SSLEOFError)


def make_context(certfile: str, keyfile: str | None) -> ssl.SSLContext:
    """Return the TLS configuration of a server; raise ``OSError`` for unusable files."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certfile, keyfile)
    # A client that renegotiates could make a write wait for a read.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(['http/1.1'])
    return context


class PlainSocket(_socket.socket):
    """A socket to which OpenSSL's object can hold its weak reference."""


class TlsSocket:
    """A TLS connection with the methods of a non-blocking socket, for the loop."""

    def __init__(self, sock: _socket.socket, tls: Any) -> None:
        self._sock = sock
        self._tls = tls
        self._is_shut_down = False
        # How much of what `send` did not take OpenSSL has encrypted already: the next call must
        # begin with the same bytes.
        self.attempted_bytes = 0
        self.family = sock.family
        self.type = sock.type
        self.fileno = sock.fileno
        self.settimeout = sock.settimeout
        self.setsockopt = sock.setsockopt
        self.getsockopt = sock.getsockopt
        self.getpeername = sock.getpeername

    def recv(self, size: int) -> bytes:
        """Read at most ``size`` bytes; raise ``BlockingIOError`` when there are none yet."""
        if self._is_shut_down:
            # Only the end counts now: discard what comes before it without decrypting.
            return self._sock.recv(size)
        try:
            data: bytes = self._tls.read(size)
        except _WANT:
            raise BlockingIOError from None
        except _ENDED:
            return b''
        return data

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        """Write what the socket takes; raise ``BlockingIOError`` when that is nothing."""
        # OpenSSL reports nothing of a write until all of it is out, so it gets one record at once.
        view = memoryview(data)
        sent = self.attempted_bytes = 0
        while sent < len(view):
            record = view[sent : sent + RECORD_BYTES]
            try:
                sent += self._tls.write(record)
            except _WANT:
                self.attempted_bytes = len(record)
                if not sent:
                    raise BlockingIOError from None
                break
        return sent

    def shutdown(self, how: int) -> None:
        """Tell the peer that nothing more will come (close_notify), and end our half."""
        self._is_shut_down = True
        # It also waits for the peer's close_notify, of which the caller reads the end himself.
        with contextlib.suppress(ssl.SSLError, OSError):
            self._tls.shutdown()
        self._sock.shutdown(how)

    def close(self) -> None:
        self._tls = None
        self._sock.close()


class TlsConnection:
    """A TLS connection as pywsgi wants a socket: it blocks, which under gevent is only to wait."""

    def __init__(self, sock: _socket.socket, context: Any) -> None:
        self._sock: _socket.socket | None = None
        self._raw = sock
        self._tls = context._wrap_socket(sock, server_side=True)
        self._timeout: float | None = None

    def do_handshake(self) -> None:
        """Agree with the client; raise ``ssl.SSLError`` or ``OSError`` when that fails."""
        self._patiently(self._tls.do_handshake)

    def _patiently(self, operation: Any, *args: Any) -> Any:
        while True:
            try:
                return operation(*args)
            except ssl.SSLWantReadError:
                if self._timeout == 0:
                    raise
                wait_read(self._raw.fileno(), self._timeout)
            except ssl.SSLWantWriteError:
                wait_write(self._raw.fileno(), self._timeout)

    # What pywsgi uses of a socket

    def makefile(self, mode: str, buffering: int) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self))

    def recv_into(self, buffer: WriteableBuffer) -> int | None:
        """Read into a buffer; return 0 at the end, None when there is nothing and no time."""
        try:
            read: int = self._patiently(self._tls.read, memoryview(buffer).nbytes, buffer)
        except _ENDED:
            return 0
        except ssl.SSLWantReadError:
            return None
        return read

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._patiently(self._tls.write, view) :]

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def fileno(self) -> int:
        return self._raw.fileno()

    def close(self) -> None:
        """Close the connection, unless it was handed over."""
        if self._tls is not None:
            with contextlib.suppress(ssl.SSLError, OSError):
                self._tls.shutdown()
            self._raw.close()
            self._tls = None

    def hand_over(self) -> TlsSocket:
        """Give the connection up, and return it as the loop wants it."""
        sock = TlsSocket(self._raw, self._tls)
        self._tls = None
        return sock


class _Reader(io.RawIOBase):
    """What a ``BufferedReader`` reads from."""

    def __init__(self, connection: TlsConnection) -> None:
        super().__init__()
        self.tls_connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        return self.tls_connection.recv_into(buffer)


def detach(sock: Any) -> _socket.socket:
    """Take the descriptor out of gevent's socket, and return a plain one, which does not block."""
    plain = PlainSocket(fileno=sock.detach())
    plain.settimeout(0)
    return plain
