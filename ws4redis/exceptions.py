"""The tree of errors.

WebSocketError
├── HandshakeError         the peer's handshake is refused: carries the HTTP answer
│   └── UpgradeRequiredError   it speaks another version of the protocol
├── ProtocolError          the peer broke the protocol: carries the close code
│   └── MalformedCommand       its frame holds no commands of the client protocol
├── ClientError            a command of the client protocol is answered with an error
├── ConnectionClosed       our caller used a websocket that is closed: carries the close code
└── HandoverNotSupported   the WSGI server cannot give up its socket
"""

from __future__ import annotations

from collections.abc import Mapping


class WebSocketError(Exception):
    """Base of all errors of this package."""


class HandshakeError(WebSocketError):
    """Refuse a handshake with an HTTP response.

    ``status`` is the HTTP status code, ``body`` a sentence for the client, ``headers`` are added
    to the response. With a text alone, as projects raised it with 0.6, the status is the usual one.
    """

    usual_status = 400

    def __init__(
        self, status: int | str, body: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        if isinstance(status, str):
            body, status = status, self.usual_status
        body = body or ''
        super().__init__(f'{status}: {body}')
        self.status = status
        self.body = body
        self.headers = dict(headers or {})


class UpgradeRequiredError(HandshakeError):
    """Refuse a handshake of a version of the protocol that is not spoken."""

    usual_status = 426


class ProtocolError(WebSocketError):
    """Tell that the peer violated the protocol.

    ``close_code`` is the code that the close frame carries (RFC 6455, section 7.4.1).
    """

    def __init__(self, close_code: int, reason: str) -> None:
        super().__init__(f'{close_code}: {reason}')
        self.close_code = close_code
        self.reason = reason


class MalformedCommand(ProtocolError):
    """Tell that a frame holds something else than commands of the client protocol.

    It carries the code with which that protocol ends a connection, and clients stay away.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(3501, reason)


class ClientError(WebSocketError):
    """Answer a command of the client protocol with an error.

    Code of a project raises it in ``WS4REDIS_RPC``; ``code`` is then 400 to 1999. Below are the
    protocol's own errors, and from 3000 on the codes that end the connection. ``is_temporary``
    tells clients to try again.
    """

    def __init__(self, code: int, message: str = '', *, is_temporary: bool = False) -> None:
        super().__init__(f'{code}: {message}')
        self.code = int(code)
        self.message = message
        self.is_temporary = is_temporary

    @property
    def disconnects(self) -> bool:
        return self.code >= 3000


class ConnectionClosed(WebSocketError):
    """Tell a caller that the websocket is closed.

    ``code`` and ``reason`` are those of the close frame, 1006 where there was none (RFC 6455,
    section 7.1.5).
    """

    def __init__(self, code: int, reason: str = '') -> None:
        super().__init__(f'websocket is closed: {code} {reason}'.rstrip())
        self.code = code
        self.reason = reason


class HandoverNotSupported(WebSocketError):
    """Tell that the WSGI server cannot hand over its socket."""


# Names of 0.6.
FrameTooLargeException = ProtocolError
SSLRequiredError = HandshakeError
