#!/usr/bin/env python
"""Measure what a Cluster costs: CPU per publication on each node, and time to subscribe.

CPU is that of the processes of Redis, so that it says the same on a busy machine. Prints tables for
``docs/explanation/how-far.md``.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT)]
os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')

import django
import psutil
from django.test import override_settings
from redis.crc import key_slot

from tests.timeouts import SERVER_SECONDS, wait_until
from tests.topologies import ClusterOfRedis
from ws4redis.broker.connections import drop_client
from ws4redis.hub.channel import Joined
from ws4redis.hub.history_channel import HistoryChannel, State
from ws4redis.hub.hub import Hub
from ws4redis.hub.messages import Messages
from ws4redis.hub.peer import Peer
from ws4redis.loop.drivers import ThreadDriver
from ws4redis.protocol.wire import PLAIN
from ws4redis.servers.process import (
    connect_to_redis,
    options_from_settings,
    publication_packer,
    what_finds_redis,
)

PUBLICATIONS = 300_000
BATCH = 50
SUBSCRIBERS = 4
CHANNELS = 64
PAYLOAD = b'x' * 100
COPIES = {'PUBLISH': 'SUBSCRIBE', 'SPUBLISH': 'SSUBSCRIBE'}


class Listener(Peer):
    """Stand in for a websocket that is on some channels, and count what it gets."""

    __slots__ = ('joined', 'names', 'received')

    def __init__(self, hub: Hub, names: list[str]) -> None:
        super().__init__(hub, PLAIN)
        self.names = names
        self.joined = 0
        self.received = 0

    def join(self) -> None:
        for name in self.names:
            self.hub.join(self, name, self._joined)

    def _joined(self, joined: Joined) -> None:
        self.joined += 1

    def deliver(self, messages: Messages) -> None:
        self.received += len(messages.publications)


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub(
        ThreadDriver(pool_size=2),
        connect=connect_to_redis,
        pack=publication_packer(),
        options=options_from_settings(),
        **what_finds_redis(),
    )
    hub.start()
    try:
        wait_until(lambda: hub.links.is_connected, timeout=SERVER_SECONDS)
        yield hub
    finally:
        hub.loop.call_soon(hub.loop.stop)
        hub.loop.driver.finish(10)


def join_all(hub: Hub, channels: int) -> None:
    """Let listeners join so many channels, and wait until they have."""
    listeners = [
        Listener(hub, [f'broadcast:{number}' for number in range(first, first + 1000)])
        for first in range(0, channels, 1000)
    ]
    for listener in listeners:
        hub.loop.call_soon(listener.join)
    wait_until(
        lambda: sum(listener.joined for listener in listeners) >= channels,
        timeout=10 * SERVER_SECONDS,
    )


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


class Drain(threading.Thread):
    """Read what a subscription gets, and throw it away."""

    def __init__(self, connection: Any) -> None:
        super().__init__(daemon=True)
        self._sock = connection._sock

    def run(self) -> None:
        try:
            self._sock.settimeout(None)
            while self._sock.recv(1 << 20):
                pass
        except OSError:
            pass


def publications(masters: int, word: str) -> list[float]:
    """Return the CPU in microseconds that a publication costs on each master."""
    with ClusterOfRedis(masters, replicas=0) as cluster, ExitStack() as cleanup:
        by_node: dict[Any, list[bytes]] = {node: [] for node in cluster.nodes}
        for number in range(CHANNELS * masters):
            name = f'broadcast:{number}'.encode()
            by_node[cluster.nodes[key_slot(name) * masters // 16384]].append(name)
        connections = {}
        for number in range(SUBSCRIBERS):
            for node, names in by_node.items():
                # Classic subscriptions may be anywhere: a process has all on one node.
                home = node if word == 'SPUBLISH' else cluster.nodes[number % masters]
                client = cleanup.enter_context(home.client(socket_timeout=None))
                connection: Any = client.connection_pool.get_connection()
                # One by one: sharded channels of several slots cannot be named in one command.
                for name in names:
                    connection.send_command(COPIES[word], name)
                time.sleep(0.1)
                Drain(connection).start()
        for node in cluster.nodes:
            client = cleanup.enter_context(node.client())
            connections[node] = client.connection_pool.get_connection()
        before = [cpu_seconds(node.pid) for node in cluster.nodes]
        done = 0
        while done < PUBLICATIONS:
            for node, names in by_node.items():
                commands = [(word, names[n % len(names)], PAYLOAD) for n in range(BATCH)]
                connection = connections[node]
                connection.send_packed_command(connection.pack_commands(commands))
                for _ in commands:
                    connection.read_response()
                done += BATCH
        time.sleep(0.5)
        after = [cpu_seconds(node.pid) for node in cluster.nodes]
    return [(b - a) / done * 1e6 for a, b in zip(before, after, strict=True)]


def publication_table() -> None:
    print(f'{PUBLICATIONS} publications of {len(PAYLOAD)} bytes, {SUBSCRIBERS} subscribers of each')
    print('| masters | words | CPU in all, µs | on the busiest node, µs | one node full at |')
    for masters in (1, 3, 6):
        for word in COPIES:
            costs = publications(masters, word)
            busiest = max(costs)
            print(
                f'| {masters} | {word} | {sum(costs):.1f} | {busiest:.1f} '
                f'| {1e6 / busiest:,.0f}/s |',
                flush=True,
            )


@contextmanager
def hub_on_cluster(facilities: dict[str, Any]) -> Iterator[tuple[ClusterOfRedis, Hub]]:
    with ClusterOfRedis() as cluster:
        settings = {
            'WS4REDIS_CONNECTION': cluster.connection,
            'WS4REDIS_FACILITIES': facilities,
            'WS4REDIS_PING_INTERVAL': None,
        }
        with override_settings(**settings), running_hub() as hub:
            yield cluster, hub
        drop_client()


def time_to_subscribe(channels: int) -> tuple[float, float]:
    """Return in how many seconds a process subscribes to so many channels, and its CPU."""
    with hub_on_cluster({}) as (_, hub):
        started, cpu = time.monotonic(), time.process_time()
        join_all(hub, channels)
        return time.monotonic() - started, time.process_time() - cpu


def time_to_verify(channels: int) -> tuple[int, float, float]:
    """Return how many channels a failover concerns, and until when all are verified; and CPU."""
    with hub_on_cluster({'*': {'HISTORY_SIZE': 10}}) as (cluster, hub):
        join_all(hub, channels)
        master = cluster.masters()[0]
        (replica,) = cluster.replicas_of(master)
        concerned = [
            channel for channel in hub.bus.channels.values() if cluster_port(channel) == master.port
        ]
        cluster.fail_over(replica)
        started, cpu = time.monotonic(), time.process_time()

        def is_verified() -> bool:
            return all(
                isinstance(channel, HistoryChannel)
                and channel.state is State.LIVE
                and cluster_port(channel) == replica.port
                for channel in concerned
            )

        wait_until(is_verified, timeout=10 * SERVER_SECONDS)
        return len(concerned), time.monotonic() - started, time.process_time() - cpu


def cluster_port(channel: Any) -> int:
    return int(channel.link.name.rpartition(':')[2])


def main() -> None:
    django.setup()
    publication_table()
    for channels in (10_000, 100_000):
        seconds, cpu = time_to_subscribe(channels)
        print(f'{channels} channels subscribed in {seconds:.1f} s ({cpu:.1f} s of CPU)', flush=True)
    concerned, seconds, cpu = time_to_verify(30_000)
    print(f'after a failover {concerned} channels verified in {seconds:.2f} s ({cpu:.1f} s of CPU)')


if __name__ == '__main__':
    main()
