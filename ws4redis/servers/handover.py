"""Handing over: how each WSGI server gives up the socket of a request.

Once a handshake is accepted, the socket belongs to the hub and the request ends. How to get hold of
it, and how the answer is sent before that, is different in each server; nothing else is.
"""

from __future__ import annotations

import _socket
import contextlib
import os
import socket
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from ws4redis.exceptions import HandoverNotSupported, HandshakeError
from ws4redis.loop.drivers import runs_under_gevent
from ws4redis.loop.native import original
from ws4redis.servers.native.environ import CONNECTION
from ws4redis.servers.uwsgi_options import fatal_concern

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Headers = Sequence[tuple[str, str]]

STATUS = '101 Switching Protocols'
SERVER_HEADER = 'WS4Redis-Server'

_NOT_SUPPORTED = (
    'This server cannot hand over its sockets, so it cannot serve websockets. '
    'Use uWSGI, manage.py run_wsserver or manage.py runserver.'
)


def take_socket(
    environ: WSGIEnvironment,
    start_response: StartResponse | None,
    headers: Headers,
    *,
    status: str = STATUS,
) -> _socket.socket:
    """Answer the handshake with a status and these headers, and return the request's socket.

    The request then has no more to do than to return an empty body. Raise ``HandoverNotSupported``
    when the server keeps its socket to itself, and ``OSError`` when the client has gone or no
    descriptor is left; in the first case nothing has been sent.

    A view has no ``start_response``: with ``None`` the socket is taken from under the server, and
    what the server sends later as the response of the request goes nowhere.
    """
    connection = environ.get(CONNECTION)
    if connection is not None:
        native: _socket.socket = connection.hand_over(headers, status)
        return native
    if start_response is None:
        sock = _handover_in_view(environ)(environ, headers)
    else:
        sock = _handover_of(environ, start_response)(environ, start_response, headers, status)
    sock.settimeout(0)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        # Frames are small and wait for nothing: Nagle's algorithm would delay every second one.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def server_of(environ: WSGIEnvironment) -> str:
    """Return the kind of server that a request came to, for the doctor."""
    if CONNECTION in environ:
        return 'run_wsserver'
    return 'uwsgi' if 'uwsgi' in sys.modules else 'wsgi'


Handover = Callable[['WSGIEnvironment', 'StartResponse', Headers, str], _socket.socket]
HandoverInView = Callable[['WSGIEnvironment', Headers], _socket.socket]


def check_supported(environ: WSGIEnvironment, start_response: StartResponse | None) -> None:
    """Raise ``HandoverNotSupported`` if :func:`take_socket` would, before any work is done."""
    if CONNECTION in environ:
        return
    if start_response is None:
        _handover_in_view(environ)
        return
    handover = _handover_of(environ, start_response)
    if handover is _from_uwsgi:
        _refuse_https_socket(environ)
        _refuse_by_options()
    elif handover is _from_pywsgi:
        _refuse_tls_of_gevent(start_response)


def _handover_of(environ: WSGIEnvironment, start_response: StartResponse) -> Handover:
    if 'uwsgi' in sys.modules:
        return _from_uwsgi
    server = getattr(start_response, '__self__', None)
    if hasattr(server, 'request_handler'):
        return _from_wsgiref
    pywsgi = sys.modules.get('gevent.pywsgi')
    if pywsgi is not None and isinstance(server, pywsgi.WSGIHandler):
        return _from_pywsgi
    # Middleware may have put its own in the server's place. Then the request tells which it is.
    if _connection_behind(_reader_of(environ)) is None:
        raise HandoverNotSupported(f'{_NOT_SUPPORTED} {_what_came(start_response)}')
    _handover_in_view(environ)
    return _from_under_middleware


def _what_came(start_response: StartResponse) -> str:
    """Return a sentence that lets a project find the middleware that hides its server."""
    kind: Any = start_response if hasattr(start_response, '__qualname__') else type(start_response)
    return (
        f'If it is one of them, WSGI middleware hides it: start_response() is '
        f'{kind.__module__}.{kind.__qualname__}; put ws4redis outside that middleware.'
    )


