"""How a process listens to the control channel, on a link that answers as the test wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
