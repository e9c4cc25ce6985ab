"""Publishing from the loop to channels with a history, against a real Redis."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from django.test import override_settings

from tests.hub.history_rig import KEYS, NAME, Member, home, member_position, numbered, published_by
from tests.hub.rig import Home
from tests.programs import RedisServer
from tests.timeouts import wait_until
from ws4redis.broker import link as redis_link
from ws4redis.broker.history import Position
from ws4redis.broker.keys import keys_of
from ws4redis.hub.publications import NotPublished
from ws4redis.protocol.frames import CloseCode


def test_what_a_peer_publishes_has_a_position_on_each_channel_with_a_history(
    hub: Home, redis_client: redis.Redis
) -> None:
    peer, member = hub.peer(), Member(hub)
    member.wait()
    positions = published_by(hub, peer, b'hi', NAME, 'broadcast:news')
    assert positions == {NAME: member_position(hub, 1)}
    member.receive(b'hi')
    assert redis_client.get('broadcast:news') == redis_client.get(NAME) == b'hi'


def test_a_repeated_idempotency_key_publishes_once(hub: Home, redis_client: redis.Redis) -> None:
    peer, member = hub.peer(), Member(hub)
    member.wait()
    first = published_by(hub, peer, b'hi', once='key')
    assert published_by(hub, peer, b'hi', once='key') == first
    assert published_by(hub, peer, b'ho', once='another')[NAME].offset == 2
    member.receive(b'hi', b'ho')
    refused = published_by(hub, peer, b'hi', 'broadcast:news', once='key')
    assert isinstance(refused, NotPublished)
    assert 'needs a history' in refused.reason


def test_scripts_that_redis_has_forgotten_are_sent_with_their_text(
    hub: Home, redis_client: redis.Redis
) -> None:
    peer, member = hub.peer(), Member(hub)
    member.wait()
    for number in range(1, 4):
        redis_client.script_flush()
        positions = published_by(hub, peer, b'%d' % number, NAME, 'user:mary:chat')
        assert [p.offset for p in positions.values()] == [number, number]
    redis_client.script_flush()
    Member(hub, Position('?', 0), name='user:mary:chat').wait()
    member.receive(b'1', b'2', b'3')


def test_messages_keep_their_order_where_redis_has_forgotten_the_script(
    hub: Home, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, member = hub.peer(), Member(hub)
    member.wait()
    # An answer or two are read in each turn, and more is published meanwhile.
    monkeypatch.setattr(redis_link, 'READ_BYTES', 64)
    monkeypatch.setattr(redis_link, 'MAX_READ_BYTES_PER_TURN', 64)
    redis_client.script_flush()
    payloads = numbered(1, 40)
    for number, payload in enumerate(payloads):
        hub.publish(peer.websocket, (NAME,), payload)
        if number >= 20:
            hub.turn()
    member.receive(*payloads)


def test_what_redis_may_have_published_before_the_connection_broke_is_published_once(
    hub: Home, redis_client: redis.Redis
) -> None:
    peer, member = hub.peer(), Member(hub)
    member.wait()
    published_by(hub, peer, b'1')
    answers: list[Any] = []
    for number in range(2, 7):
        hub.publish(
            peer.websocket, (NAME,), b'%d' % number, done=lambda *answer: answers.append(answer)
        )
        hub.publications.turn_end()
        if number % 2 == 0:
            # Redis has it, and its answer is never read.
            wait_until(lambda n=number: redis_client.xlen(KEYS.stream) == n)  # type: ignore[misc]
        hub.publications.lost('for the test')
        hub.turn_until(lambda n=number: len(answers) == n - 1)  # type: ignore[misc]
    member.receive(*numbered(1, 6))
    assert redis_client.xlen(KEYS.stream) == 6
    assert [positions[NAME].offset for positions, _ in answers] == [2, 3, 4, 5, 6]


def test_clients_cannot_make_redis_keep_more_than_the_bound_in_histories(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    with override_settings(
        WS4REDIS_MAX_KEPT_BYTES=4000, WS4REDIS_FACILITIES={'chat*': {'HISTORY_SIZE': 3}}
    ):
        with home() as hub:
            peer = hub.peer()
            outcomes = [
                published_by(hub, peer, b'x', f'broadcast:chat{number}') for number in range(5)
            ]
            assert isinstance(outcomes[-1], NotPublished)
            assert outcomes[-1].code is CloseCode.TRY_AGAIN_LATER
            # What is in use stays in use: a new entry takes the place of an old one.
            outcomes = [published_by(hub, peer, b'y', 'broadcast:chat0') for _ in range(9)]
            assert not isinstance(outcomes[-1], NotPublished)
            assert redis_client.xlen(keys_of(b'broadcast:chat0').stream) == 3
            assert redis_client.xlen(keys_of(b'broadcast:chat4').stream) == 0
