#!/usr/bin/env python
"""Measure what a Cluster costs: CPU per publication on each node, and time to subscribe.

CPU is that of the processes of Redis, so that it says the same on a busy machine. Prints tables for
``docs/explanation/how-far.md``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

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
from ws4redis.broker.keys import SLOTS
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

PUBLICATIONS = 60_000
BATCH = 50
SUBSCRIBERS = 4
CHANNELS = 64
PAYLOAD = b'x' * 100


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


class Subscriber:
    """A process of its own with a hub, one of whose listeners is on each of the channels."""

    def __init__(self, connection: dict[str, Any], channels: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, 'listen', json.dumps([connection, channels])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.pid = self._process.pid

    def received(self) -> int:
        """Return how many messages have come; the first answer comes when all have joined."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write('how many?\n')
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(SERVER_SECONDS)
        self._process.stdout.close()


def listen(connection: dict[str, Any], channels: list[str]) -> None:
    """Be such a process."""
    with (
        override_settings(WS4REDIS_CONNECTION=connection, WS4REDIS_PING_INTERVAL=None),
        running_hub() as hub,
    ):
        listener = Listener(hub, channels)
        hub.loop.call_soon(listener.join)
        wait_until(lambda: listener.joined == len(channels), timeout=SERVER_SECONDS)
        for _ in sys.stdin:
            print(listener.received, flush=True)


class Costs(NamedTuple):
    """CPU of a publication, in microseconds."""

    nodes: list[float]
    hubs: list[float]


def publications(masters: int, word: str) -> Costs:
    """Return what a publication costs each master, and each process that subscribes."""
    with ClusterOfRedis(masters, replicas=0) as cluster, ExitStack() as cleanup:
        by_node: dict[Any, list[str]] = {node: [] for node in cluster.nodes}
        for number in range(CHANNELS * masters):
            name = f'broadcast:{number}'
            by_node[cluster.nodes[key_slot(name.encode()) * masters // SLOTS]].append(name)
        subscribers = []
        for number in range(SUBSCRIBERS):
            # Classic subscriptions may be anywhere: a process has all on one node.
            home = cluster.nodes[number % masters]
            one = {'host': home.host, 'port': home.port}
            connection = cluster.connection if word == 'SPUBLISH' else one
            subscriber = Subscriber(
                connection, [name for names in by_node.values() for name in names]
            )
            cleanup.callback(subscriber.end)
            subscribers.append(subscriber)
        for subscriber in subscribers:
            subscriber.received()
        pids = [*(node.pid for node in cluster.nodes), *(s.pid for s in subscribers)]
        before = [cpu_seconds(pid) for pid in pids]
        done = publish(by_node, word)
        wait_until(
            lambda: all(subscriber.received() == done for subscriber in subscribers),
            timeout=SERVER_SECONDS,
        )
        costs = [(cpu_seconds(pid) - b) / done * 1e6 for pid, b in zip(pids, before, strict=True)]
    return Costs(costs[:masters], costs[masters:])


def publish(by_node: dict[Any, list[str]], word: str) -> int:
    """Publish on each node in turn, in pipelines; return how many there were."""
    done = 0
    with ExitStack() as cleanup:
        connections = {
            node: cleanup.enter_context(node.client()).connection_pool.get_connection()
            for node in by_node
        }
        while done < PUBLICATIONS:
            for node, names in by_node.items():
                commands = [(word, names[n % len(names)], PAYLOAD) for n in range(BATCH)]
                connection = connections[node]
                connection.send_packed_command(connection.pack_commands(commands))
                for _ in commands:
                    connection.read_response()
                done += BATCH
    return done


def publication_table() -> None:
    print(
        f'{PUBLICATIONS} publications of {len(PAYLOAD)} bytes, {SUBSCRIBERS} processes with a hub'
    )
    print('| masters | words | Redis: all nodes, µs | the busiest, µs | hubs: all, µs | each, µs |')
    for masters in (1, 3, 6):
        for word in ('PUBLISH', 'SPUBLISH'):
            costs = publications(masters, word)
            print(
                f'| {masters} | {word} | {sum(costs.nodes):.1f} | {max(costs.nodes):.1f} '
                f'| {sum(costs.hubs):.1f} | {sum(costs.hubs) / SUBSCRIBERS:.1f} |',
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
    if sys.argv[1:2] == ['listen']:
        listen(*json.loads(sys.argv[2]))
        return
    publication_table()
    for channels in (10_000, 100_000):
        seconds, cpu = time_to_subscribe(channels)
        print(f'{channels} channels subscribed in {seconds:.1f} s ({cpu:.1f} s of CPU)', flush=True)
    concerned, seconds, cpu = time_to_verify(30_000)
    print(f'after a failover {concerned} channels verified in {seconds:.2f} s ({cpu:.1f} s of CPU)')


if __name__ == '__main__':
    main()
