"""What goes wrong in Redis with a history: at most it is a gap, which is told."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from tests.hub.history_rig import (
    KEYS,
    NAME,
    Member,
    channel_of,
    is_at,
    numbered,
    outage,
    publish,
    published_by,
    reads,
    run,
)
from tests.hub.rig import Home, bus_link_of
from ws4redis.broker.history import Position, read_command
from ws4redis.hub import histories, recovery
from ws4redis.hub.channel import Outcome
from ws4redis.hub.history_channel import State
from ws4redis.protocol.client.codes import DisconnectCode


@pytest.mark.parametrize(
    ('lost', 'gap'),
    [
        (('stream',), None),
        (('position',), None),
        (('stream', 'position'), Outcome.EPOCH),
    ],
)
@pytest.mark.parametrize('while_away', [True, False])
def test_keys_that_are_lost_cost_at_most_a_gap(
    hub: Home,
    redis_client: redis.Redis,
    lost: tuple[str, ...],
    gap: Outcome | None,
    while_away: bool,
) -> None:
    publish(redis_client, b'1')
    member = Member(hub, publish(redis_client, b'2'))
    member.wait()

    def lose() -> None:
        redis_client.delete(*(getattr(KEYS, kind) for kind in lost))

    if while_away:
        outage(hub, lose)
    else:
        lose()
    last = publish(redis_client, b'3')
    hub.turn_until(is_at(hub, last))
    if gap is None:
        member.receive(b'3')
        assert not hub.statistics.gaps
    else:
        assert member.peer.frames_until_end()[0].close_code == DisconnectCode.INSUFFICIENT_STATE
        assert hub.statistics.gaps == {gap: 1}


def test_what_was_trimmed_while_the_bus_was_away_is_a_gap_for_all(
    hub: Home, redis_client: redis.Redis
) -> None:
    seen = publish(redis_client, b'0')
    member, plain = Member(hub, seen), Member(hub)
    member.wait()
    plain.wait()
    outage(
        hub,
        lambda: (
            publish(redis_client, *numbered(1, 9)),
            redis_client.xtrim(KEYS.stream, maxlen=3, approximate=False),
        ),
    )
    assert hub.statistics.gaps == {Outcome.TRIMMED: 1}
    assert member.peer.frames_until_end()[0].close_reason == 'gap: trimmed'
    # A plain one goes on with the kept message, as without a history.
    plain.receive(b'0', b'9')


def test_offsets_that_are_given_out_again_begin_a_new_epoch(
    hub: Home, redis_client: redis.Redis
) -> None:
    publish(redis_client, b'1', b'2')
    kept = {name: redis_client.dump(getattr(KEYS, name)) for name in ('stream', 'position')}
    last = publish(redis_client, b'3', b'4')
    member = Member(hub, last)
    member.wait()

    def promote_a_replica_that_lacks_two() -> None:
        for name, value in kept.items():
            assert value is not None
            redis_client.restore(getattr(KEYS, name), 0, value, replace=True)
        publish(redis_client, b'other 3', b'other 4')

    outage(hub, promote_a_replica_that_lacks_two)
    assert hub.statistics.gaps == {Outcome.BROKEN: 1}
    assert member.peer.frames_until_end()[0].close_reason == 'gap: broken'
    position = channel_of(hub).position
    assert position is not None
    assert position.epoch != last.epoch
    assert publish(redis_client, b'5').epoch == position.epoch
    again = Member(hub, last)
    assert again.wait().outcome is Outcome.EPOCH


def test_a_gap_is_told_though_the_connection_is_lost_before_it_could_be(
    hub: Home, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = publish(redis_client, b'1', keep=0)
    Member(hub, last).wait()
    member = Member(hub, Position('another', 1))
    channel = channel_of(hub)
    hub.turn_until(lambda: channel.state is State.CATCHING_UP)
    with monkeypatch.context() as busy:
        # Others are served first.
        busy.setattr(recovery, 'STEP_PEERS', 0)
        hub.turn_until(lambda: channel.state is State.LIVE)
        assert member.joined is None
        bus_link_of(hub).lost('for the test')
        newest = publish(redis_client, b'2', b'3', keep=0)
    joined = member.wait()
    assert (joined.outcome, joined.position) == (Outcome.EPOCH, newest)
    assert joined.publications == []


def test_another_process_that_finds_the_chain_broken_tells_this_one(
    hub: Home, redis_client: redis.Redis
) -> None:
    last = publish(redis_client, b'1', b'2')
    member = Member(hub, last)
    member.wait()
    seen_by_the_other = Position(last.epoch, 9, 'lost')
    run(redis_client, read_command(KEYS, seen_by_the_other, has_seen=True))
    hub.turn_until(lambda: hub.statistics.gaps)
    assert hub.statistics.gaps == {Outcome.BROKEN: 1}
    assert member.peer.frames_until_end()[0].close_reason == 'gap: broken'
    before = reads(hub)
    plain = Member(hub)
    plain.wait()
    publish(redis_client, b'3')
    plain.receive(b'2', b'3')
    assert reads(hub) == before


def test_keys_of_other_types_are_put_right(hub: Home, redis_client: redis.Redis) -> None:
    member = Member(hub, publish(redis_client, b'0'))
    member.wait()

    def spoil() -> None:
        for key in (KEYS.stream, KEYS.position, KEYS.plain):
            redis_client.delete(key)
            redis_client.rpush(key, 'nonsense')

    spoil()
    assert published_by(hub, hub.peer(), b'1')[NAME].offset == 1
    outage(hub, spoil)
    plain = Member(hub)
    assert plain.wait().kept is None
    last = publish(redis_client, b'2')
    hub.turn_until(is_at(hub, last))
    plain.receive(b'2')


def test_messages_without_a_position_are_delivered_in_their_order(
    hub: Home, redis_client: redis.Redis
) -> None:
    member = Member(hub, publish(redis_client, b'0'))
    member.wait()
    publish(redis_client, b'1')
    redis_client.publish(NAME, 'plain')
    publish(redis_client, b'2')
    redis_client.publish(KEYS.events, b'P forged 7 tag before t')
    redis_client.publish(NAME, 'forged')
    publish(redis_client, b'3')
    received: list[str | bytes] = []

    def has_last() -> bool:
        received.extend(member.peer.messages())
        return bool(received) and received[-1] == '3'

    hub.turn_until(has_last)
    # What claims a position that Redis does not know is no publication.
    assert received == ['1', 'plain', '2', '3']
    assert not hub.statistics.gaps


def test_a_message_that_follows_no_other_makes_the_channel_catch_up(
    hub: Home, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = Member(hub, publish(redis_client, b'0'))
    member.wait()
    monkeypatch.setattr(histories, 'MAX_WAITING_BYTES', 1000)
    link = bus_link_of(hub)
    take, dropped = link.push_received, []

    def drop_some(push: list[Any]) -> None:
        if push[1] == KEYS.plain and push[2] in (b'2', b'3', b'7'):
            dropped.append(push[2])
        else:
            take(push)

    monkeypatch.setattr(link, 'push_received', drop_some)
    publish(redis_client, *numbered(1, 20))
    member.receive(*numbered(1, 20))
    assert dropped == [b'2', b'3', b'7']
    assert not hub.statistics.gaps