def _handover_in_view(environ: WSGIEnvironment) -> HandoverInView:
    if 'uwsgi' in sys.modules:
        _refuse_https_socket(environ)
        _refuse_by_options()
        return _from_under_uwsgi
    connection = _connection_behind(_reader_of(environ))
    if connection is None:
        raise HandoverNotSupported(_NOT_SUPPORTED)
    if hasattr(connection, 'cipher'):
        raise HandoverNotSupported(
            'This server holds the TLS of its connections itself, so it cannot hand over its '
            'sockets. Let a proxy do the TLS.'
        )
    return _from_under_reader


def _answer(headers: Headers, status: str = STATUS) -> bytes:
    lines = [f'HTTP/1.1 {status}', *(f'{name}: {value}' for name, value in headers), '', '']
    return '\r\n'.join(lines).encode('latin-1')


# uWSGI


def _refuse_https_socket(environ: WSGIEnvironment) -> None:
    options = sys.modules['uwsgi'].opt
    if environ.get('HTTPS') == 'on' and 'https-socket' in options:
        raise HandoverNotSupported(
            'uWSGI cannot hand over a socket of --https-socket, whose TLS lives in the request. '
            'Use --https, or a proxy such as NGINX, instead.'
        )


def _from_uwsgi(
    environ: WSGIEnvironment, start_response: StartResponse, headers: Headers, status: str
) -> _socket.socket:
    _refuse_https_socket(environ)
    # Duplicated, it stays open when uWSGI closes its own descriptor at the request's end. What
    # needs descriptors comes first: it fails when they run out, and then another answer is due.
    server_fd = sys.modules['uwsgi'].connection_fd()
    fd = os.dup(server_fd)
    try:
        _forget_in_gevent(server_fd)
        write = start_response(status, list(headers))
        # Sends the headers now, before the loop may send frames.
        write(b'')
        return _socket.socket(-1, socket.SOCK_STREAM, 0, fd)
    except BaseException:
        os.close(fd)
        raise


def _refuse_by_options() -> None:
    concern = fatal_concern(sys.modules['uwsgi'].opt)
    if concern is not None:
        raise HandoverNotSupported(str(concern))


def _from_under_uwsgi(environ: WSGIEnvironment, headers: Headers) -> _socket.socket:
    """Take the socket while uWSGI goes on with the request, and give it /dev/null instead.

    uWSGI writes the response of the view there, and closes no more than that.
    """
    # Unlike uwsgi.connection_fd() this is bound to the request, whichever greenlet calls.
    server_fd: int = environ['wsgi.input'].fileno()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        sock = _socket.socket(fileno=os.dup(server_fd))
        try:
            _forget_in_gevent(server_fd)
            sock.sendall(_answer(headers))
            os.dup2(null, server_fd, inheritable=False)
        except BaseException:
            sock.close()
            raise
    finally:
        os.close(null)
    return sock


def _forget_in_gevent(fd: int) -> None:
    """Take a descriptor out of the poller of gevent's loop, if that has it.

    The loop reckons with epoll forgetting a descriptor when it is closed. With a duplicate open it
    does not: events on the websocket would wake gevent's loop for nothing, and make it build its
    poller anew.
    """
    if runs_under_gevent():
        _unregister_in_gevent(fd)


def _unregister_in_gevent(fd: int) -> None:
    import gevent

    # Closing the object closes its descriptor, so it gets a duplicate.
    poller = original('select', 'epoll').fromfd(os.dup(gevent.get_hub().loop.fileno()))
    with contextlib.closing(poller), contextlib.suppress(OSError):
        poller.unregister(fd)


# wsgiref: runserver and LiveServerTestCase


def _from_wsgiref(
    environ: WSGIEnvironment, start_response: StartResponse, headers: Headers, status: str
) -> _socket.socket:
    handler: Any = start_response.__self__  # type: ignore[attr-defined]
    connection: socket.socket = handler.request_handler.connection
    _refuse_early_data(handler.request_handler.rfile, connection)
    # wsgiref refuses Connection and Upgrade in the headers of an application (PEP 3333 reserves
    # them for the server), so write the answer here and mark the headers as sent.
    handler.status = status
    handler.headers = handler.headers_class(list(headers))
    handler.headers_sent = True
    handler.request_handler.close_connection = True
    connection.sendall(_answer(headers, status))
    # Detached, the server's own object has no descriptor left that it could shut down or close.
    return _socket.socket(fileno=connection.detach())


