"""Where Django's publications go, and where histories and kept messages come from.

That is Redis, through :class:`RedisBroker`. Tests of a project put a broker in memory in its place:
see ``ws4redis.test``. The websocket loop has connections of its own and does not come here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import redis
from redis.exceptions import NoScriptError, ReadOnlyError

from ws4redis.broker.async_connections import get_async_client, get_async_cluster
from ws4redis.broker.connections import get_client, get_cluster
from ws4redis.broker.control import ControlMessage, tell_command
from ws4redis.broker.history import Page, PageRequest, Position
from ws4redis.broker.outgoing import Exchange, Outgoing
from ws4redis.broker.presence import Roll, parse_roll
from ws4redis.broker.publication import Command
from ws4redis.broker.reading import (
    living_commands,
    living_in,
    page_commands,
    page_of,
    position_command,
    position_of,
    roll_commands,
)
from ws4redis.broker.scripts import script_of
from ws4redis.conf import conf

Positions = dict[str, Position]


class Broker(Protocol):
    """Publish messages and read what was published, by the full names of channels.

    The methods that begin with ``a`` are for coroutines, and do the same.
    """

    @property
    def client(self) -> redis.Redis:
        """The client for what this interface does not offer."""

    def publish(self, outgoing: Outgoing, *, transaction: bool) -> Positions:
        """Publish a message, and return its position on each channel that has a history.

        With ``transaction`` all of it happens or nothing; in a Cluster, all of it or nothing on
        each channel.
        """

    async def apublish(self, outgoing: Outgoing) -> Positions: ...

    def fetch(self, channels: Sequence[str]) -> list[bytes | None]:
        """Return the message that is kept under each channel, None where there is none."""

    async def afetch(self, channels: Sequence[str]) -> list[bytes | None]: ...

    def read_page(self, request: PageRequest) -> Page:
        """Return a part of a channel's history."""

    async def aread_page(self, request: PageRequest) -> Page: ...

    def positions(self, channels: Sequence[str]) -> Positions:
        """Return the newest position of each channel."""

    async def apositions(self, channels: Sequence[str]) -> Positions: ...

    def rolls(self, channels: Sequence[str], *, only_count: bool = False) -> list[Roll]:
        """Return who is in each channel, or only how many."""

    async def arolls(self, channels: Sequence[str], *, only_count: bool = False) -> list[Roll]: ...

    def tell(self, messages: Sequence[ControlMessage]) -> None:
        """Publish on the control channel, which every process that holds connections obeys."""

    async def atell(self, messages: Sequence[ControlMessage]) -> None: ...

    def mark(self, keys: Sequence[str], seconds: int) -> None:
        """Let keys be there for some seconds; :meth:`fetch` finds them."""


