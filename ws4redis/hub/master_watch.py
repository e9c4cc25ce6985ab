"""A connection to a Sentinel, which says at once that another server has become the master.

Without it a process would notice when its connections break. That of a master that hangs, or was
cut off, breaks only after the time-outs.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any, Protocol

from ws4redis.broker.link import RedisLink, ignore
from ws4redis.loop.loop import Loop

logger = logging.getLogger('ws4redis')

SWITCHED = b'+switch-master'


class Sentinels(Protocol):
    """The Sentinels of a service."""

    service_name: str

    def connect(self) -> socket.socket:
        """Return a connected and authenticated socket to one of them that speaks RESP3. Blocks."""


class MasterWatch(RedisLink):
    """Call ``switched`` when the master of a service is another one than before."""

    def __init__(
        self,
        loop: Loop,
        sentinels: Sentinels,
        *,
        switched: Callable[[], object],
        timeout_seconds: float,
    ) -> None:
        super().__init__(loop, sentinels.connect, name='Sentinel', timeout_seconds=timeout_seconds)
        self._service_name = sentinels.service_name.encode()
        self._switched = switched
        self._master: list[bytes] | None = None

    def connected(self) -> None:
        self.send_subscription(b'SUBSCRIBE', SWITCHED, refused=self.lost)
        # Behind the subscription: what happened while nobody listened.
        self.send(
            *(b'SENTINEL', b'GET-MASTER-ADDR-BY-NAME', self._service_name),
            replied=self._note_master,
            refused=ignore,
        )

    def disconnected(self) -> None:
        pass

    def push_received(self, push: list[Any]) -> None:
        if push[0] == b'message' and push[1] == SWITCHED:
            # <name> <old host> <old port> <host> <port>
            name, _, _, host, port = push[2].split(b' ')
            if name == self._service_name:
                self._note_master([host, port])

    def _note_master(self, master: list[bytes] | None) -> None:
        if master is None:
            return
        before, self._master = self._master, master
        if before is not None and before != master:
            logger.warning('the Sentinels name another master: %s', b':'.join(master).decode())
            self._switched()
