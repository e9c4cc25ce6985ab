"""The stream of a connection of the client protocol, where its websocket is blocked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ws4redis.hub.clients.websocket import ClientWebSocket
from ws4redis.hub.clients.wire import client_wire
from ws4redis.protocol.client.streams import ClientStreamConnection, StreamKind

if TYPE_CHECKING:
    from ws4redis.hub.clients.connection import ClientConnection
    from ws4redis.protocol.connection import ServerConnection


class ClientStream(ClientWebSocket):
    """Tell a connection what the hub tells its peer; what the client says comes in requests."""

    __slots__ = ()

    status = 200

    def __init__(self, connection: ClientConnection, kind: StreamKind, *, place: Any) -> None:
        service = connection.service
        super().__init__(
            service.hub,
            cast('ServerConnection', ClientStreamConnection(kind.wire)),
            client_wire(kind.wire, service.options.prefix),
            connection,
            echo=True,
            place=place,
        )

    def __repr__(self) -> str:
        return f'<ClientStream fd={self.fd} {self.phase.name}>'
