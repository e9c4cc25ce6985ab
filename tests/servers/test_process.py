"""The websockets of a process: made at first use, from the settings, once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import hiredis
import pytest
import redis
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from tests.programs import RedisServer
from tests.timeouts import SOON_SECONDS, wait_until
from ws4redis.broker.history import Kind
from ws4redis.broker.outgoing import Outgoing
from ws4redis.servers import process
from ws4redis.servers.process import (
    connect_to_redis,
    drop_hub,
    existing_hub,
    get_hub,
    options_from_settings,
    publication_packer,
)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    drop_hub()
    yield
    drop_hub()


def test_there_are_none_before_they_are_needed_and_then_always_the_same(
    redis_server: RedisServer,
) -> None:
    assert existing_hub() is None
    hub = get_hub()
    assert get_hub() is hub
    assert existing_hub() is hub
    wait_until(lambda: hub.links.is_connected)


def test_threads_that_come_at_once_get_the_same(redis_server: RedisServer) -> None:
    made: list[Any] = []
    barrier = threading.Barrier(8)

    def get() -> None:
        barrier.wait(SOON_SECONDS)
        made.append(get_hub())

    threads = [threading.Thread(target=get) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(websockets) for websockets in made}) == 1


def test_those_of_the_parent_are_not_those_of_a_forked_process(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = get_hub()
    pid = os.getpid()
    monkeypatch.setattr(os, 'getpid', lambda: pid + 1)
    assert existing_hub() is None
    child = get_hub()
    assert child is not parent
    drop_hub()
    monkeypatch.undo()
    parent.loop.stop()
    assert parent.loop.driver.wait_stopped(SOON_SECONDS)


def test_dropped_their_loop_ends_and_others_are_made(redis_server: RedisServer) -> None:
    first = get_hub()
    drop_hub()
    assert not first.loop.running
    assert get_hub() is not first


@override_settings(WS4REDIS_EXPIRE='an hour')
def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(ImproperlyConfigured, match='WS4REDIS_EXPIRE'):
        get_hub()
    assert existing_hub() is None


@override_settings(
    WS4REDIS_HEARTBEAT='♥',
    WS4REDIS_MAX_MESSAGE_SIZE=1000,
    WS4REDIS_MAX_QUEUE_BYTES=2000,
    WS4REDIS_MAX_TOTAL_QUEUE_BYTES=3000,
    WS4REDIS_MAX_MESSAGES_PER_SECOND=7,
    WS4REDIS_MAX_BYTES_PER_SECOND=8000,
    WS4REDIS_MAX_PINGS_PER_SECOND=9,
    WS4REDIS_PING_INTERVAL=None,
    WS4REDIS_PING_TIMEOUT=3,
    WS4REDIS_CLOSE_TIMEOUT=4,
    WS4REDIS_REDIS_TIMEOUT=5,
    WS4REDIS_WORKER_THREADS=6,
)
def test_settings_become_options() -> None:
    options = options_from_settings()
    assert options.heartbeat == '♥'.encode()
    assert options.limits.max_message_size == 1000
    assert options.max_queue_bytes == 2000
    assert options.max_total_queue_bytes == 3000
    assert options.max_messages_per_second == 7
    assert options.limits.max_frames_at_once == 7
    assert options.max_bytes_per_second == 8000
    assert options.max_pings_per_second == 9
    assert options.ping_interval_seconds is None
    assert options.ping_timeout_seconds == 3
    assert options.close_timeout_seconds == 4
    assert options.redis_timeout_seconds == 5
    hub = process.make_hub()
    assert hub.loop.driver.workers.size == 6
    hub.loop.close()


def test_the_socket_of_a_connection_to_redis_is_ours_and_speaks_resp3(
    redis_server: RedisServer,
) -> None:
    sock = connect_to_redis()
    sock.settimeout(SOON_SECONDS)
    sock.sendall(b'SUBSCRIBE x\r\n')
    assert sock.recv(100).startswith(b'>3\r\n')
    sock.close()


def test_without_redis_the_error_is_that_of_redis() -> None:
    with override_settings(WS4REDIS_CONNECTION={'host': '127.0.0.1', 'port': 1}):
        with pytest.raises(redis.ConnectionError):
            connect_to_redis()


def commands(packed: bytes) -> list[Any]:
    reader = hiredis.Reader()
    reader.feed(packed)
    found = []
    while (command := reader.gets()) is not False:
        found.append(command)
    return found


def test_a_publication_is_kept_and_published_in_one_transaction() -> None:
    with override_settings(WS4REDIS_EXPIRE=60):
        packed = publication_packer()(Outgoing(('a', 'grüße'), b'\xff'), '', False)
    assert commands(packed[0]) == [
        [b'MULTI'],
        [b'SET', b'a', b'\xff', b'EX', b'60'],
        [b'PUBLISH', b'a', b'\xff'],
        [b'SET', 'grüße'.encode(), b'\xff', b'EX', b'60'],
        [b'PUBLISH', 'grüße'.encode(), b'\xff'],
        [b'EXEC'],
    ]
    assert packed[1] == 6


@pytest.mark.parametrize('expire', [0, None])
def test_a_publication_that_is_not_kept_is_one_command(expire: int | None) -> None:
    with override_settings(WS4REDIS_EXPIRE=expire):
        packed = publication_packer()(Outgoing(('a',), b'x'), '', False)
    assert commands(packed[0]) == [[b'PUBLISH', b'a', b'x']]
    assert packed[1] == 1


@override_settings(WS4REDIS_EXPIRE=0, WS4REDIS_FACILITIES={'kept': {'HISTORY_SIZE': 5}})
def test_only_a_history_or_a_kind_takes_more_than_the_command_that_publishes() -> None:
    pack = publication_packer()
    plain, kept = ('broadcast:foo',), ('broadcast:kept',)
    assert len(commands(pack(Outgoing(plain, b'x'), '', False)[0])) == 1
    assert len(commands(pack(Outgoing(plain, b'1', Kind.JSON), '', False)[0])) == 4
    assert len(commands(pack(Outgoing(plain, b'x', expire=9), '', False)[0])) == 4
    data, _, exchange = pack(Outgoing(kept, b'x'), '', False)
    assert exchange is not None
    assert commands(data)[0][0] == b'EVALSHA'
    _, _, again = pack(Outgoing(kept, b'x'), exchange.tag, True)
    assert again is not None
    assert again.tag == exchange.tag
    with pytest.raises(ValueError, match='needs a history'):
        pack(Outgoing(plain, b'x', once='key'), '', False)
