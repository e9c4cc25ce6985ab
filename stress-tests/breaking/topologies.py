"""Break a Cluster, or a Redis under Sentinels, in every way known: what is lost without a word?

Hubs run in threads of this process, with listeners in place of websockets, which know the position
of each message: each is on three channels, leaves now and then, and comes back with what it has
seen last. Publishers number their messages by channel, and repeat one under its idempotency key
until Redis has confirmed it. In the end each listener must have had every number once and in order,
or have been told of a gap where some are missing.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import redis
from django.test import override_settings
from redis.crc import key_slot

from tests.programs import RedisServer
from tests.timeouts import SERVER_SECONDS, wait_until
from tests.topologies import ClusterOfRedis, ClusterServer, RedisWithSentinels
from ws4redis.broker.connections import drop_client
from ws4redis.broker.history import Position
from ws4redis.hub.channel import Channel, Gap, Joined
from ws4redis.hub.hub import Hub
from ws4redis.hub.messages import Messages
from ws4redis.hub.peer import Peer
from ws4redis.loop.drivers import ThreadDriver
from ws4redis.protocol.wire import PLAIN
from ws4redis.publisher import RedisPublisher
from ws4redis.servers.process import (
    connect_to_redis,
    options_from_settings,
    publication_packer,
    what_finds_redis,
)

HUBS = 2
CHANNELS = 24
LISTENERS = 80
CHANNELS_PER_LISTENER = 3
PUBLISHERS = 3
AWAY_SECONDS = 2.0
FACILITIES = {'hist/*': {'HISTORY_SIZE': 20_000, 'HISTORY_SECONDS': 3600}}

GAP = 'gap'


class Listener(Peer):
    """Note what comes on its channels, and the gaps that are told."""

    __slots__ = ('away_since', 'latest', 'longest_silence', 'positions', 'seen')

    def __init__(self, hub: Hub, names: list[str]) -> None:
        super().__init__(hub, PLAIN)
        self.seen: dict[str, list[int | str]] = {name: [] for name in names}
        self.positions: dict[str, Position] = {}

    def join(self) -> None:
        for name in self.seen:
            self.hub.join(self, name, partial(self._joined, name), self.positions.get(name))

    def leave(self) -> None:
        self.hub.leave(self, list(self.seen))

    def _joined(self, name: str, joined: Joined) -> None:
        if joined.outcome.is_gap:
            self.seen[name].append(GAP)
        for publication in joined.publications:
            self._take(name, publication.payload, publication.position)
        if joined.position is not None:
            self.positions[name] = joined.position

    def deliver(self, messages: Messages) -> None:
        for publication in messages.publications:
            name = publication.payload.split(b' ')[0].decode()
            self._take(name, publication.payload, publication.position)

    def _take(self, name: str, payload: bytes, position: Position | None) -> None:
        self.seen[name].append(int(payload.split(b' ')[1]))
        if position is not None:
            self.positions[name] = position

    def gap(self, channel: Channel, gap: Gap) -> None:
        name = channel.name.decode()
        self.seen[name].append(GAP)
        self.positions[name] = gap.position


class Publishing(threading.Thread):
    """Publish on some channels in turn, until it is told to stop."""

    def __init__(self, facilities: list[str], interval: float) -> None:
        super().__init__(daemon=True)
        self.facilities = facilities
        self.interval = interval
        self.numbers = dict.fromkeys(facilities, 0)
        self.repetitions = 0
        self.longest = 0.0
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.is_set():
            for facility in self.facilities:
                self._publish(facility, self.numbers[facility])
                self.numbers[facility] += 1
                self.done.wait(self.interval)

    def _publish(self, facility: str, number: int) -> None:
        message = f'broadcast:{facility} {number}'
        publisher = RedisPublisher(facility=facility, broadcast=True)
        since = time.monotonic()
        while True:
            try:
                publisher.publish_message(message, expire=0, idempotency_key=str(number))
            except redis.RedisError:
                self.repetitions += 1
                time.sleep(0.05)
            else:
                break
        self.longest = max(self.longest, time.monotonic() - since)


@dataclass
class Outcome:
    """What the listeners say in the end."""

    seconds: float = 0.0
    published: int = 0
    received: int = 0
    lost_untold: int = 0
    repeated_or_out_of_order: int = 0
    missing_with_a_gap: int = 0
    gaps: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    longest_silence: float = 0.0
    repetitions: int = 0
    rejoined: int = 0
    examples: list[str] = field(default_factory=list)


def facility_of(number: int) -> str:
    return f'hist/{number}'


# The hubs


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


# What is done to a Cluster


def busy_slot(chance: random.Random) -> int:
    return key_slot(f'broadcast:{facility_of(chance.randrange(CHANNELS))}'.encode())


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
        self.servers = RedisWithSentinels()
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


def break_topology(kind: str, seconds: float, seed: int = 4) -> Outcome:
    """Run the scenario; each kind of fault comes once at least, however long that takes."""
    chance = random.Random(seed)
    breaker = BREAKERS[kind](chance)
    outcome = Outcome()
    with ExitStack() as cleanup:
        cleanup.enter_context(breaker.servers)
        settings = {
            'WS4REDIS_CONNECTION': {**breaker.servers.connection, 'socket_timeout': 2},
            'WS4REDIS_FACILITIES': FACILITIES,
            'WS4REDIS_PING_INTERVAL': None,
        }
        cleanup.enter_context(override_settings(**settings))
        cleanup.callback(drop_client)
        hubs = [cleanup.enter_context(running_hub()) for _ in range(HUBS)]
        listeners = join_all(hubs, chance)
        publishers = start_publishing()
        coming_and_going = threading.Event()
        mover = threading.Thread(
            target=come_and_go, args=(listeners, coming_and_going, chance, outcome), daemon=True
        )
        mover.start()
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            for fault in breaker.faults:
                if outcome.faults.total() >= len(breaker.faults):
                    if time.monotonic() - started >= seconds:
                        break
                    fault = chance.choice(breaker.faults)
                fault()
                outcome.faults[fault.__name__] += 1
                breaker.servers.wait_until_whole(3 * SERVER_SECONDS)
                time.sleep(chance.uniform(0.2, 1.0))
        coming_and_going.set()
        mover.join(SERVER_SECONDS)
        for publisher in publishers:
            publisher.done.set()
        for publisher in publishers:
            publisher.join(SERVER_SECONDS)
        numbers = {
            f'broadcast:{facility}': number
            for publisher in publishers
            for facility, number in publisher.numbers.items()
        }
        settle(listeners, numbers)
        outcome.seconds = time.monotonic() - started
        outcome.repetitions = sum(publisher.repetitions for publisher in publishers)
        outcome.longest_silence = max(publisher.longest for publisher in publishers)
        for hub in hubs:
            outcome.gaps.update({str(cause): n for cause, n in hub.statistics.gaps.items()})
        judge(listeners, numbers, outcome)
    return outcome


def join_all(hubs: list[Hub], chance: random.Random) -> list[Listener]:
    listeners = []
    for number in range(LISTENERS):
        chosen = chance.sample(range(CHANNELS), CHANNELS_PER_LISTENER)
        names = [f'broadcast:{facility_of(channel)}' for channel in chosen]
        listener = Listener(hubs[number % len(hubs)], names)
        listeners.append(listener)
        listener.hub.loop.call_soon(listener.join)
    wait_until(
        lambda: all(len(listener.positions) == CHANNELS_PER_LISTENER for listener in listeners),
        timeout=SERVER_SECONDS,
        message='not all have joined',
    )
    return listeners


def start_publishing() -> list[Publishing]:
    facilities = [facility_of(number) for number in range(CHANNELS)]
    publishers = [
        Publishing(facilities[start::PUBLISHERS], interval=PUBLISHERS / 100)
        for start in range(PUBLISHERS)
    ]
    for publisher in publishers:
        publisher.start()
    return publishers


def come_and_go(
    listeners: list[Listener], done: threading.Event, chance: random.Random, outcome: Outcome
) -> None:
    """Let one listener after the other leave for a while, and come back with what it has seen."""
    while not done.wait(0.3):
        listener = chance.choice(listeners)
        listener.hub.loop.call_soon(listener.leave)
        done.wait(AWAY_SECONDS)
        listener.hub.loop.call_soon(listener.join)
        outcome.rejoined += 1


def settle(listeners: list[Listener], numbers: dict[str, int]) -> None:
    """Wait until all have the last message, for as long as anything comes."""
    last: tuple[int, float] = (0, time.monotonic())
    while True:
        count = sum(len(seen) for listener in listeners for seen in listener.seen.values())
        if count != last[0]:
            last = count, time.monotonic()
        behind = sum(
            not seen or seen[-1] != numbers[name] - 1
            for listener in listeners
            for name, seen in listener.seen.items()
        )
        if not behind or time.monotonic() - last[1] > 15:
            return
        time.sleep(0.2)


def judge(listeners: list[Listener], numbers: dict[str, int], outcome: Outcome) -> None:
    """Compare what each listener had with what was published."""
    outcome.published = sum(numbers.values())
    for listener in listeners:
        for name, seen in listener.seen.items():
            judge_one(name, seen, numbers[name], outcome)


def judge_one(name: str, seen: list[int | str], count: int, outcome: Outcome) -> None:
    # Nothing before the first one: it joined at some moment.
    newest: int | None = None
    gap = False
    for item in [*seen, count]:
        if isinstance(item, str):
            gap = True
            continue
        if newest is not None:
            if item <= newest:
                outcome.repeated_or_out_of_order += 1
                outcome.examples.append(f'{name}: {item} after {newest}')
                continue
            missing = item - newest - 1
            if gap:
                outcome.missing_with_a_gap += missing
            elif missing:
                outcome.lost_untold += missing
                outcome.examples.append(f'{name}: {missing} before {item}')
        newest, gap = item, False
        outcome.received += item != count
