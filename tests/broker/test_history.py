"""The scripts of histories, run by a real Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.programs import RedisServer
from tests.timeouts import SOON_SECONDS
from ws4redis.broker.history import (
    EMPTY_SECONDS,
    POSITION_SECONDS,
    Header,
    Kind,
    NewEpoch,
    Outcome,
    Position,
    Published,
    Reading,
    header_without_position,
    parse_event,
    parse_published,
    parse_reading,
    publish_command,
    read_command,
)
from ws4redis.broker.keys import keys_of
from ws4redis.broker.publication import Command
from ws4redis.broker.scripts import PUBLISH, READ
from ws4redis.settings.facilities import FacilityOptions

KEYS = keys_of(b'broadcast:chat')
OPTIONS = FacilityOptions(history_size=5, history_seconds=60)


class Channel:
    """Call the scripts for one channel."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def run(self, command: Command) -> Any:
        script = PUBLISH if command[1] == PUBLISH.digest else READ
        return self.client.execute_command(*script.with_text(command))

    def publish(self, payload: bytes, **options: Any) -> Published:
        keep = options.pop('keep_seconds', 10)
        command = publish_command(KEYS, payload, OPTIONS, keep_seconds=keep, **options)
        return parse_published(self.run(command))

    def read(self, since: Position | None = None, **options: Any) -> Reading:
        return parse_reading(self.run(read_command(KEYS, since, **options)))

    def payloads(self, since: Position | None, **options: Any) -> list[bytes]:
        reading = self.read(since, **options)
        assert reading.outcome is Outcome.OK
        return [entry.payload for entry in reading.entries]


@pytest.fixture
def channel(redis_client: redis.Redis) -> Channel:
    return Channel(redis_client)


def test_offsets_are_counted_without_holes_and_each_publication_names_the_one_before(
    channel: Channel,
) -> None:
    start = channel.read().newest
    published = [channel.publish(str(n).encode()).position for n in range(3)]
    assert [p.offset for p in published] == [1, 2, 3]
    assert {p.epoch for p in published} == {start.epoch}
    entries = channel.read(start).entries
    assert [e.offset for e in entries] == [1, 2, 3]
    assert [e.tag_before for e in entries] == ['-', entries[0].tag, entries[1].tag]
    assert channel.read().newest == published[-1]


def test_a_position_gets_what_came_after_it(channel: Channel) -> None:
    first = channel.publish(b'1').position
    last = channel.publish(b'2').position
    channel.publish(b'3', kind=Kind.JSON)
    assert channel.payloads(first) == [b'2', b'3']
    assert channel.payloads(last) == [b'3']
    assert channel.payloads(Position(first.epoch, first.offset)) == [b'2', b'3']
    assert channel.payloads(first, limit=1) == [b'2']
    assert [e.kind for e in channel.read(first).entries] == [Kind.TEXT, Kind.JSON]


def test_the_header_comes_right_before_the_payload(
    channel: Channel, redis_client: redis.Redis
) -> None:
    with redis_client.pubsub() as pubsub:
        pubsub.subscribe(KEYS.plain, KEYS.events)
        position = channel.publish(b'hello').position
        messages: list[tuple[bytes, bytes]] = []
        while len(messages) < 2:
            message = pubsub.get_message(ignore_subscribe_messages=True, timeout=SOON_SECONDS)
            if message is not None:
                messages.append((message['channel'], message['data']))
    (events, header), (plain, payload) = messages
    assert (events, plain, payload) == (KEYS.events, KEYS.plain, b'hello')
    assert parse_event(header) == Header(position, '-', Kind.TEXT)


def test_the_message_is_kept_as_long_as_said_and_nothing_lives_for_ever(
    channel: Channel, redis_client: redis.Redis
) -> None:
    channel.publish(b'kept', keep_seconds=100, once='a')
    channel.publish(b'not kept', keep_seconds=0)
    assert channel.read().kept == b'kept'
    assert 90 < redis_client.ttl(KEYS.plain) <= 100
    assert 50 < redis_client.ttl(KEYS.stream) <= 60
    assert redis_client.ttl(KEYS.position) > 600000
    assert all(redis_client.ttl(key) > 0 for key in redis_client.scan_iter())


def test_the_numbering_of_a_channel_without_publications_lives_for_minutes_after_each_read(
    channel: Channel, redis_client: redis.Redis
) -> None:
    start = channel.read().newest
    # Else whoever joins channels of random names fills Redis for a week.
    assert EMPTY_SECONDS - 10 < redis_client.ttl(KEYS.position) <= EMPTY_SECONDS
    redis_client.expire(KEYS.position, 10)
    assert channel.read(start).newest == start
    assert redis_client.ttl(KEYS.position) > EMPTY_SECONDS - 10
    first = channel.publish(b'1').position
    assert (first.epoch, first.offset) == (start.epoch, 1)
    assert channel.payloads(start) == [b'1']
    assert redis_client.ttl(KEYS.position) > POSITION_SECONDS - 10


def test_an_idempotency_key_publishes_once(channel: Channel) -> None:
    first = channel.publish(b'paid', once='order 7')
    again = channel.publish(b'paid', once='order 7')
    other = channel.publish(b'paid', once='order 8')
    assert (first.is_new, again.is_new, other.is_new) == (True, False, True)
    assert again.position == first.position
    assert other.position.offset == 2


def test_what_was_trimmed_is_a_gap_and_the_newest_position_is_not(channel: Channel) -> None:
    first = channel.publish(b'0').position
    for number in range(6):
        last = channel.publish(str(number).encode()).position
    assert channel.read(first).outcome is Outcome.TRIMMED
    assert channel.payloads(last) == []


