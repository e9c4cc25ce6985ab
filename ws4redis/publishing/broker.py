"""Where Django's publications go, and where kept messages come from.

That is Redis, through :class:`RedisBroker`. Tests of a project put a broker in memory in its place:
see ``ws4redis.test``. The websocket loop has connections of its own and does not come here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, cast

import redis

from ws4redis.broker.connections import get_client
from ws4redis.broker.publication import publication_commands


class Broker(Protocol):
    """Publish messages and fetch kept ones, by the full names of channels."""

    @property
    def client(self) -> redis.Redis:
        """The client for what this interface does not offer."""

    def publish(
        self, channels: Iterable[str], message: bytes, expire: int | None, *, transaction: bool
    ) -> None:
        """Publish a message on some channels, and keep it under each for ``expire`` seconds.

        0 and None: not kept. With ``transaction`` all of it happens or nothing.
        """

    def fetch(self, channels: Sequence[str]) -> list[bytes | None]:
        """Return the message that is kept under each channel, None where there is none."""


class RedisBroker:
    """Publish and fetch through a client of redis-py, in one round trip each.

    ``client`` is by default the one that all threads share, as the settings say at the moment.
    """

    def __init__(self, client: redis.Redis | None = None) -> None:
        self._client = client

    @property
    def client(self) -> redis.Redis:
        return get_client() if self._client is None else self._client

    def publish(
        self, channels: Iterable[str], message: bytes, expire: int | None, *, transaction: bool
    ) -> None:
        commands = publication_commands(channels, message, expire)
        if not commands:
            return
        with self.client.pipeline(transaction=transaction and len(commands) > 1) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
            pipeline.execute()

    def fetch(self, channels: Sequence[str]) -> list[bytes | None]:
        if not channels:
            return []
        with self.client.pipeline(transaction=False) as pipeline:
            for channel in channels:
                pipeline.get(channel)
            return cast('list[bytes | None]', pipeline.execute())


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
