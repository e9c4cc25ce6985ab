"""Fan-out to websockets that send themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hub.rig import Clock, Home, deliver_all, join
from ws4redis.broker.keys import keys_of
from ws4redis.hub import fanout, messages, own_messages
from ws4redis.hub.channel import Channel
from ws4redis.hub.publication import Publication
from ws4redis.hub.websocket import Paused


@pytest.fixture
def hub() -> Iterator[Home]:
    with Home() as hub:
        yield hub


def test_after_its_own_messages_have_come_back_a_websocket_is_sent_to_directly_again(
    hub: Home,
) -> None:
    channel = hub.bus.channels[b'broadcast:x'] = Channel(keys_of(b'broadcast:x'))
    sender, other = hub.peer(), hub.peer()
    join(channel, sender, other)
    for payload in (b'one', b'two'):
        sender.websocket.remember_own(payload, ('broadcast:x',))
        assert not sender.websocket.direct
    for payload in (b'one', b'two', b'three'):
        hub.fanout.arrive(channel, Publication(payload))
        deliver_all(hub)
    assert sender.websocket.direct
    assert sender.messages() == ['three']
    # The content of its last own message is kept from it, whoever sends it.
    for payload in (b'two', b'one', b'two'):
        hub.fanout.arrive(channel, Publication(payload))
        deliver_all(hub)
        assert sender.websocket.direct
    assert sender.messages() == ['one']
    assert other.messages() == ['one', 'two', 'three', 'two', 'one', 'two']


def test_a_sender_whose_message_never_comes_back_is_some_day_sent_to_directly() -> None:
    clock = Clock()
    with Home(clock=clock) as hub:
        channel = hub.bus.channels[b'broadcast:x'] = Channel(keys_of(b'broadcast:x'))
        sender = hub.peer()
        join(channel, sender)
        sender.websocket.remember_own(b'lost', ('broadcast:x',))
        hub.fanout.arrive(channel, Publication(b'one'))
        deliver_all(hub)
        assert not sender.websocket.direct
        clock.advance(2 * hub.options.redis_timeout_seconds + 1)
        hub.fanout.arrive(channel, Publication(b'two'))
        deliver_all(hub)
        assert sender.websocket.direct
        assert sender.messages() == ['one', 'two']


def test_a_message_is_hashed_once_however_many_have_sent_something(
    hub: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []

    def fingerprint(payload: bytes) -> bytes:
        hashed.append(payload)
        return own_messages.fingerprint(payload)

    monkeypatch.setattr(messages, 'fingerprint', fingerprint)
    channel = Channel(keys_of(b'broadcast:x'))
    peers = [hub.peer() for _ in range(50)]
    join(channel, *peers)
    for number, peer in enumerate(peers):
        peer.websocket.remember_own(b'%d' % number, ('broadcast:x',))
    hub.fanout.arrive(channel, Publication(b'x' * 1000))
    deliver_all(hub)
    assert hashed == [b'x' * 1000]


def test_nothing_is_remembered_of_senders_that_have_gone(hub: Home) -> None:
    peers = [hub.peer() for _ in range(3)]
    channel = Channel(keys_of(b'broadcast:x'))
    join(channel, *peers)
    for peer in peers:
        peer.websocket.remember_own(b'same', ())
        peer.websocket.remember_own(b'same again', ())
    hub.fanout.arrive(channel, Publication(b'of another'))
    deliver_all(hub)
    for peer in peers:
        assert hub.fanout.last_own
        peer.websocket.lost()
    assert not hub.fanout.last_own


def test_a_sender_in_no_channel_costs_deliveries_to_others_nothing(hub: Home) -> None:
    sender, listener = hub.peer(), hub.peer()
    channel = Channel(keys_of(b'broadcast:x'))
    join(channel, listener)
    sender.websocket.remember_own(b'hello', ('broadcast:x',))
    assert not hub.fanout.last_own
    hub.fanout.arrive(channel, Publication(b'hello'))
    deliver_all(hub)
    assert not hub.fanout.last_own
    assert listener.messages() == ['hello']


def test_who_sends_and_joins_later_is_not_sent_what_it_has_sent_last(hub: Home) -> None:
    peer = hub.peer()
    channel = Channel(keys_of(b'broadcast:x'))
    peer.websocket.remember_own(b'hello', ('broadcast:x',))
    join(channel, peer)
    for payload in (b'hello', b'other', b'hello', b'end'):
        hub.fanout.arrive(channel, Publication(payload))
        deliver_all(hub)
    assert peer.messages() == ['other', 'end']


def test_who_publishes_faster_than_the_channel_is_served_is_not_read(
    hub: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, 'MAX_CHANNEL_BACKLOG_BYTES', 10_000)
    monkeypatch.setattr(fanout, 'PORTION_BYTES', 1000)
    monkeypatch.setattr(fanout, 'TURN_SECONDS', 0)
    crowded = hub.bus.channels[b'crowded'] = Channel(keys_of(b'crowded'))
    hub.bus.channels[b'other'] = Channel(keys_of(b'other'))
    join(crowded, hub.peer())
    quick, bystander = hub.peer(), hub.peer()
    for _ in range(11):
        hub.fanout.arrive(crowded, Publication(b'x' * 1000))
    hub.publish(quick.websocket, ('crowded',), b'one more')
    hub.publish(bystander.websocket, ('other',), b'mine')
    assert quick.websocket.paused & Paused.CHANNEL
    assert not bystander.websocket.paused & Paused.CHANNEL
    for _ in range(4):
        hub.fanout.turn_end()
    assert quick.websocket.paused & Paused.CHANNEL
    hub.fanout.turn_end()
    assert not quick.websocket.paused & Paused.CHANNEL
    deliver_all(hub)
    assert crowded.backlog_bytes == hub.fanout.backlog_bytes == 0
