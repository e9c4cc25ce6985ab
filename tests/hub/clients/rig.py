"""What the tests of the client protocol share: the code of a project, and a client."""

from __future__ import annotations

import json
from typing import Any

from tests.hub.rig import Clock, Home, Peer, answer_to
from tests.websocket_client import CLOSE
from ws4redis.broker.client_names import ClientName
from ws4redis.broker.history import Page, PageRequest
from ws4redis.hub.clients.connection import ClientConnection, ConnectionState
from ws4redis.hub.clients.options import ClientOptions
from ws4redis.hub.clients.project import Grant, Visitor
from ws4redis.hub.clients.service import ClientService
from ws4redis.hub.clients.websocket import ClientWebSocket
from ws4redis.hub.clients.wire import client_wire
from ws4redis.hub.identity import ANONYMOUS, Identity
from ws4redis.protocol.wire import PLAIN


class Project:
    """Code of a project, as the test says."""

    def __init__(self) -> None:
        # None asks :meth:`may`, as for a policy that may block.
        self.decision: Grant | None = Grant(is_allowed=True)
        self.grant = Grant(is_allowed=True)
        self.identities: dict[str, Identity | Exception] = {}
        self.called: list[tuple[str, Any]] = []
        self.error: Exception | None = None

    def decide(self, visitor: Visitor, verb: str, name: ClientName, token: str) -> Grant | None:
        return None if token else self.decision

    def may(self, visitor: Visitor, verb: str, name: ClientName, token: str) -> Grant:
        if self.error is not None:
            raise self.error
        return self.grant

    def needs_identifying(self, visitor: Visitor, token: str) -> bool:
        return bool(token)

    def identify(self, visitor: Visitor, token: str) -> Identity:
        found = self.identities[token]
        if isinstance(found, Exception):
            raise found
        return found

    def ticket(self, identity: Identity) -> str | None:
        return None

    def call(self, visitor: Visitor, method: str, data: Any) -> Any:
        self.called.append((method, data))
        if self.error is not None:
            raise self.error
        return data

    def read_page(self, request: PageRequest) -> Page:
        raise NotImplementedError


class Client:
    """The other end of a connection."""

    def __init__(self, hub: Home, project: Project, *names: str, **options: Any) -> None:
        self.hub = hub
        service = ClientService(hub, project, ClientOptions(**options))
        self.connection = ClientConnection(service, Visitor(ANONYMOUS), names)
        self.peer: Peer = hub.peer(
            receiver=self.connection,
            wire=client_wire(PLAIN, ''),
            websocket_class=ClientWebSocket,
        )
        assert isinstance(self.peer.websocket, ClientWebSocket)
        self.websocket = self.peer.websocket
        self.connection.begin(self.websocket)
        self._last = 1

    def send(self, *commands: Any) -> None:
        """Send commands in one frame."""
        self.peer.send('\n'.join(json.dumps(command) for command in commands))
        self.hub.turn(2)

    def told(self) -> list[Any]:
        """Return what has come, frame by frame."""
        self.hub.turn(2)
        return [
            json.loads(line) for frame in self.peer.messages() for line in str(frame).split('\n')
        ]

    def ask(self, command: str, /, **request: Any) -> Any:
        """Send a command, and return the only reply to it, or the error in it."""
        self._last += 1
        self.send({'id': self._last, command: request})
        (reply,) = self.told()
        assert reply['id'] == self._last
        return reply.get('error') or reply[command]

    def connect(self, token: str = '') -> Client:
        self.ask('connect', token=token)
        assert self.connection.state is ConnectionState.CONNECTED
        return self

    def subscribe(self, channel: str, **request: Any) -> Any:
        """Subscribe to a broadcast channel, and return the reply."""
        self._last += 1
        self.send({'id': self._last, 'subscribe': {'channel': channel, **request}})
        self.confirm()
        return self.told()[-1]

    def confirm(self) -> None:
        """Let Redis confirm all subscriptions; nothing is kept in any channel."""
        self.hub.turn()
        for command in self.hub.redis.commands(0):
            self.hub.redis.reply(answer_to(command), 0)
        self.hub.turn(2)

    def end(self) -> tuple[int, str]:
        """Return code and reason of the close frame that has come."""
        self.hub.turn(2)
        frame = self.peer.frames()[-1]
        assert frame.opcode == CLOSE
        return int.from_bytes(frame.payload[:2], 'big'), frame.payload[2:].decode()


def advance(hub: Home, clock: Clock, seconds: float) -> None:
    clock.advance(seconds)
    hub.turn(3)
