"""The queue of those who wait for admission: its bound, and who is told to come again."""

from __future__ import annotations

import pytest
from django.test import override_settings

from tests.hub.rig import Clock
from ws4redis.exceptions import HandshakeError
from ws4redis.handshake.admissions import FEW, Admissions


@override_settings(WS4REDIS_MAX_WAITING_HANDSHAKES=2)
def test_no_more_wait_than_may() -> None:
    admissions = Admissions(Clock())
    admissions.enter(10)
    admissions.enter(10)
    with pytest.raises(HandshakeError) as refused:
        admissions.enter(10)
    assert refused.value.status == 503
    assert refused.value.headers == {'Retry-After': '1'}
    admissions.leave()
    admissions.enter(10)
    assert admissions.waiting == 2


def test_who_would_wait_in_vain_is_told_when_to_come_again() -> None:
    clock = Clock()
    admissions = Admissions(clock)
    for _ in range(FEW + 500):
        admissions.enter(10)
    # 32 a second: the 568 that are left take 18 seconds.
    for _ in range(32):
        clock.advance(1 / 32)
        admissions.leave()
    with pytest.raises(HandshakeError) as refused:
        admissions.enter(10)
    assert refused.value.headers == {'Retry-After': '18'}
    # Who has more time may wait, as may those who come when it goes faster.
    admissions.enter(30)
    for _ in range(512):
        clock.advance(1 / 256)
        admissions.leave()
    admissions.enter(10)


def test_what_was_measured_is_forgotten_when_nobody_waits() -> None:
    clock = Clock()
    admissions = Admissions(clock)
    admissions.enter(10)
    clock.advance(60)
    admissions.leave()
    for _ in range(FEW + 100):
        admissions.enter(10)
