"""How a process listens to the control channel, on a link that answers as the test wants."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import redis

from ws4redis.broker.control import ControlMessage, Do, control_keys, tell_command
from ws4redis.broker.history import MAX_ENTRIES_PER_READ
from ws4redis.broker.link import MOVING_ERRORS, error_code
from ws4redis.broker.scripts import script_of
from ws4redis.hub.control import Control


class FakeBus:
    """Note what was refused."""

    def __init__(self) -> None:
        self.own_listeners: dict[bytes, Any] = {}
        self.refused: list[str] = []

    def listening_refused(self, error: Exception) -> bool:
        self.refused.append(str(error))
        return error_code(error) in MOVING_ERRORS


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
        missed=nothing,
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


def tell(client: redis.Redis, *users: str, ago: float = 0.0) -> None:
    for user in users:
        at = time.time() - ago
        message = ControlMessage(Do.UNSUBSCRIBE, user=user, channel='user:inbox', at=at)
        run(client, tell_command('', message))


class Listener:
    """A process that listens to the control channel of a Redis."""

    def __init__(self, client: redis.Redis, link: FakeLink | None = None) -> None:
        self._client = client
        self.applied: list[str | None] = []
        self.past: list[str | None] = []
        self.times_unsure = self.times_missed = 0
        self.control = Control(
            FakeBus(),  # type: ignore[arg-type]
            '',
            publish=b'PUBLISH',
            clock=lambda: 0.0,
            apply=lambda message: self.applied.append(message.user),
            apply_past=lambda message: self.past.append(message.user),
            unsure=self._unsure,
            missed=self._missed,
        )
        self.control.connected(link or RedisLink(client))  # type: ignore[arg-type]

    def _unsure(self) -> None:
        self.times_unsure += 1

    def _missed(self) -> None:
        self.times_missed += 1

    def tell(self, *users: str) -> None:
        tell(self._client, *users)

    def hear(self) -> tuple[list[str | None], int]:
        """Let the bell ring; return whom messages meant, and how often all were looked up."""
        self.control.heard(b'')
        assert self.control.is_current
        return self.applied, self.times_unsure


def test_what_is_said_in_a_new_numbering_is_applied_and_everybody_looked_up(
    redis_client: redis.Redis,
) -> None:
    listener = Listener(redis_client)
    listener.tell('ada')
    assert listener.hear() == (['ada'], 0)
    redis_client.flushall()
    listener.tell('bob', 'cid')
    # A look-up finds who is logged out, but does not undo a subscription.
    assert listener.hear() == (['ada', 'bob', 'cid'], 1)
    listener.tell('dan')
    assert listener.hear() == (['ada', 'bob', 'cid', 'dan'], 1)


def test_what_is_left_of_too_many_messages_is_applied_and_everybody_ended(
    redis_client: redis.Redis,
) -> None:
    listener = Listener(redis_client)
    listener.tell('ada')
    assert listener.hear() == (['ada'], 0)
    rest = [f'user{number}' for number in range(MAX_ENTRIES_PER_READ + 10)]
    listener.tell('bob', *rest)
    redis_client.xtrim(control_keys('').stream, maxlen=len(rest), approximate=False)
    # A look-up would not find that bob was unsubscribed.
    assert (listener.hear(), listener.times_missed) == ((['ada', *rest], 0), 1)
    listener.tell('dan')
    assert (listener.hear(), listener.times_missed) == ((['ada', *rest, 'dan'], 0), 1)
    redis_client.delete(control_keys('').stream)
    listener.tell('eve')
    listener.tell('fay')
    redis_client.delete(control_keys('').stream)
    # Nothing is left.
    assert (listener.hear(), listener.times_missed) == ((['ada', *rest, 'dan'], 0), 2)


def test_what_a_promoted_replica_numbers_again_is_applied_and_nothing_twice(
    redis_client: redis.Redis,
) -> None:
    tell(redis_client, 'from before', ago=60)
    listener, other = Listener(redis_client), Listener(redis_client)
    listener.tell('ada')
    assert listener.hear() == other.hear() == (['ada'], 0)
    keys = control_keys('')
    before = {key: redis_client.dump(key) for key in (keys.stream, keys.position)}
    listener.tell('bob')
    assert listener.hear() == other.hear() == (['ada', 'bob'], 0)
    # The replica lacks bob, whose number is another's now.
    for key, value in before.items():
        assert value is not None
        redis_client.restore(key, 0, value, replace=True)
    listener.tell('cid', 'dan')
    # The second one finds the numbering that the first one has begun.
    assert listener.hear() == other.hear() == (['ada', 'bob', 'cid', 'dan'], 1)
    listener.tell('eve')
    assert listener.hear() == other.hear() == (['ada', 'bob', 'cid', 'dan', 'eve'], 1)
    assert listener.times_missed == other.times_missed == 0


def test_a_process_that_begins_misses_nothing_that_is_said_meanwhile(
    redis_client: redis.Redis,
) -> None:
    class SlowLink(RedisLink):
        """Let somebody say something before each command."""

        def __init__(self) -> None:
            super().__init__(redis_client)
            self._users = iter(['ada', 'bob'])

        def send(self, *words: Any, replied: Any, refused: Any) -> None:
            if (user := next(self._users, None)) is not None:
                tell(redis_client, user)
            super().send(*words, replied=replied, refused=refused)

    listener = Listener(redis_client, SlowLink())
    listener.hear()
    assert (listener.past, listener.applied) == (['ada'], ['bob'])
