"""The bus against a real Redis."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import pytest
import redis
from django.test import override_settings

from tests.hub.bus_rig import Joining
from tests.hub.rig import Home, bus_link_of
from tests.programs import RedisServer
from tests.timeouts import SOON_SECONDS, wait_until
from ws4redis.hub.options import HubOptions
from ws4redis.servers.process import connect_to_redis, publication_packer


@pytest.fixture
def real_home(redis_server: RedisServer) -> Iterator[Home]:
    options = HubOptions(ping_interval_seconds=None)
    with Home(connect=connect_to_redis, pack=publication_packer(), options=options) as hub:
        hub.turn_until(lambda: bus_link_of(hub).is_connected)
        yield hub


class Publisher(threading.Thread):
    """Publish numbers on a channel as fast as Redis takes them, keeping the last one."""

    def __init__(self, server: RedisServer, channel: str, count: int) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._channel = channel
        self._count = count
        self.published = 0

    def run(self) -> None:
        with self._server.client() as client:
            for number in range(1, self._count + 1):
                with client.pipeline(transaction=True) as pipeline:
                    pipeline.set(self._channel, number, ex=60)
                    pipeline.publish(self._channel, number)
                    pipeline.execute()
                self.published = number


def test_websockets_that_open_at_full_speed_get_the_kept_message_once_and_all_after_it(
    real_home: Home, redis_server: RedisServer
) -> None:
    last = 2000
    publisher = Publisher(redis_server, 'x', last)
    publisher.start()
    joining: list[Joining] = []
    while publisher.is_alive():
        if publisher.published > 20 * len(joining):
            joining.append(Joining(real_home, 'x'))
        real_home.loop.turn(0.001)
    publisher.join()
    received: list[list[int]] = [[] for _ in joining]

    def all_have_the_last() -> bool:
        for numbers, j in zip(received, joining, strict=True):
            numbers += [int(m) for m in j.peer.messages()]
        return all(numbers and numbers[-1] == last for numbers in received)

    real_home.turn_until(all_have_the_last)
    assert len(joining) > 50
    for numbers in received:
        assert numbers == list(range(numbers[0], last + 1))


def test_no_message_is_repeated_or_out_of_order_when_the_connection_breaks_at_full_speed(
    real_home: Home, redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    last = 2000
    joining = [Joining(real_home, 'x') for _ in range(10)]
    real_home.turn_until(lambda: all(j.done for j in joining))
    publisher = Publisher(redis_server, 'x', last)
    publisher.start()
    cut_at = 200
    while publisher.is_alive():
        if publisher.published > cut_at and bus_link_of(real_home).is_connected:
            redis_client.client_kill_filter(_type='pubsub')
            cut_at += 200
        real_home.loop.turn(0.001)
    received: list[list[int]] = [[] for _ in joining]

    def all_have_the_last() -> bool:
        for numbers, j in zip(received, joining, strict=True):
            numbers += [int(m) for m in j.peer.messages()]
        return all(numbers and numbers[-1] == last for numbers in received)

    real_home.turn_until(all_have_the_last)
    assert bus_link_of(real_home).reconnects >= 1
    for numbers in received:
        assert numbers == sorted(set(numbers))


def test_ten_thousand_joins_and_leaves_leave_nothing_subscribed(
    real_home: Home, redis_client: redis.Redis
) -> None:
    rng = random.Random(1)
    hub = real_home
    peers = [hub.peer() for _ in range(50)]
    joins = 0
    while joins < 10_000:
        for peer in peers:
            names = [f'channel {rng.randrange(200)}' for _ in range(3)]
            hub.join_names(peer.websocket, names, lambda: None)
            joins += len(names)
            if rng.random() < 0.5:
                hub.leave(peer.websocket, rng.sample(names, 2))
            if rng.random() < 0.2:
                hub.leave_channels(peer.websocket)
        if rng.random() < 0.5:
            hub.turn()
    for peer in peers:
        hub.leave_channels(peer.websocket)
    hub.turn_until(lambda: not hub.bus.channels)
    hub.turn(2)

    def nothing_is_subscribed() -> bool:
        hub.turn()
        # Hubs of other tests may listen to their control channel.
        return not redis_client.pubsub_channels('channel *')

    wait_until(nothing_is_subscribed)
    assert bus_link_of(hub).reconnects == 0
    hub.turn_until(lambda: not bus_link_of(hub)._expected)
    assert not hub.bus._changed
    assert all(peer.websocket.channels == () for peer in peers)
    # And it still works.
    joining = Joining(hub, 'channel 1')
    hub.turn_until(lambda: joining.done)
    redis_client.publish('channel 1', 'hello')
    got: list[str | bytes] = []
    deadline = time.monotonic() + SOON_SECONDS
    while not got and time.monotonic() < deadline:
        hub.turn()
        got = joining.peer.messages()
    assert got == ['hello']


def test_an_access_list_that_forbids_a_channel_is_told_and_leaves_the_others_alone(
    redis_server: RedisServer, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis_client.execute_command(
        'ACL', 'SETUSER', 'limited', 'on', '>secret', '+@all', '~allowed:*', 'resetchannels',
        '&allowed:*',
    )  # fmt: skip
    redis_client.set('allowed:x', 'kept')
    redis_client.set('forbidden:x', 'secret')
    connection = {**redis_server.connection, 'username': 'limited', 'password': 'secret'}
    with override_settings(WS4REDIS_CONNECTION=connection):
        with Home(connect=connect_to_redis, pack=publication_packer()) as hub:
            hub.turn_until(lambda: bus_link_of(hub).is_connected)
            both = Joining(hub, 'forbidden:x', 'allowed:x')
            hub.turn_until(lambda: both.done)
            assert both.refused == 1
            hub.turn_until(lambda: not bus_link_of(hub)._expected)
            assert both.peer.messages() == ['kept']
            redis_client.publish('forbidden:x', 'secret')
            redis_client.publish('allowed:x', 'live')
            got: list[str | bytes] = []

            def arrived() -> bool:
                got.extend(both.peer.messages())
                return bool(got)

            hub.turn_until(arrived)
            assert got == ['live']
            assert "refuses to subscribe to b'forbidden:x'" in caplog.text
            assert bus_link_of(hub).reconnects == 0
    redis_client.execute_command('ACL', 'DELUSER', 'limited')


def test_a_key_of_another_type_is_no_kept_message(
    real_home: Home, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis_client.lpush('x', 'a list')
    joining = Joining(real_home, 'x')
    real_home.turn_until(lambda: joining.done)
    assert joining.peer.messages() == []
    assert 'WRONGTYPE' in caplog.text
