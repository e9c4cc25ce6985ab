"""Which connections are open in whose name. All of this is used in the loop alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeAlias, TypeVar

from ws4redis.hub.identity import Identity

T = TypeVar('T')

# Up to here a tuple is as fast as a dictionary, and much smaller.
FEW = 8


class Connection(Protocol):
    """What is open in somebody's name: a websocket, an event stream."""

    identity: Identity | None

    def end(self, code: int, reason: str) -> object:
        """End it, since what was granted has ended; nothing more that is private goes out."""


C = TypeVar('C', bound=Connection)

# Few things in a tuple, many in a dictionary, so that adding and removing cost the same.
Bag: TypeAlias = 'tuple[T, ...] | dict[T, None]'


def _with(bag: Bag[T], item: T) -> Bag[T]:
    if isinstance(bag, tuple):
        if item in bag:
            return bag
        if len(bag) < FEW:
            return (*bag, item)
        bag = dict.fromkeys(bag)
    bag[item] = None
    return bag


def _without(bag: Bag[T], item: T) -> Bag[T]:
    if isinstance(bag, tuple):
        return tuple(other for other in bag if other != item)
    bag.pop(item, None)
    return bag or ()


class Identities(Generic[C]):
    """The connections of a process by user and by session.

    To add and to remove one costs the same, however many there are.
    """

    def __init__(self) -> None:
        # The very object that connections share, and those connections.
        self._connections: dict[Identity, tuple[Identity, Bag[C]]] = {}
        self._by_user: dict[str, Bag[Identity]] = {}
        self._by_user_id: dict[str, Bag[Identity]] = {}
        self._by_session: dict[str, Bag[Identity]] = {}

    def __iter__(self) -> Iterator[Identity]:
        return iter(list(self._connections))

    def __len__(self) -> int:
        return len(self._connections)

    def __contains__(self, identity: Identity) -> bool:
        return identity in self._connections

    def add(self, connection: C, identity: Identity) -> bool:
        """Note in whose name a connection is open; tell whether it is the first of this name."""
        if identity.is_nobody and identity.expires is None:
            return False
        shared, connections = self._connections.get(identity, (identity, ()))
        is_first = not connections
        self._connections[identity] = (shared, _with(connections, connection))
        connection.identity = shared
        if is_first:
            for index, name in self._indexes(shared):
                index[name] = _with(index.get(name, ()), shared)
        return is_first

    def remove(self, connection: C) -> None:
        """Forget a connection."""
        identity, connection.identity = connection.identity, None
        if identity is None or identity not in self._connections:
            return
        connections = _without(self._connections[identity][1], connection)
        if connections:
            self._connections[identity] = (identity, connections)
            return
        del self._connections[identity]
        for index, name in self._indexes(identity):
            rest = _without(index[name], identity)
            if rest:
                index[name] = rest
            else:
                del index[name]

    def _indexes(self, identity: Identity) -> Iterator[tuple[dict[str, Bag[Identity]], str]]:
        if identity.user is not None:
            yield self._by_user, identity.user
        if identity.user_id is not None:
            yield self._by_user_id, identity.user_id
        if identity.session_digest is not None:
            yield self._by_session, identity.session_digest

    def matching(
        self, *, user: str | None = None, user_id: str | None = None, session: str | None = None
    ) -> list[Identity]:
        """Return the identities of a user, by name or primary key, and of a session, by digest.

        Where a user and a session are given, both have to be right.
        """
        of_user = {
            identity: None
            for index, name in ((self._by_user, user), (self._by_user_id, user_id))
            if name is not None
            for identity in index.get(name, ())
        }
        if session is None:
            return list(of_user)
        of_session = self._by_session.get(session, ())
        if user is None and user_id is None:
            return list(of_session)
        return [identity for identity in of_session if identity in of_user]

    def connections_of(self, identities: Iterable[Identity]) -> list[C]:
        """Return the connections that are open in some names."""
        return [
            connection
            for identity in identities
            for connection in self._connections.get(identity, (identity, ()))[1]
        ]
