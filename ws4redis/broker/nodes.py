"""Connections to the nodes of a Cluster, which tell that nothing was sent from all else."""

from __future__ import annotations

from typing import Any

import redis
from redis.exceptions import AuthenticationError

from ws4redis.broker.slots import fetch_slots
from ws4redis.settings.topologies import Target

_classes: dict[tuple[type[Any], type[Any]], type[Any]] = {}


def with_addition(addition: type[Any], connection_class: type[Any]) -> type[Any]:
    """Return a class of connections as the given one, with what another class adds."""
    bases = (addition, connection_class)
    if bases not in _classes:
        _classes[bases] = type(connection_class.__name__, bases, {})
    return _classes[bases]


class NotConnected(redis.ConnectionError):
    """The node could not be reached, so that no command was sent."""


class _Node:
    """What is added to redis-py's blocking connections."""

    def connect(self: Any) -> None:
        try:
            super().connect()  # type: ignore[misc]
        except AuthenticationError:
            raise
        except (redis.ConnectionError, redis.TimeoutError) as exc:
            raise NotConnected(str(exc)) from exc


class _AsyncNode:
    """The same for those of redis-py's asyncio."""

    async def connect(self: Any) -> None:
        try:
            await super().connect()  # type: ignore[misc]
        except AuthenticationError:
            raise
        except (redis.ConnectionError, redis.TimeoutError) as exc:
            raise NotConnected(str(exc)) from exc


class _ToSlot:
    """A connection to the master that a key's slot has when it is made."""

    def __init__(self: Any, *, target: Target, key: bytes, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._target = target
        self._key = key

    def _connect(self: Any) -> Any:
        node = fetch_slots(self._target).owner_of(self._key)
        if node is None:
            raise redis.ConnectionError(f'nobody in the Cluster serves the slot of {self._key!r}')
        self.host, self.port = node
        return super()._connect()  # type: ignore[misc]


def to_slot(connection_class: type[Any]) -> type[Any]:
    """Return a class of connections as the given one that lead to the slot of a key."""
    return with_addition(_ToSlot, connection_class)


def to_node(connection_class: type[Any]) -> type[Any]:
    """Return a class of connections as the given one that raises ``NotConnected``."""
    addition = _AsyncNode if 'asyncio' in connection_class.__module__ else _Node
    return with_addition(addition, connection_class)
