"""Requests of HTTP, as gevent's pywsgi reads them."""

from __future__ import annotations

import logging
import ssl
from typing import Any

import gevent
from gevent.pywsgi import Input, WSGIHandler, WSGIServer

from ws4redis.conf import conf
from ws4redis.standalone.tls import TlsConnection, detach

logger = logging.getLogger('ws4redis')

TIMEOUT_ANSWER = b'HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n'


class HandshakeHandler(WSGIHandler):  # type: ignore[misc]  # gevent has no types
    """Read one request, answer it, and be done with its connection.

    A connection has ``WS4REDIS_HANDSHAKE_TIMEOUT`` to send its request whole, however slowly. A
    body that is announced is never waited for, since no handshake has one.
    """

    wsgi_input: Any

    def read_request(self, raw_requestline: str) -> Any:
        """Read the headers; the connection is closed after the answer."""
        result = super().read_request(raw_requestline)
        # Only websockets are served here, so nobody asks for another page.
        self.close_connection = True
        return result

    def get_environ(self) -> Any:
        """Return the request's WSGI environment, without a body."""
        environ = super().get_environ()
        # pywsgi reads what is left of a body after the answer, and without any time-out.
        body = Input(self.rfile, 0)
        if environ['wsgi.input'] is self.wsgi_input:
            environ['wsgi.input'] = body
        self.wsgi_input = body
        environ['CONTENT_LENGTH'] = '0'
        return environ

    def handle(self) -> None:
        """Serve the connection; that its client leaves is no error."""
        try:
            super().handle()
        except OSError as exc:
            logger.debug('a client left during its request: %s', exc)

    def _handle_client_error(self, ex: BaseException) -> Any:
        if isinstance(ex, OSError):
            # None closes the connection; nobody is left to read an answer.
            logger.debug('a client left before its request was complete: %s', ex)
            return None
        return super()._handle_client_error(ex)

    def handle_error(self, t: Any, v: Any, tb: Any) -> None:
        """Log an exception; one of the socket is no error. The application raises none."""
        if issubclass(t, OSError):
            logger.debug('a client left before it was answered: %s', v)
        else:
            super().handle_error(t, v, tb)

    def handle_one_request(self) -> Any:
        """Read and answer one request; see pywsgi for what is returned."""
        timeout = gevent.Timeout.start_new(conf.WS4REDIS_HANDSHAKE_TIMEOUT)
        try:
            self._deadline = timeout
            return super().handle_one_request()
        except gevent.Timeout as exc:
            if exc is not timeout:
                raise
            logger.debug('a client did not send its request in time')
            return 408, TIMEOUT_ANSWER
        finally:
            timeout.close()

    def handle_one_response(self) -> None:
        """Answer; what that takes is not the client's fault."""
        self._deadline.close()
        super().handle_one_response()

    def format_request(self) -> str:
        """Return a line for the log of requests."""
        address = self.client_address
        client = address[0] if isinstance(address, tuple) and address else '-'
        status = (self._orig_status or '000').split()[0]
        milliseconds = (self.time_finish - self.time_start) * 1000
        return f'{client} "{self.requestline}" {status} {milliseconds:.1f} ms'


class HandshakeServer(WSGIServer):  # type: ignore[misc]  # gevent has no types
    """Accept connections, and hand each to a :class:`HandshakeHandler`."""

    handler_class = HandshakeHandler

    def __init__(
        self, listener: Any, application: Any, *, tls: ssl.SSLContext | None, **options: Any
    ) -> None:
        super().__init__(listener, application, **options)
        self._tls = tls
        if tls is not None:
            self.environ['wsgi.url_scheme'] = 'https'

    def handle(self, sock: Any, address: Any) -> None:
        """Serve one connection; a failed TLS handshake ends it."""
        if self._tls is not None:
            sock = TlsConnection(detach(sock), self._tls)
            try:
                with gevent.Timeout(conf.WS4REDIS_HANDSHAKE_TIMEOUT):
                    sock.do_handshake()
            except (OSError, gevent.Timeout) as exc:
                logger.debug('a TLS handshake failed: %s', exc)
                sock.close()
                return
        super().handle(sock, address)
