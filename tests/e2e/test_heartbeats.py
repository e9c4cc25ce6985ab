"""Heartbeats: sent to idle websockets about every four seconds, ignored when received."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from tests.e2e.conftest import Connect

pytestmark = pytest.mark.django_db(transaction=True)

HEARTBEAT = '--heartbeat--'


def test_heartbeats_are_sent_to_idle_websockets_and_ignored_when_received(
    start: Any, connect: Connect, redis_client: redis.Redis
) -> None:
    server = start(WS4REDIS_HEARTBEAT=HEARTBEAT)
    websocket = connect(server, 'foo?subscribe-broadcast&publish-broadcast&echo')
    listener = connect(server, 'foo?subscribe-broadcast')
    websocket.send(HEARTBEAT)
    websocket.send('a message')
    assert websocket.receive() == 'a message'
    assert listener.receive() == 'a message'
    assert redis_client.get('broadcast:foo') == b'a message'
    # By whatever way it comes.
    redis_client.publish('broadcast:foo', HEARTBEAT)
    redis_client.publish('broadcast:foo', 'another message')
    assert websocket.receive() == 'another message'
    without = connect(server, 'foo?subscribe-broadcast&no-heartbeat')
    idle_since = time.monotonic()
    moments = []
    for _ in range(2):
        assert websocket.receive() == HEARTBEAT
        moments.append(time.monotonic())
    # The first one comes within two rounds of the last message, the next a round later.
    assert moments[0] - idle_since < 8.5
    assert 3.5 < moments[1] - moments[0] < 5
    redis_client.publish('broadcast:foo', 'the end')
    assert without.receive() == 'a message'  # kept
    assert without.receive() == 'the end'
