"""What the connections of the client protocol of a process share."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from ws4redis.broker.client_names import ClientName, full_name, parse_client_name
from ws4redis.hub.clients.options import ClientOptions
from ws4redis.hub.clients.presence import ClientPresence
from ws4redis.hub.clients.project import Project, Visitor
from ws4redis.hub.clients.sessions import Sessions

if TYPE_CHECKING:
    from ws4redis.hub.clients.connection import ClientConnection
    from ws4redis.hub.hub import Hub

LOG_INTERVAL_SECONDS = 60.0


class ClientService:
    """The hub, the project's code and the bounds, for all connections."""

    def __init__(self, hub: Hub, project: Project, options: ClientOptions | None = None) -> None:
        self.hub = hub
        self.loop = hub.loop
        self.project = project
        self.options = options or ClientOptions()
        self.presence = ClientPresence(hub)
        self.sessions = Sessions(hub, self.options.prefix)
        self._logged_at: dict[str, float] = {}
        # Those that have something to send at the end of the turn.
        self._unsent: list[ClientConnection] = []
        self._has_turn_end = False

    def send_at_turn_end(self, connection: ClientConnection) -> None:
        """Let a connection send what it is told in this turn, when that is over.

        Who comes back joins several channels in a turn: to send costs more than all the rest of it.
        """
        self._unsent.append(connection)
        if not self._has_turn_end:
            self._has_turn_end = True
            # Behind the hub's own, which let peers join.
            self.loop.at_turn_end(self._send_unsent)

    def _send_unsent(self) -> bool:
        has_consequences = False
        try:
            while self._unsent:
                connection = self._unsent.pop()
                connection.send_unsent()
                # Who ended by it leaves channels, and what is queued now counts with all queues:
                # the hub sees to both at the end of a turn, and has done so in this one.
                if not connection.is_alive or connection.websocket.queued_bytes:
                    has_consequences = True
        finally:
            if self._unsent:
                # The loop logs what one has raised, and the others come in the next turn.
                self.loop.call_soon(self._send_unsent)
        return has_consequences

    @property
    def ping_seconds(self) -> float | None:
        return self.hub.options.ping_interval_seconds

    def parse_name(self, name: str) -> ClientName:
        """Take the name of a channel apart; raise ``ValueError`` if it is none, or too long."""
        if not name:
            raise ValueError('a channel has no name')
        if len(name.encode()) > self.options.max_name_bytes:
            raise ValueError('the name of a channel is too long')
        return parse_client_name(name)

    def channel_of(self, visitor: Visitor, name: ClientName) -> str | None:
        """Return a channel's name in Redis; None where the visitor has none of that kind."""
        identity = visitor.identity
        return full_name(
            name, user=identity.user, session=identity.session, prefix=self.options.prefix
        )

    def seconds_until(self, expires: float) -> float:
        """Return how long something lasts that ends at a time of the clock on the wall."""
        return max(0.0, expires - time.time())

    def may_log(self, limit: str) -> bool:
        """Tell whether to log that a client exceeds a limit: once a minute for each limit."""
        now = self.loop.timers.clock()
        if now - self._logged_at.get(limit, -math.inf) < LOG_INTERVAL_SECONDS:
            return False
        self._logged_at[limit] = now
        return True