def delete_stream(client: redis.Redis) -> None:
    client.delete(KEYS.stream)


def delete_position(client: redis.Redis) -> None:
    client.delete(KEYS.position)


def spoil_position(client: redis.Redis) -> None:
    client.set(KEYS.position, 'nonsense')


def spoil_stream(client: redis.Redis) -> None:
    client.set(KEYS.stream, 'nonsense')


@pytest.mark.parametrize('harm', [delete_stream, spoil_stream])
def test_a_lost_stream_is_no_news_to_who_has_seen_all(
    channel: Channel, redis_client: redis.Redis, harm: Callable[[redis.Redis], None]
) -> None:
    first = channel.publish(b'1').position
    last = channel.publish(b'2').position
    harm(redis_client)
    assert channel.payloads(last) == []
    assert channel.read(first).outcome is Outcome.TRIMMED
    assert channel.publish(b'3').position.offset == 3
    assert channel.payloads(last) == [b'3']
    assert channel.read(first).outcome is Outcome.TRIMMED


@pytest.mark.parametrize('harm', [delete_position, spoil_position])
def test_a_lost_position_is_taken_from_the_stream(
    channel: Channel, redis_client: redis.Redis, harm: Callable[[redis.Redis], None]
) -> None:
    first = channel.publish(b'1').position
    channel.publish(b'2')
    harm(redis_client)
    assert channel.publish(b'3').position.offset == 3
    assert channel.payloads(first) == [b'2', b'3']


def test_without_stream_and_position_a_new_epoch_begins(
    channel: Channel, redis_client: redis.Redis
) -> None:
    first = channel.publish(b'1').position
    redis_client.flushall()
    assert channel.read(first).outcome is Outcome.EPOCH
    again = channel.publish(b'1').position
    assert again.offset == 1
    assert again.epoch != first.epoch


def test_a_reused_offset_is_noticed_by_who_has_seen_it_and_begins_a_new_epoch(
    channel: Channel, redis_client: redis.Redis
) -> None:
    channel.publish(b'1')
    stream, position = redis_client.dump(KEYS.stream), redis_client.dump(KEYS.position)
    assert stream is not None
    assert position is not None
    seen = channel.publish(b'lost with the master').position
    # A replica was promoted that lacks the last publication.
    redis_client.restore(KEYS.stream, 0, stream, replace=True)
    redis_client.restore(KEYS.position, 0, position, replace=True)
    assert channel.read(seen).outcome is Outcome.BROKEN
    reused = channel.publish(b'another').position
    assert (reused.epoch, reused.offset) == (seen.epoch, seen.offset)
    assert channel.read(seen).newest.epoch == seen.epoch  # nobody is believed but processes
    with redis_client.pubsub() as pubsub:
        pubsub.subscribe(KEYS.events)
        pubsub.get_message(timeout=SOON_SECONDS)
        reading = channel.read(seen, has_seen=True)
        event = pubsub.get_message(timeout=SOON_SECONDS)
    assert reading.outcome is Outcome.BROKEN
    assert reading.newest.epoch != seen.epoch
    assert event is not None
    assert parse_event(event['data']) == NewEpoch(reading.newest)
    assert channel.read(Position(seen.epoch, seen.offset)).outcome is Outcome.EPOCH
    delete_position(redis_client)
    assert channel.read().newest.epoch == reading.newest.epoch
    assert channel.publish(b'after').position.epoch == reading.newest.epoch
    assert channel.payloads(reading.newest) == [b'after']


def test_a_position_behind_its_stream_begins_a_new_epoch(
    channel: Channel, redis_client: redis.Redis
) -> None:
    channel.publish(b'1')
    position = redis_client.dump(KEYS.position)
    assert position is not None
    last = channel.publish(b'2').position
    redis_client.restore(KEYS.position, 0, position, replace=True)
    again = channel.publish(b'3').position
    assert again.epoch != last.epoch
    assert channel.payloads(Position(again.epoch, 0)) == [b'3']


def test_nothing_is_half_published_when_redis_refuses_to_write(redis_server: RedisServer) -> None:
    with redis_server.client() as client, client.pubsub() as pubsub:
        channel = Channel(client)
        channel.publish(b'1')
        pubsub.subscribe(KEYS.plain)
        pubsub.get_message(timeout=SOON_SECONDS)
        client.config_set('maxmemory', 1)
        try:
            with pytest.raises(redis.ResponseError, match='maxmemory'):
                channel.publish(b'2')
        finally:
            client.config_set('maxmemory', 0)
        channel.publish(b'3')
        message = pubsub.get_message(timeout=SOON_SECONDS)
        assert message is not None
        assert message['data'] == b'3'
        assert channel.read().newest.offset == 2


def test_a_header_may_tell_of_the_kind_alone() -> None:
    assert parse_event(header_without_position(Kind.JSON)) == Header(None, '', Kind.JSON)


@pytest.mark.parametrize('event', [b'', b'P', b'P a x b c t', b'P a 1 b c x', b'E a b c', b'\xff'])
def test_events_that_nobody_knows_are_none(event: bytes) -> None:
    assert parse_event(event) is None


@pytest.mark.parametrize('text', ['', 'a', 'a.b.c', '.1.c', 'a.-1.c', 'a.1.c.d', f'a.{"9" * 16}.c'])
def test_nonsense_is_no_position(text: str) -> None:
    with pytest.raises(ValueError):
        Position.parse(text)


def test_a_position_survives_being_written() -> None:
    position = Position('abc', 12, 'def')
    assert Position.parse(str(position)) == position
