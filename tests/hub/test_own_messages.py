"""What a websocket sent itself is recognised when it comes back."""

from __future__ import annotations

import pytest

from ws4redis.hub.own_messages import OwnMessages, fingerprint


def test_a_message_is_recognised_as_often_as_it_comes_back() -> None:
    own = OwnMessages()
    own.sent(b'a', copies=2, now=0)
    own.sent(b'b', copies=1, now=0)
    assert own.recognises(b'a')
    assert own.recognises(b'b')
    assert own.recognises(b'a')
    assert not own.recognises(b'a')


def test_several_messages_in_flight_are_all_recognised() -> None:
    own = OwnMessages()
    for number in range(100):
        own.sent(b'%d' % number, copies=1, now=0)
    assert all(own.recognises(b'%d' % number) for number in range(100))


def test_the_content_of_the_last_message_is_recognised_whoever_sends_it() -> None:
    own = OwnMessages()
    own.sent(b'last', copies=0, now=0)
    assert own.recognises(b'last')
    assert own.recognises(b'last')
    own.sent(b'newer', copies=0, now=0)
    assert not own.recognises(b'last')


def test_what_was_never_sent_is_not_recognised() -> None:
    own = OwnMessages()
    assert not own.recognises(b'')
    own.sent(b'a', copies=1, now=0)
    assert not own.recognises(b'b')


def test_when_the_way_back_is_lost_nothing_but_the_last_is_expected() -> None:
    own = OwnMessages()
    own.sent(b'a', copies=1, now=0)
    own.sent(b'b', copies=1, now=0)
    own.forget_under_way()
    assert not own.recognises(b'a')
    assert own.recognises(b'b')


@pytest.mark.parametrize('size', [0, 1, 63, 64, 65, 1_000_000])
def test_a_fingerprint_is_short_and_tells_contents_apart(size: int) -> None:
    payload = b'x' * size
    assert fingerprint(payload) == fingerprint(bytes(payload))
    assert fingerprint(payload) != fingerprint(payload + b'x')
    assert len(fingerprint(payload)) <= 65


def test_no_short_payload_has_the_fingerprint_of_a_long_one() -> None:
    digest = fingerprint(b'x' * 1000)
    assert fingerprint(digest) != digest


def test_messages_that_never_come_back_are_forgotten_some_day() -> None:
    own = OwnMessages()
    for number in range(5000):
        own.sent(b'%d' % number, copies=1, now=0)
    assert not own.recognises(b'0')
    assert own.recognises(b'4500')
    assert len(own._under_way) <= 1024
