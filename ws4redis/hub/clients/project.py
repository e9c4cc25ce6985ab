"""What connections of the client protocol need of the layers above: policy and project code."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from ws4redis.broker.client_names import ClientName
from ws4redis.broker.history import Page, PageRequest
from ws4redis.hub.identity import Identity


class Visitor:
    """Who is at the other end, and what the project's code needs to see of the handshake.

    ``record`` is the project's own; the loop passes it on. ``publishes`` are channels, by their
    full names, on which the websocket's URL lets the client publish.
    """

    __slots__ = ('identity', 'is_by_token', 'publishes', 'record')

    def __init__(
        self, identity: Identity, record: Any = None, publishes: tuple[str, ...] = ()
    ) -> None:
        self.identity = identity
        # Whether a token says who it is, rather than the cookies of the handshake.
        self.is_by_token = False
        self.record = record
        self.publishes = publishes


class Grant(NamedTuple):
    """The answer of the policy; ``expires`` is the time at which a granted subscription ends."""

    is_allowed: bool
    expires: float | None = None


class Project(Protocol):
    """Decide and do what the loop cannot.

    Only :meth:`decide`, :meth:`needs_identifying` and :meth:`ticket` are called in the loop; the
    rest may block, and raises ``ClientError`` for what a client is to be answered.
    """

    def decide(self, visitor: Visitor, verb: str, name: ClientName, token: str) -> Grant | None:
        """Say at once whether a client may subscribe to or publish on a channel.

        None: it takes a call of :meth:`may`. ``verb`` is ``'subscribe'`` or ``'publish'``.
        """

    def may(self, visitor: Visitor, verb: str, name: ClientName, token: str) -> Grant: ...

    def needs_identifying(self, visitor: Visitor, token: str) -> bool:
        """Say at once whether :meth:`identify` has something to find out."""

    def identify(self, visitor: Visitor, token: str) -> Identity:
        """Return who a client is, by the token that it shows, else by its handshake."""

    def ticket(self, identity: Identity) -> str | None:
        """Return what spares a client that comes back the look-ups of its handshake."""

    def call(self, visitor: Visitor, method: str, data: Any) -> Any:
        """Run the project's code for a method, and return its result."""

    def read_page(self, request: PageRequest) -> Page: ...
