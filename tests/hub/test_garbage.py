"""The collector of garbage pauses while very many channels are subscribed, and for no longer."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from tests.hub.rig import Clock, Home
from ws4redis.hub.garbage import LONGEST_RUSH_SECONDS, MANY_CHANNELS, CollectorPause


def join(hub: Home, count: int) -> None:
    names = [f'broadcast:{number}' for number in range(count)]
    hub.join_names(hub.peer().websocket, names, lambda: None)


@contextmanager
def connected_home(clock: Clock | None = None) -> Iterator[Home]:
    with Home(clock=clock) as hub:
        hub.turn_until(lambda: hub.links.is_connected)
        yield hub


def test_it_pauses_until_all_subscriptions_are_written() -> None:
    with connected_home() as hub:
        join(hub, 3 * MANY_CHANNELS)
        hub.turn()
        assert hub.bus.has_changes
        assert not gc.isenabled()

        hub.turn_until(lambda: not hub.bus.has_changes)
        assert gc.isenabled()


def test_few_channels_are_no_reason() -> None:
    with connected_home() as hub:
        join(hub, MANY_CHANNELS - 1)
        hub.turn()
        assert hub.bus.has_changes
        assert gc.isenabled()


def test_it_runs_again_although_more_and_more_channels_come() -> None:
    clock = Clock()
    with connected_home(clock) as hub:
        join(hub, 3 * MANY_CHANNELS)
        hub.turn()
        clock.advance(LONGEST_RUSH_SECONDS + 1)
        hub.turn()
        assert hub.bus.has_changes
        assert gc.isenabled()


def test_it_runs_again_when_the_loop_ends() -> None:
    with connected_home() as hub:
        join(hub, 3 * MANY_CHANNELS)
        hub.turn()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_waits_for_the_last_reason_and_is_not_switched_on_for_others() -> None:
    pause = CollectorPause()
    pause.begin('one')
    pause.begin('other')
    pause.end('one')
    pause.end('one')
    assert not gc.isenabled()
    pause.end('other')
    assert gc.isenabled()
    gc.disable()
    try:
        pause.begin('one')
        pause.end('one')
        assert not gc.isenabled()
    finally:
        gc.enable()
