"""A blocking connection to Redis for the threads of a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import AskError, ClusterDownError, ReadOnlyError

from ws4redis.broker.connections import make_bus_connection

# What a new connection mends, since it leads to the server that has the keys.
LEADS_ELSEWHERE = (AskError, ClusterDownError, ReadOnlyError)

Command = Sequence[bytes | str | int]


class Pipe:
    """Run commands of Redis, many in one round trip; for one thread.

    Replies come as Redis sent them: redis-py would turn the fields of a stream's entry into a
    dictionary, and lose all but one of each kind.
    """

    def __init__(self, key: str) -> None:
        # All keys of the handlers are on the node of any of them.
        self._connection: Any = make_bus_connection(key)

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands and return their replies; errors of single ones are among them.

        Raise redis-py's ``ConnectionError`` or ``TimeoutError`` when Redis cannot be reached; the
        next call connects anew.
        """
        try:
            self._connection.send_packed_command(self._connection.pack_commands(commands))
            return [self._read() for _ in commands]
        except BaseException:
            self._connection.disconnect()
            raise

    def _read(self) -> Any:
        try:
            return self._connection.read_response()
        except LEADS_ELSEWHERE as exc:
            raise redis.ConnectionError(f'the keys are on another server now: {exc}') from exc
        except redis.ResponseError as exc:
            return exc

    def close(self) -> None:
        self._connection.disconnect()
