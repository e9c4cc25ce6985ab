"""What clients of streams say while Redis is away."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ws4redis.hub.clients.sessions import MAX_WAITING_STREAMS, REDIS_SECONDS, Fate, Sessions
from ws4redis.protocol.client.streams import EmulatedFrame


class Commands:
    """A link that notes what it is given; somebody hears it."""

    def __init__(self) -> None:
        self.users: list[Any] = []
        self.is_connected = False
        self.sent: list[bytes] = []

    def send(
        self, publish: object, channel: bytes, payload: bytes, *, replied: Any, refused: object
    ) -> None:
        self.sent.append(payload)
        replied(1)

    def connect(self) -> None:
        self.is_connected = True
        for user in self.users:
            user.link_connected()


class Hub:
    def __init__(self) -> None:
        self.now = 0.0
        self.publish_word = b'PUBLISH'
        self.loop = SimpleNamespace(timers=SimpleNamespace(clock=lambda: self.now))
        self.links = SimpleNamespace(commands=Commands())
        self.bus = SimpleNamespace(listen=lambda channel, listener: None)


def make_sessions() -> tuple[Any, Sessions]:
    hub: Any = Hub()
    return hub, Sessions(hub, '')


def test_what_waited_too_long_for_redis_is_not_said_after_all() -> None:
    hub, sessions = make_sessions()
    fates: list[Fate] = []
    sessions.take(EmulatedFrame('a', 'another', b'early'), fates.append)
    hub.now = REDIS_SECONDS - 0.1
    sessions.take(EmulatedFrame('a', 'another', b'late'), fates.append)
    hub.now = REDIS_SECONDS + 0.1
    hub.links.commands.connect()
    assert hub.links.commands.sent == [b'a\nlate']
    assert fates == [Fate.TAKEN]


def test_streams_that_wait_for_redis_in_vain_do_not_pile_up() -> None:
    _, sessions = make_sessions()
    opened: list[None] = []
    for _ in range(MAX_WAITING_STREAMS + 10):
        sessions.listen(lambda: opened.append(None))
    sessions._confirmed(None)
    assert len(opened) == MAX_WAITING_STREAMS
    sessions.listen(lambda: opened.append(None))
    assert len(opened) == MAX_WAITING_STREAMS + 1
