"""The class from which a project derives its handlers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from django.core.serializers.json import DjangoJSONEncoder

from ws4redis.exceptions import ConnectionClosed
from ws4redis.protocol.frames import CloseCode, Opcode, is_sendable_close_code
from ws4redis.publishing.publisher import RedisPublisher

if TYPE_CHECKING:
    from django.http import HttpRequest

Message = str | bytes

DEFAULT_NAMESPACE = 'default'


class Connection(Protocol):
    """What a handler needs of its websocket, wherever the two run. Safe in any thread."""

    @property
    def closed_with(self) -> tuple[int, str] | None:
        """The close code and the reason, None while the websocket is open."""

    def send(self, payload: bytes, opcode: Opcode) -> None: ...

    def close(self, code: int, reason: str) -> None: ...

    def wait_closed(self, timeout_seconds: float | None) -> bool: ...


class WebSocketHandler:
    """React to one websocket: it connects, sends, leaves.

    There is one instance per websocket. Its methods are called one at a time and in the order of
    what happened, mostly each in another thread. They may block: use the ORM, Redis, other
    services. An exception is logged and closes this websocket, and no other, with 1011.

    ``request`` is the request of the handshake, with ``user`` and ``session`` as in a view;
    ``namespace`` the one that the URL chose; ``kwargs`` the named groups of the URL.
    """

    request: HttpRequest
    namespace: str = DEFAULT_NAMESPACE
    kwargs: dict[str, str]
    _connection: Connection

    # Called by ws4redis; for subclasses to override

    def on_connect(self) -> None:
        """Take a handshake that is not answered yet.

        Raise Django's ``PermissionDenied`` to refuse it with 403; then no other method is called.
        Messages that are sent here go out as soon as the websocket is open.
        """

    def on_open(self, message: Message) -> Any:
        """Take the first message.

        ``on_message`` gets the same message too, unless something else than None is returned.
        """

    def on_message(self, message: Message) -> Any:
        """Take a message: ``str`` where it was sent as text, ``bytes`` where as binary."""

    def on_close(self, code: int) -> Any:
        """Take the end, called once whatever ended the websocket.

        ``code`` is the close code (RFC 6455, section 7.1.5): 1000 or 1001 for most, 1006 where the
        client sent no close frame. A method without this argument is called without it.
        """

    # For subclasses to call, in any thread

    def send(self, message: Message) -> None:
        """Send a message: ``str`` as text, bytes-like as binary.

        It is queued and sent as the client takes it; ``WS4REDIS_MAX_QUEUE_BYTES`` bounds the queue.
        Raise ``ConnectionClosed`` when the websocket is closed, ``TypeError`` for another type.
        """
        if isinstance(message, str):
            self._send(message.encode(), Opcode.TEXT)
        elif isinstance(message, bytes | bytearray | memoryview):
            self._send(bytes(message), Opcode.BINARY)
        else:
            raise TypeError(
                f'a message is str or bytes, not {type(message).__name__}; see also send_json()'
            )

    def send_json(self, value: Any) -> None:
        """Send a value as JSON; dates, decimals and UUIDs become strings as in ``JsonResponse``."""
        self._send(json.dumps(value, cls=DjangoJSONEncoder).encode(), Opcode.TEXT)

    def _send(self, payload: bytes, opcode: Opcode) -> None:
        closed_with = self._connection.closed_with
        if closed_with is not None:
            raise ConnectionClosed(*closed_with)
        self._connection.send(payload, opcode)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = '') -> None:
        """Close the websocket, after what was sent before; a second time does nothing.

        ``code`` is 1000 or another that may be sent, such as your own of 3000 to 4999; ``reason``
        at most 123 bytes. Raise ``ValueError`` for a code that may not be sent, ``TypeError`` for
        a reason that is no text.
        """
        if not is_sendable_close_code(code):
            raise ValueError(f'close code {code} may not be sent (RFC 6455, section 7.4)')
        # It would fail too late, where what others have sent goes out as well.
        if not isinstance(reason, str):
            raise TypeError(f'a reason is str, not {type(reason).__name__}')
        self._connection.close(code, reason)

    @property
    def is_closed(self) -> bool:
        """Tell whether the websocket is closed, by whomever."""
        return self._connection.closed_with is not None

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Wait until the websocket is closed, at most ``timeout`` seconds; tell whether it is.

        In a method that goes on for long, this is a ``time.sleep`` that ends with the websocket.
        """
        return self._connection.wait_closed(timeout)

    def publish(
        self,
        message: Message,
        *,
        facility: str,
        broadcast: bool = False,
        groups: list[Any] | tuple[Any, ...] = (),
        users: list[Any] | tuple[Any, ...] = (),
        sessions: list[Any] | tuple[Any, ...] = (),
        expire: int | None = None,
    ) -> None:
        """Publish a message through Redis; the arguments are those of ``RedisPublisher``.

        ``SELF`` in a list means this websocket's user, groups or session. Raise redis-py's
        ``ConnectionError`` when Redis cannot be reached.
        """
        RedisPublisher(
            facility=facility,
            broadcast=broadcast,
            groups=groups,
            users=users,
            sessions=sessions,
            request=self.request,
        ).publish_message(message, expire)
