"""Which kept messages came live already."""

from __future__ import annotations

import pytest

from ws4redis.hub import recent
from ws4redis.hub.recent import RecentMessages

EXPIRE = 3600


def includes(messages: RecentMessages, kept: bytes, *, set_at: float, now: float) -> bool:
    remaining_ms = round((set_at + EXPIRE - now) * 1000)
    return messages.includes(b'x', kept, remaining_ms=remaining_ms, now=now)


def test_a_kept_message_that_came_when_it_was_set_is_known() -> None:
    messages = RecentMessages(EXPIRE)
    messages.came(b'x', b'kept', 1000.02)
    messages.came(b'x', b'newer', 1001.0)
    assert includes(messages, b'kept', set_at=1000.0, now=1010.0)
    assert not includes(messages, b'unknown', set_at=1000.0, now=1010.0)


def test_one_that_was_set_again_since_is_not() -> None:
    messages = RecentMessages(EXPIRE)
    messages.came(b'x', b'on', 1000.0)
    messages.came(b'x', b'off', 1001.0)
    assert not includes(messages, b'on', set_at=1002.0, now=1003.0)


def test_one_of_another_channel_or_kept_for_another_time_is_not() -> None:
    messages = RecentMessages(EXPIRE)
    messages.came(b'y', b'kept', 1000.0)
    assert not includes(messages, b'kept', set_at=1000.0, now=1010.0)
    messages.came(b'x', b'kept', 1000.0)
    assert not messages.includes(b'x', b'kept', remaining_ms=50_000, now=1010.0)
    assert not messages.includes(b'x', b'kept', remaining_ms=None, now=1010.0)


def test_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, 'MAX_REMEMBERED', 2)
    messages = RecentMessages(EXPIRE)
    for payload in (b'1', b'2', b'1', b'3'):
        messages.came(b'x', payload, 1000.0)
    known = [p for p in (b'1', b'2', b'3') if includes(messages, p, set_at=1000.0, now=1000.0)]
    assert known == [b'1', b'3']