# gevent's pywsgi, and the standalone server, which is built on it


def _refuse_tls_of_gevent(start_response: StartResponse) -> None:
    ssl = sys.modules.get('gevent.ssl')
    if ssl is not None and isinstance(_handler_of(start_response).socket, ssl.SSLSocket):
        raise HandoverNotSupported(
            "gevent's pywsgi cannot hand over a TLS socket, which belongs to its greenlet. "
            'Use manage.py run_wsserver --certfile, or a proxy such as NGINX, instead.'
        )


def _handler_of(start_response: StartResponse) -> Any:
    return start_response.__self__  # type: ignore[attr-defined]


def _from_pywsgi(
    environ: WSGIEnvironment, start_response: StartResponse, headers: Headers, status: str
) -> _socket.socket:
    handler = _handler_of(start_response)
    connection = handler.socket
    _refuse_early_data(handler.rfile, connection)
    # pywsgi frames the body of any response to HTTP/1.1, so the answer is written here.
    handler.status = status.encode()
    handler._orig_status = status
    handler.code = int(status[:3])
    handler.headers_sent = True
    handler.close_connection = True
    connection.sendall(_answer(headers, status))
    sock = _detach(connection)
    _unregister_in_gevent(sock.fileno())
    return sock


# From inside a view: wsgiref, pywsgi, and others that read requests by socket.makefile()


def _reader_of(environ: WSGIEnvironment) -> Any:
    stream: Any = environ.get('wsgi.input')
    # Django's development server limits the stream to the length of the body.
    return getattr(getattr(stream, '_read', None), '__self__', stream)


def _connection_behind(reader: Any) -> Any:
    """Return the object of the request's socket, ``None`` where the server hides it."""
    raw: Any = getattr(reader, 'raw', None)
    if isinstance(raw, socket.SocketIO):
        return raw._sock  # type: ignore[attr-defined]
    # TLS of the standalone server.
    return getattr(raw, 'tls_connection', None)


def _from_under_reader(
    environ: WSGIEnvironment, headers: Headers, status: str = STATUS
) -> _socket.socket:
    """Take the socket while the server goes on with the request, and leave it an empty shell."""
    reader = _reader_of(environ)
    connection = _connection_behind(reader)
    _refuse_early_data(reader, connection)
    connection.sendall(_answer(headers, status))
    sock = _detach(connection)
    _forget_in_gevent(sock.fileno())
    # A hack, since the server holds this very object and would log an error when it finds no
    # descriptor in it. To /dev/null, as in uWSGI, Python cannot send: that is no socket.
    connection.__class__ = _shell_of(type(connection))  # type: ignore[arg-type]
    return sock


def _from_under_middleware(
    environ: WSGIEnvironment, start_response: StartResponse, headers: Headers, status: str
) -> _socket.socket:
    sock = _from_under_reader(environ, headers, status)
    # The rest of the response is discarded, but the server needs one. Headers of a connection
    # would be refused.
    start_response(status, [])
    return sock


def _refuse_early_data(reader: Any, connection: Any) -> None:
    # What the client sent too early would stay in the server's buffer, and be missed ever after. A
    # client has to wait for the answer (RFC 6455, section 4.1), so this one is broken.
    connection.settimeout(0)
    if reader.peek(1):
        raise HandshakeError(400, 'The client sent data before the handshake was answered.')
    connection.settimeout(None)


def _detach(connection: Any) -> _socket.socket:
    """Take the socket out of the server's object, which has none afterwards."""
    # A TLS connection of the standalone server goes on with the loop as its own kind of socket.
    hand_over = getattr(connection, 'hand_over', None)
    if hand_over is not None:
        sock: _socket.socket = hand_over()
        return sock
    return _socket.socket(fileno=connection.detach())


@cache
def _shell_of(socket_class: type[Any]) -> type[Any]:
    """Return the class of sockets that swallow what is sent, and at whose end one always is."""

    class Shell(socket_class):  # type: ignore[misc]
        __slots__ = ()

        def send(self, data: Any, flags: int = 0) -> int:
            return memoryview(data).nbytes

        def sendall(self, data: Any, flags: int = 0) -> None:
            pass

        def recv(self, size: int, flags: int = 0) -> bytes:
            return b''

        def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
            return 0

        def shutdown(self, how: int) -> None:
            pass

    return Shell
