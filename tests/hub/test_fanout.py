"""Fan-out: the order of a channel is kept, whoever joins, leaves or lags."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.hub.rig import Home, deliver_all, join
from ws4redis.broker.keys import keys_of
from ws4redis.hub import fanout
from ws4redis.hub.channel import Channel, Request
from ws4redis.hub.metrics import FACILITY_MESSAGES
from ws4redis.hub.options import HubOptions
from ws4redis.hub.publication import Publication
from ws4redis.hub.websocket import WebSocket
from ws4redis.protocol.wire import PLAIN, deflate_wire
from ws4redis.settings.facilities import FacilityOptions


@pytest.fixture
def hub() -> Iterator[Home]:
    with Home() as hub:
        yield hub


def numbers(messages: list[str | bytes]) -> list[int]:
    return [int(message) for message in messages]


def test_what_arrives_in_a_turn_goes_out_at_its_end_in_one_write(hub: Home) -> None:
    peer = hub.peer()
    channel = Channel(keys_of(b'broadcast:x'))
    join(channel, peer)
    hub.fanout.arrive(channel, Publication(b'one'))
    hub.fanout.arrive(channel, Publication(b'two'))
    assert peer.messages() == []
    assert not hub.fanout.turn_end()
    assert peer.socket.recv(100) == b'\x81\x03one\x81\x03two'
    assert hub.fanout.backlog_bytes == 0
    assert hub.statistics.messages_sent == 2
    assert hub.statistics.bytes_sent == 10


def test_each_audience_gets_its_own_wire_format(hub: Home) -> None:
    channel = Channel(keys_of(b'broadcast:x'))
    plain, deflating = hub.peer(), hub.peer(wire=deflate_wire(15, 6, 10))
    join(channel, plain, deflating)
    hub.fanout.arrive(channel, Publication(b'x' * 1000))
    hub.fanout.turn_end()
    assert [(f.rsv, len(f.payload)) for f in plain.frames()] == [(0, 1000)]
    [frame] = deflating.frames()
    assert frame.rsv == 4
    assert len(frame.payload) < 100


def test_channels_are_served_in_the_order_of_their_messages(hub: Home) -> None:
    channels = [Channel(keys_of(b'a')), Channel(keys_of(b'b')), Channel(keys_of(b'c'))]
    peer = hub.peer()
    for channel in channels:
        join(channel, peer)
    for name, number in (('b', 1), ('a', 2), ('c', 3)):
        hub.fanout.arrive(channels['abc'.index(name)], Publication(b'%d' % number))
    hub.fanout.turn_end()
    assert peer.messages() == ['1', '2', '3']


def test_the_last_message_and_the_moment_of_its_delivery_are_noted(hub: Home) -> None:
    channel = Channel(keys_of(b'broadcast:x'))
    join(channel, hub.peer())
    hub.fanout.arrive(channel, Publication(b'one'))
    hub.fanout.arrive(channel, Publication(b'two'))
    hub.fanout.turn_end()
    assert channel.repeats(b'two')
    assert channel.delivered_at > 0


def test_a_large_audience_is_served_in_slices_with_room_for_others(
    hub: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, 'STEP_PEERS', 10)
    monkeypatch.setattr(fanout, 'TURN_SECONDS', 0)
    channel, small = Channel(keys_of(b'large')), Channel(keys_of(b'small'))
    peers = [hub.peer() for _ in range(35)]
    join(channel, *peers)
    single = hub.peer()
    join(small, single)
    hub.fanout.arrive(channel, Publication(b'1'))
    hub.fanout.arrive(small, Publication(b'2'))
    served = []
    while hub.fanout.turn_end():
        served.append(hub.statistics.messages_sent)
        # Between two steps the loop turns: this is when others get their share. The small channel
        # does not wait for the large one.
        if len(served) == 2:
            assert single.messages() == ['2']
    assert served == [10, 11, 21, 31]
    assert all(peer.messages() == ['1'] for peer in peers)


@pytest.mark.parametrize('gather_peers', [1, 1000])
def test_order_holds_while_an_audience_is_served_in_slices_and_others_come_and_go(
    hub: Home, monkeypatch: pytest.MonkeyPatch, gather_peers: int
) -> None:
    monkeypatch.setattr(fanout, 'GATHER_PEERS', gather_peers)
    monkeypatch.setattr(fanout, 'STEP_PEERS', 3)
    monkeypatch.setattr(fanout, 'TURN_SECONDS', 0)
    channel = Channel(keys_of(b'broadcast:x'))
    members = [hub.peer() for _ in range(10)]
    join(channel, *members)
    received: dict[int, list[int]] = {}
    everyone = list(members)
    joined_at: dict[int, int] = {id(peer): 0 for peer in members}
    left: set[int] = set()
    for number in range(60):
        hub.fanout.arrive(channel, Publication(b'%d' % number))
        if number % 3 == 0:
            # As the bus does it: what arrived before goes to those who were there before.
            hub.fanout.settle(channel)
            newcomer = hub.peer()
            join(channel, newcomer)
            joined_at[id(newcomer)] = number + 1
            members.append(newcomer)
            everyone.append(newcomer)
        if number % 7 == 0:
            leaver = members.pop(0)
            leaver.websocket.hub.leave_channels(leaver.websocket)
            left.add(id(leaver))
        hub.fanout.turn_end()
    while hub.fanout.turn_end():
        pass
    for peer in everyone:
        received[id(peer)] = numbers(peer.messages())
    for peer in everyone:
        got = received[id(peer)]
        first = joined_at[id(peer)]
        if id(peer) in left:
            assert got == list(range(first, first + len(got)))
        else:
            assert got == list(range(first, 60))


def test_who_was_not_served_yet_gets_what_has_arrived_since_in_the_same_write(
    hub: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, 'GATHER_PEERS', 10)
    monkeypatch.setattr(fanout, 'STEP_PEERS', 2)
    written: list[int] = []
    deliver = hub.fanout._deliver

    def note(peers: list[WebSocket], *what: Any) -> None:
        written.append(len(peers))
        deliver(peers, *what)  # type: ignore[arg-type]

    monkeypatch.setattr(hub.fanout, '_deliver', note)
    channel = Channel(keys_of(b'broadcast:x'))
    peers = [hub.peer(wire=wire) for wire in (PLAIN, deflate_wire(15, 6, 10)) for _ in range(5)]
    join(channel, *peers)
    # A burst comes in pieces.
    for piece in ([0], [1, 2]):
        for number in piece:
            hub.fanout.arrive(channel, Publication(b'%d' % number))
        hub.fanout.turn_end()
    while hub.fanout.turn_end():
        pass
    assert [numbers(peer.messages()) for peer in peers] == [[0, 1, 2]] * 10
    # Four of them got the first alone.
    assert sum(written) == 14
    assert hub.fanout.backlog_bytes == 0
    assert channel.repeats(b'2')


def test_one_that_closes_between_two_slices_gets_nothing_after_its_close_frame(
    hub: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, 'STEP_PEERS', 1)
    monkeypatch.setattr(fanout, 'TURN_SECONDS', 0)
    channel = Channel(keys_of(b'broadcast:x'))
    peers = [hub.peer(), hub.peer()]
    join(channel, *peers)
    hub.fanout.arrive(channel, Publication(b'message'))
    hub.fanout.turn_end()
    [late] = [peer for peer in peers if not peer.frames()]
    late.websocket.close(1001)
    while hub.fanout.turn_end():
        pass
    [frame] = late.frames()
    assert frame.close_code == 1001
    assert hub.statistics.messages_dropped == 1


def test_a_full_backlog_is_told_until_it_was_delivered(
    hub: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, 'MAX_BACKLOG_BYTES', 1000)
    channel = Channel(keys_of(b'broadcast:x'))
    join(channel, hub.peer())
    hub.fanout.arrive(channel, Publication(b'x' * 1000))
    assert not hub.fanout.is_congested
    hub.fanout.arrive(channel, Publication(b'x'))
    assert hub.fanout.is_congested
    hub.fanout.turn_end()
    assert not hub.fanout.is_congested


def test_one_that_lags_gets_all_in_order_and_delays_nobody(hub: Home) -> None:
    channel = Channel(keys_of(b'broadcast:x'))
    slow, quick = hub.peer(small_buffers=True), hub.peer()
    join(channel, slow, quick)
    got: list[str | bytes] = []
    for number in range(300):
        hub.fanout.arrive(channel, Publication(b'%07d' % number + b' ' * 993))
        hub.turn()
        assert [int(m) for m in quick.messages()] == [number]
    assert slow.websocket.queued_bytes > 0
    while len(got) < 300:
        got += slow.messages()
        hub.turn()
    assert numbers(got) == list(range(300))
    assert hub.statistics.messages_sent == 600


def test_one_whose_peer_has_gone_is_let_go_and_the_others_are_served(hub: Home) -> None:
    channel = Channel(keys_of(b'broadcast:x'))
    gone, other = hub.peer(), hub.peer()
    join(channel, gone, other)
    gone.socket.close()
    hub.fanout.arrive(channel, Publication(b'message'))
    hub.fanout.turn_end()
    assert other.messages() == ['message']
    assert [code for code, _ in gone.receiver.closed] == [1006]
    assert (hub.statistics.messages_sent, hub.statistics.messages_dropped) == (1, 1)


def test_large_messages_are_sent_to_a_few_at_a_time(
    hub: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, 'STEP_BYTES', 30_000)
    monkeypatch.setattr(fanout, 'TURN_SECONDS', 0)
    channel = Channel(keys_of(b'broadcast:x'))
    peers = [hub.peer() for _ in range(10)]
    join(channel, *peers)
    hub.fanout.arrive(channel, Publication(b'x' * 10_000))
    assert deliver_all(hub) == 5
    assert [peer.messages() for peer in peers] == [['x' * 10_000]] * 10
    # The bytes of a message larger than that go to one at a time.
    hub.fanout.arrive(channel, Publication(b'x' * 40_000))
    assert deliver_all(hub) == 10


def test_a_large_batch_goes_out_in_portions_that_leave_room_for_other_channels(
    hub: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, 'PORTION_BYTES', 2000)
    monkeypatch.setattr(fanout, 'TURN_SECONDS', 0)
    flooded, other = Channel(keys_of(b'flooded')), Channel(keys_of(b'other'))
    reader, bystander = hub.peer(), hub.peer()
    join(flooded, reader)
    join(other, bystander)
    for number in range(20):
        hub.fanout.arrive(flooded, Publication(b'%03d' % number + b' ' * 797))
    hub.fanout.arrive(other, Publication(b'42'))
    for _ in range(2):
        assert hub.fanout.turn_end()
    assert bystander.messages() == ['42']
    assert numbers(reader.messages()) == [0, 1]
    # What comes meanwhile goes out behind what was there.
    hub.fanout.arrive(flooded, Publication(b'20'))
    assert hub.fanout.latest_waiting(flooded) == b'20'
    deliver_all(hub)
    assert numbers(reader.messages()) == list(range(2, 21))
    assert hub.fanout.backlog_bytes == 0
    assert hub.fanout.latest_waiting(flooded) is None
    assert flooded.repeats(b'20')


def test_a_turn_delivers_until_its_time_is_over(hub: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, 'STEP_PEERS', 1)
    ticks = iter(range(1000))
    hub.fanout._clock = lambda: next(ticks) * 0.001
    channel = Channel(keys_of(b'broadcast:x'))
    join(channel, *(hub.peer() for _ in range(20)))
    hub.fanout.arrive(channel, Publication(b'message'))
    assert hub.fanout.turn_end()
    sent = hub.statistics.messages_sent
    assert 1 < sent < 20
    assert hub.fanout.turn_end()
    assert hub.statistics.messages_sent > sent


def test_a_failure_costs_others_in_the_channel_nothing_that_comes_later(
    hub: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fanout, 'PORTION_BYTES', 10)
    channel = Channel(keys_of(b'broadcast:x'))
    peer = hub.peer()
    join(channel, peer)
    hub.fanout.arrive(channel, Publication(b'fails'))
    hub.fanout.arrive(channel, Publication(b'of the same batch'))
    with monkeypatch.context() as patched:

        def fail(*args: object) -> None:
            patched.undo()
            raise RuntimeError('a fault of ours')

        patched.setattr(hub.fanout, '_deliver', fail)
        deliver_all(hub)
    hub.fanout.arrive(channel, Publication(b'later'))
    deliver_all(hub)
    assert peer.messages() == ['of the same batch', 'later']
    assert 'a fault of ours' in caplog.text
    assert hub.fanout.backlog_bytes == 0


def test_what_arrives_while_a_single_websocket_is_sent_to_goes_out_after_it(
    hub: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = Channel(keys_of(b'broadcast:x'))
    peer = hub.peer()
    join(channel, peer)
    send = WebSocket.send

    def send_and_publish(websocket: WebSocket, data: bytes, *, messages: int = 0) -> None:
        monkeypatch.undo()
        hub.fanout.arrive(channel, Publication(b'second'))
        send(websocket, data, messages=messages)

    monkeypatch.setattr(WebSocket, 'send', send_and_publish)
    hub.fanout.arrive(channel, Publication(b'first'))
    deliver_all(hub)
    assert peer.messages() == ['first', 'second']
    assert hub.statistics.messages_sent == 2
    assert hub.fanout.backlog_bytes == channel.backlog_bytes == 0


def test_a_call_waits_its_turn_as_a_message_for_one_websocket_would(
    hub: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, 'STEP_PEERS', 1)
    peers = [hub.peer() for _ in range(2)]
    channel = Channel(keys_of(b'broadcast:x'))
    join(channel, *peers)
    got: list[int] = []
    hub.fanout.arrive(channel, Publication(b'hello'))
    hub.fanout.call_in_turn(
        Channel(keys_of(b'probe')), lambda: got.append(sum(len(p.messages()) for p in peers))
    )
    assert got == []
    while hub.fanout.turn_end():
        pass
    assert got == [1]
    assert sum(len(peer.messages()) for peer in peers) == 1


def test_messages_are_counted_by_pattern_however_many_channels_there_are(
    hub: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, 'MAX_COUNTED_CHANNELS', 1)
    hub.fanout.arrivals = {}
    before = FACILITY_MESSAGES.read().get('chat/*', 0)
    for name, count in ((b'broadcast:chat/1', 1), (b'broadcast:chat/2', 3)):
        channel = Channel(keys_of(name))
        channel.pattern = 'chat/*'
        join(channel, hub.peer())
        for _ in range(count):
            hub.fanout.arrive(channel, Publication(b'hello'))
    hub.fanout.turn_end()
    assert FACILITY_MESSAGES.read()['chat/*'] - before == 4
    assert hub.fanout.arrivals == {b'broadcast:chat/1': 1}


def test_channels_are_counted_by_the_pattern_of_their_facility() -> None:
    options = HubOptions(facility_of_channel=lambda name: FacilityOptions(pattern=name[-6:]))
    with Home(options=options) as hub:
        hub.bus.join(hub.peer().websocket, 'broadcast:chat/*', Request(lambda joined: None))
        assert hub.bus.channels[b'broadcast:chat/*'].pattern == 'chat/*'
