"""Break clients, processes and Redis at random, and count what clients of histories miss.

Connections are cut, workers killed, the bus is killed by Redis, Redis restarted with its
append-only file, and a replica promoted that lacks what came last.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from breaking.returning import Faults, ReturningClient, ReturningCrowd, faults_of
from breaking.switch import Switch
from tests.programs import RedisServer, UwsgiServer
from ws4redis.broker.history import parse_published, publish_command
from ws4redis.broker.keys import keys_of
from ws4redis.broker.publication import Command
from ws4redis.broker.scripts import script_of
from ws4redis.settings.facilities import FacilityOptions

OPTIONS = FacilityOptions(history_size=2000, history_seconds=600)
AOF = {'appendonly': 'yes', 'appendfsync': 'always'}
UNREPLICATED = 50
LAST_SECONDS = 20.0


@dataclass
class Outcome:
    """What clients got while things broke."""

    clients: int
    seconds: float
    published: int
    faults: Faults
    broken: Counter[str]
    reconnections: int
    gaps_forced: int
    refusals: Counter[str]


class NumberingPublisher(threading.Thread):
    """Publish numbers on channels in turn, each until Redis has confirmed it.

    An idempotency key makes a repetition harmless.
    """

    def __init__(
        self,
        execute: Callable[[Command], Any],
        channels: list[str],
        rate: float,
        *,
        publish: bytes = b'PUBLISH',
    ) -> None:
        super().__init__(daemon=True)
        self.last = dict.fromkeys(channels, 0)
        self.published = 0
        # By what redis-py makes of them.
        self.refusals: Counter[str] = Counter()
        self.longest_wait = 0.0
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.rests = threading.Event()
        self._execute = execute
        self._rate = rate
        self._publish = publish
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()
        self.may_go_on.set()
        self.join(60)

    def run(self) -> None:
        channels = list(self.last)
        due = time.monotonic()
        while not self._stopped.is_set():
            if not self.may_go_on.is_set():
                self.rests.set()
                self.may_go_on.wait()
                due = time.monotonic()
            self.rests.clear()
            self.publish(channels[self.published % len(channels)])
            due += 1 / self._rate
            time.sleep(max(0.0, due - time.monotonic()))

    def publish(self, channel: str) -> None:
        """Publish the next number, however long that takes."""
        number = self.last[channel] + 1
        command = publish_command(
            keys_of(channel.encode()),
            b'%d' % number,
            OPTIONS,
            keep_seconds=0,
            once=f'number {number}',
            # So that clients know it, as those do to which positions are told.
            tag=str(number),
            publish=self._publish,
        )
        since = time.monotonic()
        while True:
            try:
                parse_published(self._execute(command))
            except redis.ResponseError as exc:
                # Should it be published in part, the repetition shows that.
                self.refusals[type(exc).__name__] += 1
                time.sleep(0.02)
            except redis.RedisError:
                time.sleep(0.02)
            else:
                self.last[channel] = number
                self.published += 1
                self.longest_wait = max(self.longest_wait, time.monotonic() - since)
                return


class LooseClient:
    """Run commands on the Redis that is at a port now, by a new connection after each failure."""

    def __init__(self, port: Callable[[], int]) -> None:
        self._port = port
        self._client: redis.Redis | None = None

    def execute(self, command: Command) -> Any:
        if self._client is None:
            self._client = redis.Redis(
                port=self._port(), socket_timeout=2, retry=Retry(NoBackoff(), 0)
            )
        try:
            return self._client.execute_command(*script_of(command).with_text(command))  # type: ignore[no-untyped-call]
        except redis.ResponseError:
            raise
        except redis.RedisError:
            self._client = None
            raise


Acts = dict[str, Callable[[], object]]


class Breaker:
    """Do one of the faults after the other."""

    def __init__(self, seed: int = 12) -> None:
        self.chance = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.gaps_forced = 0
        self.master = self.new_redis()
        self.master.start()
        self.switch = Switch(self.master.port)
        settings = {
            'WS4REDIS_CONNECTION': {'host': '127.0.0.1', 'port': self.switch.port},
            'WS4REDIS_FACILITIES': {'*': {'HISTORY_SIZE': 2000, 'HISTORY_SECONDS': 600, 'KEEP': 0}},
            'WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS': None,
        }
        self.server = UwsgiServer(
            workers=2, django_settings=settings, options=['--disable-logging']
        )
        self.server.start()

    def new_redis(self) -> RedisServer:
        return RedisServer(options=AOF)

    def close(self) -> None:
        self.server.stop()
        self.switch.close()
        self.master.stop()

    def acts(self, crowd: ReturningCrowd, publisher: NumberingPublisher) -> Acts:
        """Return the faults by their names."""
        return {
            'cut connections': lambda: self.cut_clients(crowd),
            'killed processes': lambda: self.kill_process(crowd),
            'killed bus': self.kill_bus,
            'killed commands': self.kill_commands,
            'restarted Redis': lambda: self.restart_redis(crowd),
            'promoted replica': lambda: self.promote_replica(crowd, publisher),
        }

    def cut_clients(self, crowd: ReturningCrowd) -> None:
        for client in self.chance.sample(crowd.clients, len(crowd.clients) // 5):
            crowd.cut(client)

    def kill_process(self, crowd: ReturningCrowd) -> None:
        threading.Thread(target=self.server.kill_worker, args=(self.chance.choice((1, 2)),)).start()
        crowd.run(1)

    def kill_bus(self) -> None:
        with self.master.client() as client:
            client.client_kill_filter(_type='pubsub')

    def kill_commands(self) -> None:
        with self.master.client() as client:
            client.client_kill_filter(_type='normal', skipme=True)

    def restart_redis(self, crowd: ReturningCrowd) -> None:
        def restart() -> None:
            self.master.stop()
            self.master.start()

        thread = threading.Thread(target=restart)
        thread.start()
        while thread.is_alive():
            crowd.run(0.2)

    def promote_replica(self, crowd: ReturningCrowd, publisher: NumberingPublisher) -> None:
        """Promote a replica that lacks the last publications of each channel, or some of them."""
        replica = self.new_redis()
        replica.start()
        with replica.client() as client, self.master.client() as master:
            client.replicaof('127.0.0.1', self.master.port)
            while client.info('replication')['master_link_status'] != 'up':
                crowd.run(0.05)
            crowd.run(0.5)
            publisher.may_go_on.clear()
            publisher.rests.wait(10)
            while client.info('replication')['slave_repl_offset'] < int(
                master.info('replication')['master_repl_offset']
            ):
                crowd.run(0.05)
            # Cut off, it keeps what it has.
            client.replicaof('127.0.0.1', 1)
            publisher.may_go_on.set()
            before = publisher.published
            while publisher.published < before + UNREPLICATED:
                crowd.run(0.05)
            publisher.may_go_on.clear()
            publisher.rests.wait(10)
            crowd.run(0.5)
            self.master.stop()
            client.replicaof('NO', 'ONE')
        self.master = replica
        self.switch.switch(replica.port)
        self.gaps_forced += 1
        publisher.may_go_on.set()


def break_everything(
    breaker: Breaker,
    *,
    seconds: float,
    clients: int = 200,
    channels: int = 50,
    rate: float = 100.0,
) -> Outcome:
    """Let clients follow three channels each while things break, and count."""
    names = [f'broadcast:chat{number}' for number in range(channels)]
    chosen = [name for _ in range(clients) for name in breaker.chance.sample(names, 3)]
    url = f'ws://127.0.0.1:{breaker.server.port}/ws/'
    crowd = ReturningCrowd(
        [
            ReturningClient(
                f'{url}{name.removeprefix("broadcast:")}?subscribe-broadcast',
                ('127.0.0.1', breaker.server.port),
            )
            for name in chosen
        ]
    )
    publisher = NumberingPublisher(LooseClient(lambda: breaker.switch.port).execute, names, rate)
    begin = time.monotonic()
    try:
        while crowd.number_open < len(crowd.clients):
            crowd.run(0.5)
        publisher.start()
        _break(breaker, crowd, publisher, until=begin + seconds)
        publisher.may_go_on.set()
        publisher.stop()
        crowd.run(3)
        while crowd.number_open < len(crowd.clients):
            crowd.run(0.5)
        for name in names:
            # A last one for each, so that nobody could miss the end unnoticed.
            publisher.publish(name)
        # A process may have yet to try again whether Redis is back.
        deadline = time.monotonic() + LAST_SECONDS
        while time.monotonic() < deadline and not all(
            client.account.items[-1:] == [publisher.last[name]]
            for client, name in zip(crowd.clients, chosen, strict=True)
        ):
            crowd.run(0.5)
    finally:
        publisher.may_go_on.set()
        crowd.close()
        breaker.close()
    return Outcome(
        clients,
        time.monotonic() - begin,
        publisher.published,
        faults_of(crowd.clients, chosen, publisher.last),
        breaker.done,
        sum(client.opened for client in crowd.clients) - len(crowd.clients),
        breaker.gaps_forced,
        publisher.refusals,
    )


def _break(
    breaker: Breaker, crowd: ReturningCrowd, publisher: NumberingPublisher, *, until: float
) -> None:
    acts = breaker.acts(crowd, publisher)
    # Each at least once, then at random.
    order = [*acts]
    while time.monotonic() < until or order:
        name = order.pop(0) if order else breaker.chance.choice([*acts])
        crowd.run(breaker.chance.uniform(0.5, 2))
        acts[name]()
        breaker.done[name] += 1
    crowd.run(2)
