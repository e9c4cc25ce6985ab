"""The life of one handler: which of its methods is called when, wherever it runs."""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING, Any

from ws4redis.handlers.handler import DEFAULT_NAMESPACE, Connection, WebSocketHandler
from ws4redis.protocol.frames import Opcode
from ws4redis.settings.hooks import call

if TYPE_CHECKING:
    from django.http import HttpRequest


@cache
def takes_close_code(handler_class: type[Any]) -> bool:
    """Tell whether ``on_close`` of a class takes the close code; old ones do not."""
    try:
        inspect.signature(handler_class.on_close).bind(None, 1000)
    except TypeError:
        return False
    return True


class HandlerSession:
    """One handler with its websocket.

    Calls must come one at a time, in order. Exceptions of the handler come through, except that
    the caller must still call :meth:`end` then.
    """

    __slots__ = ('_due_end', '_opened', 'handler')

    def __init__(
        self,
        handler_class: type[WebSocketHandler],
        request: HttpRequest,
        kwargs: dict[str, str],
        connection: Connection,
    ) -> None:
        # Bound before __init__, so that a handler may use its request there.
        self.handler = handler_class.__new__(handler_class)
        self.handler.request = request
        self.handler.namespace = kwargs.get('namespace') or DEFAULT_NAMESPACE
        self.handler.kwargs = kwargs
        self.handler._connection = connection
        # Whoever ends it first takes it out: when a handshake times out, two may try.
        self._due_end: list[bool] = []
        self._opened = False

    def connect(self) -> None:
        """Ask the handler whether it takes the websocket; it may raise ``PermissionDenied``."""
        self.handler.__init__()  # type: ignore[misc]
        call('on_connect()', self.handler.on_connect)
        self._due_end.append(True)

    def receive(self, opcode: Opcode, payload: bytes) -> None:
        """Give a message to the handler."""
        message: Any = payload.decode() if opcode == Opcode.TEXT else payload
        if not self._opened:
            self._opened = True
            if call('on_open()', self.handler.on_open, message) is not None:
                return
        call('on_message()', self.handler.on_message, message)

    def end(self, code: int) -> None:
        """Tell the handler that the websocket is closed, if it ever took it, and once."""
        try:
            self._due_end.pop()
        except IndexError:
            return
        handler_class: Any = type(self.handler)
        if takes_close_code(handler_class):
            call('on_close()', self.handler.on_close, code)
        else:
            call('on_close()', self.handler.on_close)
