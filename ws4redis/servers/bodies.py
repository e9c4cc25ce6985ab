"""Bodies of requests and of responses, where a server of WSGI or the native door has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ws4redis.exceptions import HandshakeError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

TEXT: Final = ('Content-Type', 'text/plain; charset=utf-8')


class Response(NamedTuple):
    """An answer over HTTP."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def body_length(announced: str | None, encoding: str | None, max_bytes: int) -> int:
    """Return how long a body is, by the headers; raise ``HandshakeError`` 400, 411 or 413."""
    if encoding is not None or announced is None or not announced:
        raise HandshakeError(411, 'The request needs a Content-Length.')
    if not (announced.isascii() and announced.isdigit()):
        raise HandshakeError(400, 'The Content-Length of the request is no number.')
    # Python refuses to make a number of very many digits.
    if len(announced.lstrip('0')) > len(str(max_bytes)) or int(announced) > max_bytes:
        raise HandshakeError(413, f'The body of the request is larger than {max_bytes} bytes.')
    return int(announced)


def read_body(environ: WSGIEnvironment, max_bytes: int) -> bytes:
    """Read the body of a request; raise ``HandshakeError`` 400, 411 or 413."""
    length = body_length(
        environ.get('CONTENT_LENGTH'), environ.get('HTTP_TRANSFER_ENCODING'), max_bytes
    )
    try:
        body: bytes = environ['wsgi.input'].read(length)
    except OSError:
        # uWSGI and others raise it for a client that leaves or takes too long.
        body = b''
    if len(body) != length:
        raise HandshakeError(400, 'The body of the request did not come.')
    return body
