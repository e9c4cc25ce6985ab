"""Connections that lead to the master of a service, as Sentinels name it.

Each time one of them is made, the Sentinels are asked, and what is found must say itself that it is
a master (``ROLE``): Sentinels may be behind, and so may a server that was cut off. What was
connected to a former master is replaced before it is used again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

import redis

from ws4redis.broker.nodes import with_addition
from ws4redis.settings.redis_options import bus_arguments, make_connection
from ws4redis.settings.topologies import Node, Target

logger = logging.getLogger('ws4redis')

Address = tuple[str, int]
# The epoch of the latest failover, whether the master is up, and where it is.
Answer = tuple[int, bool, Address]

CHECK_SECONDS = 1.0
SILENT_SECONDS = 10.0


class NotMaster(redis.ConnectionError):
    """The server that the Sentinels name is not, or no more, a master."""


class Service:
    """A service under Sentinels; ``address`` is where its master was seen last.

    The methods block. Safe among threads.
    """

    def __init__(self, target: Target) -> None:
        self.name = target.service_name
        self.address: Address | None = None
        self._target = target
        self._checked_at = float('-inf')
        self._checking = threading.Lock()
        # When the question was put whose answer the address is.
        self._asked_at = float('-inf')
        self._noting = threading.Lock()
        # Sentinels that did not answer, and until when they are asked only if nobody else does.
        self._silent: dict[Node, float] = {}

    def find(self) -> Address:
        """Return the address of the master; raise ``redis.ConnectionError``.

        All Sentinels are asked, and the one counts that knows of the latest failover.
        """
        asked_at = self._checked_at = time.monotonic()
        answering = [node for node in self._target.nodes if not self._is_silent(node)]
        found = self._ask(answering) or self._ask(self._target.nodes)
        return self._note(asked_at, _latest(self.name, found))

    def _note(self, asked_at: float, address: Address) -> Address:
        with self._noting:
            # Another thread may have asked later, and know already.
            if self.address is None or asked_at >= self._asked_at:
                self.address, self._asked_at = address, asked_at
            return self.address

    @property
    def is_due(self) -> bool:
        """Whether the Sentinels were not asked for a while.

        What was the master may go on for long, and take publications that will be lost.
        """
        return time.monotonic() - self._checked_at > CHECK_SECONDS

    def check(self) -> None:
        """Ask the Sentinels whether the master is where it was, unless another thread does."""
        if self._checking.acquire(blocking=False):
            try:
                self.find()
            except redis.ConnectionError:
                # The connections that are there may do.
                pass
            finally:
                self._checking.release()

    def _is_silent(self, node: Node) -> bool:
        return time.monotonic() < self._silent.get(node, 0.0)

    def _ask(self, nodes: Sequence[Node]) -> list[Answer]:
        found: list[Answer] = []
        for node in nodes:
            try:
                found.append(ask_sentinel(self._target, node))
                self._silent.pop(node, None)
            except (redis.RedisError, OSError) as exc:
                self._silent[node] = time.monotonic() + SILENT_SECONDS
                logger.debug('the Sentinel %s does not tell of %r: %s', node, self.name, exc)
        return found


def _latest(name: str, found: Sequence[Answer]) -> Address:
    if not found:
        raise redis.ConnectionError(f'no Sentinel knows a master of {name!r}')
    _, is_up, address = max(found)
    if not is_up:
        raise redis.ConnectionError(
            f'the Sentinels hold {Node(*address)}, the master of {name!r}, for down'
        )
    return address


def ask_sentinel(target: Target, node: Node) -> Answer:
    """Return what a Sentinel knows: the epoch, whether the master is up, and its address.

    What leads a failover goes on calling the former master so until it is over, although the epoch
    is that of the new one. But asked for the address it names the new one from then on, as the
    others do.
    """
    connection = sentinel_connection(target, node, protocol=2)
    try:
        connection.connect()
        connection.send_command('SENTINEL', 'MASTER', target.service_name)
        flat = [_text(word) for word in connection.read_response()]
        # Behind the epoch, so that it is at least as new.
        connection.send_command('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', target.service_name)
        host, port = [_text(word) for word in connection.read_response()]
    finally:
        connection.disconnect()
    state = dict(zip(flat[::2], flat[1::2], strict=True))
    is_up = 'down' not in state['flags'] or (state['ip'], state['port']) != (host, port)
    return int(state['config-epoch']), is_up, (host, int(port))


def sentinel_connection(target: Target, node: Node, *, protocol: int) -> Any:
    """Return a connection to a Sentinel, not connected yet."""
    arguments = bus_arguments(target.sentinel_arguments)
    connection_class = arguments.pop('connection_class')
    arguments |= {'host': node.host, 'port': node.port, 'protocol': protocol}
    return make_connection(connection_class, arguments)


def check_role(service: Service, role: Any) -> None:
    """Raise ``NotMaster`` unless the reply to ``ROLE`` is that of a master."""
    if role[0] not in {b'master', 'master'}:
        assert service.address is not None
        raise NotMaster(
            f'the Sentinels name {Node(*service.address)} as master of {service.name!r}, which is '
            f'a {_text(role[0])}'
        )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


class _ToMaster:
    """What is added to redis-py's blocking connections."""

    def __init__(self: Any, *, service: Service, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._service = service
        self._then: Any = self.redis_connect_func
        self.redis_connect_func = self._check

    def connect(self: Any) -> None:
        if self._sock and self._service.is_due:
            self._service.check()
        if self._sock and (self.host, self.port) != self._service.address:
            self.disconnect()
        super().connect()  # type: ignore[misc]

    def _connect(self: Any) -> Any:
        self.host, self.port = self._service.find()
        return super()._connect()  # type: ignore[misc]

    def _check(self: Any, connection: Any) -> None:
        if self._then is None:
            self.on_connect()
        else:
            self._then(connection)
        self.send_command('ROLE')
        check_role(self._service, self.read_response())


class _AsyncToMaster:
    """The same for those of redis-py's asyncio."""

    def __init__(self: Any, *, service: Service, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._service = service
        self.redis_connect_func = self._check

    async def connect(self: Any) -> None:
        if self.is_connected and self._service.is_due:
            await asyncio.to_thread(self._service.check)
        if self.is_connected and (self.host, self.port) != self._service.address:
            await self.disconnect()
        await super().connect()  # type: ignore[misc]

    async def _connect(self: Any) -> None:
        # It blocks.
        self.host, self.port = await asyncio.to_thread(self._service.find)
        await super()._connect()  # type: ignore[misc]

    async def _check(self: Any, connection: Any) -> None:
        await self.on_connect()
        await self.send_command('ROLE')
        check_role(self._service, await self.read_response())


def to_master(connection_class: type[Any]) -> type[Any]:
    """Return a class of connections as the given one that lead to a service's master.

    Its ``service`` is a :class:`Service`.
    """
    addition = _AsyncToMaster if 'asyncio' in connection_class.__module__ else _ToMaster
    return with_addition(addition, connection_class)
