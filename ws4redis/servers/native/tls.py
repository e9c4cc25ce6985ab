"""TLS under the loop.

The TLS of a connection is an object of OpenSSL's, tied to the socket. The loop makes its handshake,
and reads and writes it, without blocking, as it does with any other socket. A TLS record is always
read whole (OpenSSL reads no further ahead, and the loop asks for more than a record may hold), so
the poller, which knows of encrypted data alone, tells of all there is.

``SSLContext._wrap_socket`` is not documented, yet ``ssl`` and ``gevent.ssl`` are made of it, and it
is the only way that is the same whether gevent has patched the standard library or not.
"""

from __future__ import annotations

import _socket
import contextlib
import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

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
    # All that is on offer is strong, and the client knows what is cheap for it: AES-128, or
    # ChaCha20 where it has no hardware for AES.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    # Websockets and HTTP say by themselves where a message ends, so who leaves without a word of
    # TLS's need not be sent an alert. OpenSSL 1.1.1 has no such option.
    context.options |= getattr(ssl, 'OP_IGNORE_UNEXPECTED_EOF', 0)
    # A browser comes back with one connection, and gets another ticket with that.
    context.num_tickets = 1
    context.set_alpn_protocols(['http/1.1'])
    return context


class PlainSocket(_socket.socket):
    """A socket to which OpenSSL's object can hold its weak reference."""


def begin_tls(sock: PlainSocket, context: ssl.SSLContext) -> TlsSocket:
    """Return the TLS of a connection whose handshake is to be made by :meth:`agree`."""
    wrap: Any = context
    return TlsSocket(sock, wrap._wrap_socket(sock, server_side=True))


class TlsSocket:
    """A TLS connection with the methods of a non-blocking socket."""

    def __init__(self, sock: PlainSocket, tls: Any) -> None:
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

    def agree(self) -> bool | None:
        """Go on with the handshake.

        Return ``None`` when it is done, else whether it has to write before it goes on, rather than
        to read. Raise ``ssl.SSLError`` or ``OSError`` when it has failed.
        """
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:
            return True
        return None

    def send_unencrypted(self, data: bytes) -> None:
        """Tell a client that speaks no TLS so, in its own language."""
        with contextlib.suppress(OSError):
            self._sock.send(data)

    @property
    def was_resumed(self) -> bool:
        """Tell whether the client had been here before, which saved the keys' exchange."""
        return bool(self._tls.session_reused)

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
