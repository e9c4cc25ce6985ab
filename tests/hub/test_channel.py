"""A channel: its audiences by wire format, and who is about to join."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hub.rig import Home
from ws4redis.broker.history import Position
from ws4redis.broker.keys import keys_of
from ws4redis.hub.channel import Channel, Delay, Joined, Outcome, Request
from ws4redis.hub.joining import Joining
from ws4redis.hub.messages import Messages
from ws4redis.protocol.client.codes import DisconnectCode
from ws4redis.protocol.wire import PLAIN, deflate_wire


@pytest.fixture
def hub() -> Iterator[Home]:
    with Home() as hub:
        yield hub


def test_an_opening_is_done_when_each_of_its_channels_was_joined(hub: Home) -> None:
    done: list[str] = []
    joining = Joining(hub.peer().websocket, done=lambda: done.append('done'))
    first, second = joining.request('x'), joining.request('y')
    first.answer(Joined(Outcome.OK))
    assert done == []
    second.left()
    first.answer(Joined(Outcome.OK))
    joining.proceed()
    assert done == ['done']


def test_an_opening_that_must_not_wait_proceeds_once(hub: Home) -> None:
    done: list[str] = []
    joining = Joining(hub.peer().websocket, done=lambda: done.append('done'))
    requests = [joining.request('x'), joining.request('y')]
    requests[0].delay(Delay.AWAY)
    assert done == ['done']
    for request in requests:
        request.answer(Joined(Outcome.OK))
    assert done == ['done']


class Seen(dict[str, Position]):
    """What a client has seen."""

    def position_on(self, channel: str) -> Position | None:
        return self.get(channel)


NEWEST = Position('new', 7, 'tag')
SEEN = Seen({'x': Position('old', 5, 'tag'), 'y': Position('old', 5, 'tag')})


def gap_and_a_message() -> Joined:
    return Joined(Outcome.EPOCH, NEWEST, Messages.of([b'behind the gap']))


@pytest.mark.parametrize('is_attached', [True, False])
def test_a_gap_that_is_too_late_for_the_handshake_is_told_before_what_comes_behind_it(
    hub: Home, *, is_attached: bool
) -> None:
    peer = hub.peer(attached=is_attached)
    joining = Joining(peer.websocket, SEEN)
    request = joining.request('x')
    request.delay(Delay.AWAY)
    assert joining.answer(['x']) == ({}, {})
    request.answer(gap_and_a_message())
    if not is_attached:
        peer.attach()
    hub.turn()
    [frame] = peer.frames()
    assert (frame.close_code, frame.close_reason) == (
        DisconnectCode.INSUFFICIENT_STATE,
        'gap: epoch',
    )
    assert hub.statistics.messages_not_delivered.total() == 1


def test_each_gap_is_told_once_by_the_handshake_or_by_the_end(hub: Home) -> None:
    peer = hub.peer(attached=False)
    joining = Joining(peer.websocket, SEEN)
    requests = {name: joining.request(name) for name in 'xy'}
    requests['x'].answer(gap_and_a_message())
    # Redis takes too long for the other one.
    answer = joining.answer(['x', 'y'])
    assert answer.gaps == {'x': Outcome.EPOCH}
    assert answer.positions == {'x': Position('new', 6)}
    peer.attach()
    hub.turn()
    assert peer.messages() == ['behind the gap']
    requests['y'].answer(gap_and_a_message())
    hub.turn()
    assert [frame.close_reason for frame in peer.frames()] == ['gap: epoch']


def test_websockets_are_kept_by_their_wire_format(hub: Home) -> None:
    wire = deflate_wire(15, 6, 100)
    plain, deflating, other = hub.peer(), hub.peer(wire=wire), hub.peer(wire=wire)
    channel = Channel(keys_of(b'broadcast:x'))
    for peer in (plain, deflating, other):
        channel.add(peer.websocket)
    assert channel.audiences == {
        PLAIN: {plain.websocket},
        wire: {deflating.websocket, other.websocket},
    }
    for peer in (plain, deflating, other):
        assert channel.is_wanted
        assert channel.discard(peer.websocket) is None
    assert channel.audiences == {}
    assert not channel.is_wanted


def test_one_who_is_about_to_join_makes_the_channel_wanted(hub: Home) -> None:
    channel = Channel(keys_of(b'broadcast:x'))
    peer = hub.peer()
    request = Request(lambda joined: None)
    channel.joining[peer.websocket] = request
    assert channel.is_wanted
    assert channel.discard(peer.websocket) is request
    assert not channel.is_wanted
    assert channel.discard(peer.websocket) is None


def test_the_latest_message_is_recognised() -> None:
    channel = Channel(keys_of(b'broadcast:x'))
    assert not channel.repeats(b'a')
    channel.remember(b'a')
    assert channel.repeats(b'a')
    channel.remember(b'b' * 1000)
    assert not channel.repeats(b'a')
    assert channel.repeats(b'b' * 1000)
