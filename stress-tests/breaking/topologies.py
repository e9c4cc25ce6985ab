"""Break a Cluster, or a Redis under Sentinels, in every way known: what is lost without a word?

Websockets are those of real processes, which are killed as well. Publishers number their messages
by channel, and repeat one under its idempotency key until Redis has confirmed it. In the end each
websocket must have had every number of its channel once and in order, or have been told of a gap
where some are missing.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from django.test import override_settings
from redis.crc import key_slot

from breaking.histories import LAST_SECONDS, NumberingPublisher
from breaking.returning import Faults, ReturningClient, ReturningCrowd, faults_of
from tests.programs import RedisServer, UwsgiServer
from tests.timeouts import SERVER_SECONDS, wait_until
from tests.topologies import ClusterOfRedis, ClusterServer, RedisWithSentinels
from ws4redis.broker.connections import drop_client
from ws4redis.broker.publication import Command
from ws4redis.conf import conf
from ws4redis.publishing.broker import RedisBroker

WORKERS = 2
CHANNELS = 50
CLIENTS = 200
PUBLISHERS = 4
# Of all publishers together.
RATE = 100.0
FACILITIES = {'*': {'HISTORY_SIZE': 2000, 'HISTORY_SECONDS': 600, 'KEEP': 0}}


@dataclass
class Outcome:
    """What websockets got while things broke."""

    seconds: float
    published: int
    faults: Faults
    broken: Counter[str]
    reconnections: int
    longest_wait: float
    # Of a single websocket, by the fault that caused it.
    longest_silences: dict[str, float]


class RunningCrowd(threading.Thread):
    """Run a crowd in a thread of its own."""

    def __init__(self, crowd: ReturningCrowd) -> None:
        super().__init__(daemon=True)
        self.crowd = crowd
        self._to_cut: deque[ReturningClient] = deque()
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.is_set():
            self.crowd.run(0.05)
            while self._to_cut:
                self.crowd.cut(self._to_cut.popleft())
        self.crowd.close()

    def cut(self, clients: Iterable[ReturningClient]) -> None:
        self._to_cut.extend(clients)

    def finish(self) -> None:
        self._done.set()
        self.join(SERVER_SECONDS)


# What is done to a Cluster


def busy_slot(chance: random.Random) -> int:
    return key_slot(channel_of(chance.randrange(CHANNELS)).encode())


def cut_off(master: RedisServer, seconds: float) -> None:
    """Let a master go on without its replicas, so that they lack its last publications."""
    with master.client() as client:
        client.execute_command('ACL', 'SETUSER', 'default', '-psync', '-sync')
        client.execute_command('CLIENT', 'KILL', 'TYPE', 'replica')
    time.sleep(seconds)


def kill_and_bring_back(master: RedisServer, is_replaced: Callable[[], object]) -> None:
    master.kill()
    wait_until(is_replaced, timeout=SERVER_SECONDS, message='no failover')
    time.sleep(0.5)
    master.start()


class ClusterBreaker:
    """Break a Cluster."""

    def __init__(self, chance: random.Random) -> None:
        self.servers = ClusterOfRedis()
        self._chance = chance
        self.faults: list[Callable[[], object]] = [
            self.slot_moves_back_and_forth,
            self.failover_by_hand,
            self.master_is_killed,
            self.master_is_cut_off_and_demoted,
            self.buses_are_killed,
            self.rolling_restart,
            self.all_down_and_up,
        ]

    def _master(self) -> tuple[ClusterServer, ClusterServer]:
        master = self.servers.owner_of(busy_slot(self._chance))
        return master, self.servers.replicas_of(master)[0]

    def slot_moves_back_and_forth(self) -> None:
        slot = busy_slot(self._chance)
        for _ in range(4):
            owner = self.servers.owner_of(slot)
            others = [node for node in self.servers.masters() if node is not owner]
            self.servers.migrate(slot, self._chance.choice(others), pause_seconds=0.3)

    def failover_by_hand(self) -> None:
        _, replica = self._master()
        self.servers.fail_over(replica)

    def master_is_killed(self) -> None:
        master, replica = self._master()
        kill_and_bring_back(master, lambda: self.servers.is_master(replica))

    def master_is_cut_off_and_demoted(self) -> None:
        master, replica = self._master()
        cut_off(master, 1.0)
        kill_and_bring_back(master, lambda: self.servers.is_master(replica))

    def buses_are_killed(self) -> None:
        for node in self.servers.masters():
            with node.client() as client:
                client.execute_command('CLIENT', 'KILL', 'TYPE', 'pubsub')

    def rolling_restart(self) -> None:
        for master in self.servers.masters():
            replica = self.servers.replicas_of(master)[0]
            self.servers.fail_over(replica)
            master.restart()
            self.servers.wait_until_whole()

    def all_down_and_up(self) -> None:
        all_down_and_up(self.servers.nodes)


class SentinelBreaker:
    """Break a Redis under Sentinels."""

    def __init__(self, chance: random.Random) -> None:
        # Else a former master confirms for a while what nobody hears, and nobody can notice that.
        self.servers = RedisWithSentinels(options={'min-replicas-to-write': '1'})
        self.faults: list[Callable[[], object]] = [
            self.failover_by_hand,
            self.master_is_killed,
            self.master_is_cut_off_and_demoted,
            self.buses_are_killed,
            self.master_hangs,
        ]

    def failover_by_hand(self) -> None:
        self.servers.fail_over()

    def master_is_killed(self) -> None:
        master = self.servers.master()
        kill_and_bring_back(master, lambda: self.servers.master() is not master)

    def master_is_cut_off_and_demoted(self) -> None:
        master = self.servers.master()
        with master.client() as client:
            # So that it takes publications all the same; started again it does not.
            client.config_set('min-replicas-to-write', 0)
        cut_off(master, 1.0)
        kill_and_bring_back(master, lambda: self.servers.master() is not master)

    def buses_are_killed(self) -> None:
        with self.servers.master().client() as client:
            client.execute_command('CLIENT', 'KILL', 'TYPE', 'pubsub')

    def master_hangs(self) -> None:
        master = self.servers.master()
        master.pause()
        try:
            wait_until(lambda: self.servers.master() is not master, timeout=SERVER_SECONDS)
            time.sleep(1)
        finally:
            master.resume()


def all_down_and_up(servers: list[Any]) -> None:
    for server in servers:
        server.stop()
    time.sleep(0.5)
    for server in servers:
        server.spawn()
    for server in servers:
        server.wait_until_ready(0)


BREAKERS: dict[str, Callable[[random.Random], Any]] = {
    'cluster': ClusterBreaker,
    'sentinel': SentinelBreaker,
}


# The scenario


def execute(command: Command) -> Any:
    return RedisBroker()._run([command])[0]


def channel_of(number: int) -> str:
    return f'broadcast:chat{number}'


def break_topology(kind: str, seconds: float, seed: int = 4) -> Outcome:
    """Run the scenario; each kind of fault comes once at least, however long that takes."""
    chance = random.Random(seed)
    breaker = BREAKERS[kind](chance)
    with ExitStack() as cleanup:
        cleanup.enter_context(breaker.servers)
        connection = {**breaker.servers.connection, 'socket_timeout': 2}
        settings = {'WS4REDIS_CONNECTION': connection, 'WS4REDIS_FACILITIES': FACILITIES}
        cleanup.enter_context(override_settings(**settings))
        cleanup.callback(drop_client)
        server = cleanup.enter_context(
            UwsgiServer(
                workers=WORKERS,
                django_settings={**settings, 'WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS': None},
                options=['--disable-logging'],
            )
        )
        channels = [channel_of(number) for number in range(CHANNELS)]
        chosen = [name for _ in range(CLIENTS) for name in chance.sample(channels, 3)]
        crowd = RunningCrowd(ReturningCrowd([client_on(server, name) for name in chosen]))
        cleanup.callback(crowd.finish)
        crowd.start()
        all_are_open(crowd.crowd)
        publishers = [
            NumberingPublisher(
                execute,
                channels[first::PUBLISHERS],
                RATE / PUBLISHERS,
                publish=conf.publish_word,
            )
            for first in range(PUBLISHERS)
        ]
        started = time.monotonic()
        for publisher in publishers:
            publisher.start()
        wait_until(lambda: all(client.account.items for client in crowd.crowd.clients))
        run = _Run(breaker, server, crowd, chance)
        run.go_on(until=started + seconds)
        for publisher in publishers:
            publisher.stop()
        all_are_open(crowd.crowd)
        for publisher in publishers:
            for name in publisher.last:
                # A last one for each, so that nobody could miss the end unnoticed.
                publisher.publish(name)
        last = {name: number for p in publishers for name, number in p.last.items()}
        wait_for_the_last(crowd.crowd.clients, chosen, last)
    return Outcome(
        time.monotonic() - started,
        sum(publisher.published for publisher in publishers),
        faults_of(crowd.crowd.clients, chosen, last),
        run.done,
        sum(client.opened for client in crowd.crowd.clients) - len(chosen),
        max(publisher.longest_wait for publisher in publishers),
        run.silences,
    )


class _Run:
    """Do one fault after the other, and note the longest silence of each."""

    def __init__(
        self, breaker: Any, server: UwsgiServer, crowd: RunningCrowd, chance: random.Random
    ) -> None:
        self.done: Counter[str] = Counter()
        self.silences: dict[str, float] = {}
        self._breaker = breaker
        self._server = server
        self._crowd = crowd
        self._chance = chance
        self._acts: list[Callable[[], object]] = [
            self.connections_are_cut,
            self.process_is_killed,
            *breaker.faults,
        ]

    def go_on(self, *, until: float) -> None:
        order = [*self._acts]
        while time.monotonic() < until or order:
            act = order.pop(0) if order else self._chance.choice(self._acts)
            self._do(act)

    def _do(self, act: Callable[[], object]) -> None:
        clients = self._crowd.crowd.clients
        for client in clients:
            client.account.longest_silence = 0.0
        act()
        self._breaker.servers.wait_until_whole(3 * SERVER_SECONDS)
        time.sleep(self._chance.uniform(0.7, 2.0))
        name = act.__name__
        self.done[name] += 1
        silence = max(client.account.silence() for client in clients)
        self.silences[name] = max(silence, self.silences.get(name, 0.0))

    def connections_are_cut(self) -> None:
        clients = self._crowd.crowd.clients
        self._crowd.cut(self._chance.sample(clients, len(clients) // 5))

    def process_is_killed(self) -> None:
        self._server.kill_worker(self._chance.randint(1, WORKERS))


def client_on(server: UwsgiServer, channel: str) -> ReturningClient:
    facility = channel.removeprefix('broadcast:')
    url = f'{server.ws_url}/ws/{facility}?subscribe-broadcast'
    return ReturningClient(url, (server.host, server.port))


def all_are_open(crowd: ReturningCrowd) -> None:
    wait_until(
        lambda: crowd.number_open == len(crowd.clients),
        timeout=3 * SERVER_SECONDS,
        message='not all websockets are open',
    )


def wait_for_the_last(
    clients: list[ReturningClient], chosen: list[str], last: dict[str, int]
) -> None:
    """Wait until all have the last message, for as long as anything comes."""
    count, since = 0, time.monotonic()
    while time.monotonic() < since + LAST_SECONDS and not all(
        client.account.items[-1:] == [last[name]]
        for client, name in zip(clients, chosen, strict=True)
    ):
        # On a busy machine it is the crowd that is behind.
        before, count = count, sum(len(client.account.items) for client in clients)
        if count != before:
            since = time.monotonic()
        time.sleep(0.2)
