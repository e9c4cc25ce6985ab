"""What a worker writes reaches each server in order, and no server waits for another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest
import redis

from tests.programs import RedisServer
from tests.timeouts import SOON_SECONDS, wait_until
from ws4redis.handlers.multiprocess.answers import Answers
from ws4redis.handlers.multiprocess.events import Event, Kind, parse
from ws4redis.handlers.multiprocess.names import KeyNames
from ws4redis.handlers.multiprocess.remote_lane import Entry, RemoteLane

NAMES = KeyNames()


class Lane:
    """What the writer looks at in a lane."""

    def __init__(self, server: str, number: int) -> None:
        self.server = server
        self.number = number
        self.answers = 0
        self.seen = 0


def lane_of(server: str, number: int = 1) -> RemoteLane:
    return cast('RemoteLane', Lane(server, number))


class Rig:
    """Answers with their thread, and the streams that they are written to."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.living = {'healthy', 'killed'}
        self.answers = Answers(NAMES, 'worker', has_websockets=self.living.__contains__)
        self._thread = threading.Thread(target=self.answers.write_all)
        self._thread.start()

    def finish(self) -> bool:
        """Let the writer end; tell whether it did."""
        self.answers.finish()
        self._thread.join(SOON_SECONDS)
        return not self._thread.is_alive()

    def make_stream(self, server: str) -> None:
        self.client.xadd(NAMES.answers(server), {b'hello': Event(b'hello', server, 0, 0).content()})

    def received(self, server: str) -> list[Event]:
        """Return what a server was sent, after the entry that makes its stream."""
        entries: Any = self.client.execute_command(
            'XRANGE', NAMES.answers(server), '-', '+', NEVER_DECODE=True
        )
        events: list[Event] = []
        for _, fields in entries:
            # redis-py makes a dictionary of the fields, unless told otherwise.
            words = fields if isinstance(fields, list) else [w for p in fields.items() for w in p]
            events += [parse(k, c) for k, c in zip(words[::2], words[1::2], strict=True)]
        return [event for event in events if event.kind != b'hello']

    def payloads(self, server: str) -> list[bytes]:
        return [event.payload for event in self.received(server) if event.payload]


@pytest.fixture
def rig(redis_server: RedisServer) -> Iterator[Rig]:
    with redis_server.client() as client:
        client.set_response_callback('XRANGE', lambda reply, **options: reply)
        rig = Rig(client)
        yield rig
        assert rig.finish()


def test_a_server_whose_stream_is_missing_delays_no_other(rig: Rig) -> None:
    rig.make_stream('healthy')
    killed, healthy = lane_of('killed'), lane_of('healthy')
    for number in range(5):
        rig.answers.answer(killed, Kind.SEND_TEXT, b'lost %d' % number)
        rig.answers.answer(healthy, Kind.SEND_TEXT, b'%d' % number)
        # Each arrives while the other server's wait.
        wait_until(lambda n=number: len(rig.payloads('healthy')) == n + 1)  # type: ignore[misc]
    assert not rig.client.exists(NAMES.answers('killed'))
    assert [event.number for event in rig.received('healthy')] == [1, 2, 3, 4, 5]


def test_what_waited_for_a_stream_comes_in_order_when_it_is_there(rig: Rig) -> None:
    lane = lane_of('killed')
    rig.make_stream('healthy')
    for number in range(3):
        rig.answers.answer(lane, Kind.SEND_TEXT, b'%d' % number)
        rig.answers.answer(lane_of('healthy'), Kind.SEND_TEXT, b'x')
        wait_until(lambda n=number: len(rig.payloads('healthy')) == n + 1)  # type: ignore[misc]
    rig.make_stream('killed')
    wait_until(lambda: len(rig.payloads('killed')) == 3)
    assert rig.payloads('killed') == [b'0', b'1', b'2']


def test_a_server_without_websockets_is_forgotten_with_its_stream(rig: Rig) -> None:
    rig.living.discard('killed')
    rig.make_stream('healthy')
    rig.answers.answer(lane_of('killed'), Kind.SEND_TEXT, b'x')
    rig.answers.answer(lane_of('healthy'), Kind.SEND_TEXT, b'after it')
    wait_until(lambda: rig.payloads('healthy'))
    rig.make_stream('killed')
    rig.answers.answer(lane_of('killed'), Kind.SEND_TEXT, b'y')
    wait_until(lambda: rig.payloads('killed') == [b'y'])


def test_a_server_that_was_dropped_gets_nothing_more(rig: Rig) -> None:
    rig.answers.answer(lane_of('killed'), Kind.SEND_TEXT, b'x')
    wait_until(lambda: 'killed' in rig.answers._retry_at)
    # Its handlers have ended, so that what is being written just now is not kept either.
    rig.living.discard('killed')
    rig.answers.drop('killed')
    wait_until(lambda: not rig.answers._pending and not rig.answers._retry_at)


def test_what_was_seen_follows_the_answers_and_removes_the_entry(rig: Rig) -> None:
    rig.make_stream('healthy')
    stream = NAMES.events('worker')
    rig.client.xgroup_create(stream, 'worker', id='0', mkstream=True)
    entry_id: Any = rig.client.xadd(stream, {b'text': b'x'})
    rig.client.xreadgroup('worker', 'worker', {stream: '>'})
    lane, entry = lane_of('healthy'), Entry(entry_id, 2)
    rig.answers.answer(lane, Kind.SEND_TEXT, b'answer')
    for _ in range(2):
        lane.seen += 1
        rig.answers.event_seen(lane, entry)
    wait_until(lambda: not rig.client.xlen(stream))
    received = rig.received('healthy')
    assert received[0] == Event(b'send-text', 'worker', 1, 1, b'answer')
    assert received[-1] == Event(b'seen', 'worker', 1, 2)
    pending: Any = rig.client.xpending(stream, 'worker')
    assert pending['pending'] == 0


def test_a_report_has_all_websockets_of_a_server_and_a_repetition_what_was_seen(rig: Rig) -> None:
    rig.make_stream('healthy')
    one, two = lane_of('healthy', 1), lane_of('healthy', 2)
    rig.answers.answer(two, Kind.ACCEPT, b'')
    rig.answers.report('healthy', [one, two])
    rig.answers.seen_before('healthy', 7, 9)
    wait_until(lambda: len(rig.received('healthy')) == 3)
    assert rig.received('healthy')[1:] == [
        Event(b'state', 'worker', 0, 0, b'1:0 2:1'),
        Event(b'seen', 'worker', 7, 9),
    ]


def test_what_redis_did_not_take_while_it_was_away_is_written_afterwards(
    rig: Rig, redis_server: RedisServer
) -> None:
    rig.make_stream('healthy')
    lane = lane_of('healthy')
    rig.answers.answer(lane, Kind.SEND_TEXT, b'0')
    wait_until(lambda: rig.payloads('healthy') == [b'0'])
    redis_server.kill()
    rig.answers.answer(lane, Kind.SEND_TEXT, b'1')
    rig.answers.answer(lane, Kind.SEND_TEXT, b'2')
    redis_server.start()
    rig.make_stream('healthy')
    wait_until(lambda: rig.payloads('healthy')[-2:] == [b'1', b'2'])


def test_a_writer_ends_though_redis_is_away(rig: Rig, redis_server: RedisServer) -> None:
    redis_server.kill()
    rig.answers.answer(lane_of('healthy'), Kind.SEND_TEXT, b'0')
    assert rig.finish()
    redis_server.start()
