"""What the tests of the bus share: websockets that join, and a scripted Redis to answer."""

from __future__ import annotations

from tests.hub.rig import Home, Peer

BUS = 0  # it connects first, the command connection second


class Joining:
    """A websocket that joins channels as a handshake does."""

    def __init__(self, hub: Home, *names: str, **options: object) -> None:
        self.done = 0
        self.refused = 0
        self.peer: Peer = hub.peer(**options)
        hub.join_names(self.peer.websocket, names, self._count, self._count_refused)

    def _count(self) -> None:
        self.done += 1

    def _count_refused(self) -> None:
        self.refused += 1


def commands(hub: Home, number: int = BUS) -> list[list[bytes]]:
    hub.turn()
    return hub.redis.commands(number)


def reply(hub: Home, data: bytes, number: int = BUS) -> None:
    hub.redis.reply(data, number)
    hub.turn()
