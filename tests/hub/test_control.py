"""How a process listens to the control channel, on a link that answers as the test wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

from ws4redis.broker.control import ControlMessage, Do, tell_command
from ws4redis.broker.scripts import script_of
from ws4redis.hub.control import Control


class FakeBus:
    """Note what was refused."""

    def __init__(self) -> None:
        self.own_listeners: dict[bytes, Any] = {}
        self.refused: list[str] = []

    def listening_refused(self, error: Exception) -> None:
        self.refused.append(str(error))


class FakeLink:
    """Note the subscriptions, and answer all that is read at once: there is nothing."""

    def __init__(self) -> None:
        self.refusals: list[Callable[[Exception], object]] = []

    def subscribe(self, name: bytes, *, confirmed: Any, refused: Any) -> None:
        self.refusals.append(refused)

    def send(self, *words: Any, replied: Any, refused: Any) -> None:
        replied([] if words[0] == b'XREVRANGE' else [b'ok', b'epoch', b'0', b'-', None, [], b't'])


def test_a_subscription_that_was_refused_is_tried_again() -> None:
    def nothing(*_: object) -> None:
        pass

    bus, link = FakeBus(), FakeLink()
    control = Control(
        bus,  # type: ignore[arg-type]
        '',
        publish=b'PUBLISH',
        clock=lambda: 0.0,
        apply=nothing,
        apply_past=nothing,
        unsure=nothing,
    )
    control.connected(link)  # type: ignore[arg-type]
    control.try_again()
    assert (control.is_current, len(link.refusals)) == (True, 1)
    link.refusals[0](Exception('MOVED 1 127.0.0.1:2'))
    assert (control.is_current, bus.refused) == (False, ['MOVED 1 127.0.0.1:2'])
    control.try_again()
    assert (control.is_current, len(link.refusals)) == (True, 2)


class RedisLink(FakeLink):
    """Run what is sent at once, on a Redis."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__()
        self._client = client

    def send(self, *words: Any, replied: Any, refused: Any) -> None:
        replied(run(self._client, words))


def run(client: redis.Redis, command: tuple[Any, ...]) -> Any:
    if command[0] == b'EVALSHA':
        command = script_of(command).with_text(command)
    return client.execute_command(*command)


def test_what_is_said_in_a_new_numbering_is_applied_and_everybody_looked_up(
    redis_client: redis.Redis,
) -> None:
    def tell(user: str) -> None:
        command = tell_command('', ControlMessage(Do.UNSUBSCRIBE, user=user, channel='user:inbox'))
        run(redis_client, command)

    applied: list[str | None] = []
    unsure: list[None] = []
    bus, link = FakeBus(), RedisLink(redis_client)
    control = Control(
        bus,  # type: ignore[arg-type]
        '',
        publish=b'PUBLISH',
        clock=lambda: 0.0,
        apply=lambda message: applied.append(message.user),
        apply_past=lambda _: None,
        unsure=lambda: unsure.append(None),
    )
    control.connected(link)  # type: ignore[arg-type]
    tell('ada')
    control.heard(b'')
    assert (applied, unsure) == (['ada'], [])
    redis_client.flushall()
    tell('bob')
    tell('cid')
    control.heard(b'')
    # A look-up finds who is logged out, but does not undo a subscription.
    assert (applied, unsure) == (['ada', 'bob', 'cid'], [None])
    assert control.is_current
    tell('dan')
    control.heard(b'')
    assert (applied, unsure) == (['ada', 'bob', 'cid', 'dan'], [None])
