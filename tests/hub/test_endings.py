"""When the loop looks at those in whose name connections are open."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from ws4redis.broker.control import ControlMessage, Do
from ws4redis.hub import endings
from ws4redis.hub.endings import NEW_BATCH, SPARE_MOMENTS, TICK_SECONDS, Endings, Verdict
from ws4redis.hub.identity import Identity, digest_of
from ws4redis.protocol.end_codes import EndCode
from ws4redis.protocol.frames import CloseCode

WEEKS_AHEAD = 14 * 86400.0


class Peer:
    """A connection that notes how it ended."""

    def __init__(self) -> None:
        self.identity: Identity | None = None
        self.code = 0

    def end(self, code: int, reason: str) -> None:
        self.code = code


class Checks:
    """Find all in order, and look again after some seconds."""

    def __init__(self, now: Callable[[], float], seconds: float) -> None:
        self._now = now
        self._seconds = seconds
        self.asked = 0

    def verdicts(self, identities: Sequence[Identity]) -> list[Verdict]:
        self.asked += len(identities)
        return [Verdict(check_at=self._now() + self._seconds)] * len(identities)

    expiries = verdicts


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1e9
        monkeypatch.setattr(endings, 'time', SimpleNamespace(time=lambda: self.seconds))

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def make_endings(checks: Checks) -> Endings:
    """Return endings in a loop that does everything at once, and of which a test makes the time."""

    def submit(done: Callable[..., object], function: Callable[..., Any], *args: Any) -> None:
        done(function(*args), None)

    loop = SimpleNamespace(
        timers=SimpleNamespace(clock=time.monotonic),
        driver=SimpleNamespace(submit=submit),
        call_later=lambda *args: None,
        call_soon=lambda function, *args: function(*args),
    )
    hub: Any = SimpleNamespace(loop=loop, bus=SimpleNamespace(own_listeners={}))
    return Endings(hub, checks, prefix='', publish=b'PUBLISH', sweep_seconds=2 * TICK_SECONDS)


def connect(of: Endings, session: str, asked_at: float | None = None, **values: Any) -> Any:
    peer: Any = Peer()
    identity = Identity(user='mary', session=session, session_digest=digest_of(session), **values)
    of.identify(peer, identity, time.monotonic() if asked_at is None else asked_at)
    return peer


def test_to_look_again_and_again_notes_no_more_moments(clock: Clock) -> None:
    checks = Checks(clock, WEEKS_AHEAD)
    tested = make_endings(checks)
    for number in range(10):
        connect(tested, str(number))
    for _ in range(500):
        clock.seconds += TICK_SECONDS
        tested._tick()
    assert checks.asked > 2000
    assert len(tested._due) == len(tested.identities) == 10


def test_who_has_gone_is_not_remembered_until_the_session_expires(clock: Clock) -> None:
    tested = make_endings(Checks(clock, WEEKS_AHEAD))
    for number in range(3 * SPARE_MOMENTS):
        peer = connect(tested, str(number))
        tested._tick()
        tested.identities.remove(peer)
    assert len(tested._due) <= SPARE_MOMENTS + 2
    assert len(tested._next_look) <= SPARE_MOMENTS + 2


def test_what_expires_ends_however_often_it_was_looked_at_before(clock: Clock) -> None:
    checks = Checks(clock, 1.0)
    tested = make_endings(checks)
    peer = connect(tested, 's', expires=clock.seconds + 10)
    for _ in range(19):
        clock.seconds += TICK_SECONDS
        tested._tick()
    assert (peer.code, checks.asked > 5) == (0, True)
    clock.seconds += TICK_SECONDS
    tested._tick()
    assert peer.code == EndCode.EXPIRED


def test_those_who_are_new_are_asked_about_together_once_in_a_while(clock: Clock) -> None:
    class NotingChecks(Checks):
        def expiries(self, identities: Sequence[Identity]) -> list[Verdict]:
            together.append(len(identities))
            return self.verdicts(identities)

    together: list[int] = []
    tested = make_endings(NotingChecks(clock, WEEKS_AHEAD))
    for number in range(NEW_BATCH + 3):
        connect(tested, str(number))
    tested._tick()
    # The few that are left wait for others.
    assert together == [NEW_BATCH]
    tested._tick()
    assert together == [NEW_BATCH, 3]


def test_who_cannot_leave_a_channel_is_ended_and_the_others_leave(clock: Clock) -> None:
    tested = make_endings(Checks(clock, WEEKS_AHEAD))
    left: list[Any] = []
    peers = [connect(tested, str(number)) for number in range(3)]
    for number, peer in enumerate(peers):
        peer.unsubscribe = lambda channel, *_, number=number: left.append([channel, 1 // number])
    tested._apply(ControlMessage(Do.UNSUBSCRIBE, user='mary', channel='broadcast:chat'))
    assert len(left) == 2
    assert [peer.code for peer in peers] == [CloseCode.INTERNAL_ERROR, 0, 0]


def test_those_whom_a_lost_message_may_have_meant_are_ended_and_may_come_back(
    clock: Clock,
) -> None:
    tested = make_endings(Checks(clock, WEEKS_AHEAD))
    peers = [connect(tested, str(number)) for number in range(3)]
    tested._end_all()
    assert {peer.code for peer in peers} == {CloseCode.TRY_AGAIN_LATER}


def test_whose_handshake_was_under_way_as_messages_were_lost_is_ended_as_well(
    clock: Clock,
) -> None:
    tested = make_endings(Checks(clock, WEEKS_AHEAD))
    before = time.monotonic()
    tested._end_all()
    under_way, later = connect(tested, '1', before), connect(tested, '2', math.inf)
    assert [under_way.code, later.code] == [CloseCode.TRY_AGAIN_LATER, 0]


def test_whose_handshake_was_under_way_as_there_was_doubt_is_looked_up(clock: Clock) -> None:
    class Ended(Checks):
        def verdicts(self, identities: Sequence[Identity]) -> list[Verdict]:
            return [Verdict(EndCode.SESSION_ENDED)] * len(identities)

    tested = make_endings(Ended(clock, WEEKS_AHEAD))
    before = time.monotonic()
    tested._check_all()
    under_way, later = connect(tested, '1', before), connect(tested, '2', math.inf)
    assert [under_way.code, later.code] == [EndCode.SESSION_ENDED, 0]
