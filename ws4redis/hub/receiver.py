"""Who takes what websockets send."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ws4redis.hub.peer import Peer
    from ws4redis.hub.websocket import WebSocket
    from ws4redis.protocol.frames import Opcode


class ConnectionKind(StrEnum):
    """What a connection is for."""

    CHANNELS = 'channels'
    CLIENT_PROTOCOL = 'client protocol'
    HANDLER = 'handler'
    VIEW = 'view'


class Receiver(Protocol):
    """Takes what websockets send; one object may serve many. Called in the loop: must not block.

    Where it serves no plain websockets, its ``kind`` says what they are for.
    """

    def receive_message(self, websocket: WebSocket, opcode: Opcode, payload: bytes) -> None: ...

    def websocket_drained(self, websocket: WebSocket) -> None:
        """Go on sending, if that waited: all output that was queued has gone out."""

    def websocket_closed(self, websocket: WebSocket, code: int, reason: str) -> None:
        """Take the end; called once, whatever ended the websocket."""


def kind_of(peer: Peer) -> ConnectionKind:
    """Return what a connection is for."""
    receiver = getattr(peer, 'receiver', None)
    kind: ConnectionKind = getattr(receiver, 'kind', ConnectionKind.CHANNELS)
    return kind
