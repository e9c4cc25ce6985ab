"""The websocket of a connection of the client protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ws4redis.hub.clients.wire import ClientWire
from ws4redis.hub.websocket import WebSocket
from ws4redis.protocol.client.codes import DisconnectCode, UnsubscribeCode
from ws4redis.protocol.frames import CloseCode

if TYPE_CHECKING:
    from ws4redis.hub.channel import Channel, Gap
    from ws4redis.hub.clients.connection import ClientConnection
    from ws4redis.hub.output import Chunk

# What the loop closes websockets with, in the words of the protocol. Clients come back.
_CODES: Final = {
    CloseCode.GOING_AWAY: DisconnectCode.SHUTDOWN,
    CloseCode.SERVICE_RESTART: DisconnectCode.SHUTDOWN,
    CloseCode.INTERNAL_ERROR: DisconnectCode.SERVER_ERROR,
    CloseCode.TRY_AGAIN_LATER: DisconnectCode.SLOW,
}


class ClientWebSocket(WebSocket):
    """Tell a connection what the hub tells its peer."""

    __slots__ = ()

    receiver: ClientConnection
    # Clients tell values from text.
    wants_events = True

    def send(
        self, data: bytes | memoryview, *, messages: int = 0, shared: Chunk | None = None
    ) -> None:
        if self.receiver.has_unsent:
            # Nothing overtakes a reply: a publication would be of a channel of which the client
            # does not know yet that it has joined it.
            self.receiver.send_unsent()
        super().send(data, messages=messages, shared=shared)

    def note_sent(self) -> None:
        """Let publications be sent directly again: no reply is left that they could overtake."""
        self._update_direct()

    def _update_direct(self) -> None:
        if self.receiver.has_unsent:
            self.direct = False
        else:
            super()._update_direct()

    def send_ping(self, payload: bytes = b'') -> None:
        if isinstance(self.wire, ClientWire):
            self.send(self.wire.encode_ping())
            self.receiver.renew_ticket()

    def gap(self, channel: Channel, gap: Gap) -> None:
        self.receiver.gap(channel, gap)

    def unsubscribe(self, channel: str, code: int = 0, reason: str = '') -> None:
        """End the subscription to a channel, given by its full name; the client is told."""
        self.receiver.unsubscribe(channel, code or UnsubscribeCode.SERVER, reason)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = '') -> None:
        if reason == 'no answer to a ping':
            code = DisconnectCode.NO_PONG
        super().close(_CODES.get(code, code), reason)  # type: ignore[call-overload]
