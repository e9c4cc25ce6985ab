"""What the tests of channels with a history share: a hub with such channels, and their members."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

from tests.hub.rig import Clock, Home, Peer, bus_link_of
from ws4redis.broker.history import Kind, Position, parse_published, publish_command
from ws4redis.broker.keys import keys_of
from ws4redis.broker.scripts import script_of
from ws4redis.hub.channel import Gap, Joined
from ws4redis.hub.history_channel import HistoryChannel, State
from ws4redis.hub.options import HubOptions
from ws4redis.servers.process import connect_to_redis, publication_packer
from ws4redis.settings.facilities import DEFAULT_OPTIONS, FacilityOptions

NAME = 'broadcast:chat'
KEYS = keys_of(NAME.encode())
HISTORY = FacilityOptions(history_size=100, history_seconds=300)


def facility_of_channel(name: str) -> FacilityOptions:
    return HISTORY if ':chat' in name else DEFAULT_OPTIONS


def options(**more: Any) -> HubOptions:
    # The peers of these tests answer no close frame.
    more = {'close_timeout_seconds': 0.05, **more}
    return HubOptions(ping_interval_seconds=None, facility_of_channel=facility_of_channel, **more)


def home(clock: Clock | None = None, **more: Any) -> Home:
    return Home(
        connect=connect_to_redis,
        pack=publication_packer(),
        options=options(**more),
        clock=clock,
    )


def run(client: redis.Redis, command: Any) -> Any:
    return client.execute_command(*script_of(command).with_text(command))


def publish(
    client: redis.Redis, *payloads: bytes, name: str = NAME, keep: int = 60, kind: Kind = Kind.TEXT
) -> Position:
    """Publish, and return the position of the last one."""
    for payload in payloads:
        command = publish_command(
            keys_of(name.encode()), payload, HISTORY, keep_seconds=keep, kind=kind
        )
        position = parse_published(run(client, command)).position
    return position


def numbered(first: int, last: int) -> list[bytes]:
    return [b'%d' % number for number in range(first, last + 1)]


class Member:
    """A peer that joins as connections of the client protocol do, and notes what it is told."""

    def __init__(
        self, hub: Home, since: Position | None = None, *, name: str = NAME, **kind: Any
    ) -> None:
        self.hub = hub
        self.peer: Peer = hub.peer(**kind)
        self._name = name
        self.joined: Joined | None = None
        self.gaps: list[Gap] = []
        websocket = self.peer.websocket
        websocket.heeds_gaps = since is not None
        hub.join(websocket, name, self._done, since, delayed=self._delayed)
        self.delays: list[str] = []

    def _done(self, joined: Joined) -> None:
        assert self.joined is None
        self.joined = joined
        self.peer.websocket.take_joined(self._name, joined)

    def _delayed(self, why: str) -> None:
        self.delays.append(why)

    def wait(self) -> Joined:
        self.hub.turn_until(lambda: self.joined is not None)
        assert self.joined is not None
        return self.joined

    def receive(self, *payloads: bytes) -> None:
        """Wait until these messages have come, and no others."""
        expected = [payload.decode() for payload in payloads]
        received: list[str | bytes] = []

        def all_came() -> bool:
            received.extend(self.peer.messages())
            return len(received) >= len(expected)

        self.hub.turn_until(all_came)
        assert received == expected


def channel_of(hub: Home, name: str = NAME) -> HistoryChannel:
    channel = hub.bus.get(name)
    assert isinstance(channel, HistoryChannel)
    return channel


def reads(hub: Home) -> int:
    return hub.statistics.history_reads


def is_at(hub: Home, position: Position) -> Callable[[], bool]:
    return lambda: channel_of(hub).position == position and channel_of(hub).state is State.LIVE


def outage(hub: Home, act: Callable[[], object]) -> None:
    """Do something while the bus is away."""
    bus_link_of(hub).lost('for the test')
    act()
    hub.turn_until(lambda: bus_link_of(hub).is_connected)
    hub.turn_until(lambda: channel_of(hub).state is State.LIVE)


def published_by(hub: Home, peer: Peer, payload: bytes, *names: str, **more: Any) -> Any:
    """Publish as a peer does, and return its positions or the error."""
    answers: list[Any] = []
    hub.publish(
        peer.websocket,
        names or (NAME,),
        payload,
        done=lambda positions, error: answers.append(error or positions),
        **more,
    )
    hub.turn_until(lambda: answers)
    return answers[0]


def member_position(hub: Home, offset: int) -> Position:
    """Wait until the channel is at an offset, and return its position."""
    channel = channel_of(hub)
    hub.turn_until(lambda: channel.position is not None and channel.position.offset == offset)
    assert channel.position is not None
    return channel.position