class RedisBroker:
    """Publish and read through redis-py, in one round trip each; in a Cluster, one to each node.

    ``client`` is by default the one that all threads share, as the settings say at the moment.
    Coroutines use a client of their event loop.
    """

    def __init__(self, client: redis.Redis | None = None) -> None:
        self._client = client

    @property
    def client(self) -> redis.Redis:
        return get_client() if self._client is None else self._client

    def publish(self, outgoing: Outgoing, *, transaction: bool) -> Positions:
        exchange = Exchange(outgoing)
        return exchange.positions(self._run(exchange.commands, transaction=transaction))

    async def apublish(self, outgoing: Outgoing) -> Positions:
        exchange = Exchange(outgoing)
        return exchange.positions(await self._arun(exchange.commands, transaction=True))

    def fetch(self, channels: Sequence[str]) -> list[bytes | None]:
        return self._run([(b'GET', channel) for channel in channels])

    async def afetch(self, channels: Sequence[str]) -> list[bytes | None]:
        return await self._arun([(b'GET', channel) for channel in channels])

    def read_page(self, request: PageRequest) -> Page:
        return page_of(request, self._run(page_commands(request), transaction=True))

    async def aread_page(self, request: PageRequest) -> Page:
        return page_of(request, await self._arun(page_commands(request), transaction=True))

    def positions(self, channels: Sequence[str]) -> Positions:
        replies = self._run([position_command(channel) for channel in channels])
        return dict(zip(channels, map(position_of, replies), strict=True))

    async def apositions(self, channels: Sequence[str]) -> Positions:
        replies = await self._arun([position_command(channel) for channel in channels])
        return dict(zip(channels, map(position_of, replies), strict=True))

    def rolls(self, channels: Sequence[str], *, only_count: bool = False) -> list[Roll]:
        living = living_in(self._run(living_commands()))
        return list(
            map(parse_roll, self._run(roll_commands(channels, living, only_count=only_count)))
        )

    async def arolls(self, channels: Sequence[str], *, only_count: bool = False) -> list[Roll]:
        living = living_in(await self._arun(living_commands()))
        return list(
            map(
                parse_roll, await self._arun(roll_commands(channels, living, only_count=only_count))
            )
        )

    def tell(self, messages: Sequence[ControlMessage]) -> None:
        self._run(_tell_commands(messages))

    async def atell(self, messages: Sequence[ControlMessage]) -> None:
        await self._arun(_tell_commands(messages))

    def mark(self, keys: Sequence[str], seconds: int) -> None:
        self._run([(b'SET', key, b'1', b'EX', seconds) for key in keys])

    def _run(self, commands: Sequence[Command], *, transaction: bool = False) -> list[Any]:
        """Run commands in one round trip, and return their replies; raise the first error."""
        replies = self._execute(commands, transaction=transaction)
        if unknown := _unknown_scripts(commands, replies):
            again = self._execute(list(unknown.values()), transaction=transaction)
            _replace(replies, unknown, again)
        return _without_errors(replies)

    async def _arun(self, commands: Sequence[Command], *, transaction: bool = False) -> list[Any]:
        replies = await self._aexecute(commands, transaction=transaction)
        if unknown := _unknown_scripts(commands, replies):
            again = await self._aexecute(list(unknown.values()), transaction=transaction)
            _replace(replies, unknown, again)
        return _without_errors(replies)

    def _execute(self, commands: Sequence[Command], *, transaction: bool) -> list[Any]:
        if not commands:
            return []
        cluster = get_cluster()
        if cluster is not None:
            return cluster.execute(commands, transaction=transaction)
        client = self.client
        for is_last in (False, True):
            try:
                with client.pipeline(transaction=transaction and len(commands) > 1) as pipeline:
                    for command in commands:
                        pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
                    return _written(pipeline.execute(raise_on_error=False))
            except ReadOnlyError:
                if is_last:
                    raise
                # The connection leads to a former master, and nothing was written there.
                client.connection_pool.disconnect(inuse_connections=False)
        raise AssertionError('unreachable')

    async def _aexecute(self, commands: Sequence[Command], *, transaction: bool) -> list[Any]:
        if not commands:
            return []
        cluster = await get_async_cluster()
        if cluster is not None:
            return await cluster.execute(commands, transaction=transaction)
        client = await get_async_client()
        for is_last in (False, True):
            try:
                async with client.pipeline(
                    transaction=transaction and len(commands) > 1
                ) as pipeline:
                    for command in commands:
                        pipeline.execute_command(*command)
                    return _written(await pipeline.execute(raise_on_error=False))
            except ReadOnlyError:
                if is_last:
                    raise
                await client.connection_pool.disconnect(inuse_connections=False)
        raise AssertionError('unreachable')


def _tell_commands(messages: Sequence[ControlMessage]) -> list[Command]:
    prefix, publish = conf.key_prefix, conf.publish_word
    return [tell_command(prefix, message, publish=publish) for message in messages]


def _unknown_scripts(commands: Sequence[Command], replies: Sequence[Any]) -> Mapping[int, Command]:
    """Return the commands to repeat with the text of their script, by their places.

    Redis forgets scripts when it restarts, is flushed or fails over.
    """
    return {
        place: script_of(commands[place]).with_text(commands[place])
        for place, reply in enumerate(replies)
        if isinstance(reply, NoScriptError)
    }


def _replace(replies: list[Any], places: Mapping[int, Command], again: Sequence[Any]) -> None:
    for place, reply in zip(places, again, strict=True):
        replies[place] = reply


def _written(replies: list[Any]) -> list[Any]:
    """Return the replies; raise ``ReadOnlyError`` where Redis has become a replica."""
    for reply in replies:
        if isinstance(reply, ReadOnlyError):
            raise reply
    return replies


def _without_errors(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


class _Current:
    # Of the whole process, as Django's mail outbox is: a view that is tested may publish from
    # another thread.
    broker: Broker = RedisBroker()


def current_broker() -> Broker:
    """Return the broker that publishers without a connection of their own use."""
    return _Current.broker


@contextmanager
def use_broker(broker: Broker) -> Iterator[None]:
    """Let all publishers of this process use another broker within the ``with`` block."""
    before, _Current.broker = _Current.broker, broker
    try:
        yield
    finally:
        _Current.broker = before
