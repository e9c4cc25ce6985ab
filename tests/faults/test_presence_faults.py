"""Presence while processes and Redis are killed: what is told is the truth, soon after.

``WS4REDIS_TEST_SOAK_SECONDS=180`` runs it with 300 clients and the times of production.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable

import pytest
from django.test import override_settings

from tests.faults.presence_clients import Client, Crowd, PresenceProcess
from tests.programs import RedisServer
from tests.timeouts import TIMEOUT_FACTOR
from ws4redis.presence import Presence

SOAK_SECONDS = float(os.environ.get('WS4REDIS_TEST_SOAK_SECONDS', '0'))
CLIENTS = 300 if SOAK_SECONDS else 90
# Two thirds of them are tabs of users who have another one.
USERS_PER_CHANNEL = 40 if SOAK_SECONDS else 12
CHANNELS = [f'broadcast:room/{number}' for number in range(5)]
# By how much all times are shorter than in production.
TEMPO = 1.0 if SOAK_SECONDS else 4.0 / min(TIMEOUT_FACTOR, 4.0)
SETTINGS = {
    'WS4REDIS_FACILITIES': {'room/*': {'PRESENCE': True}},
    'WS4REDIS_PING_INTERVAL': None,
}


def explain(crowd: Crowd, in_redis: dict[str, set[str]]) -> str | None:
    """Return what is not the truth, if anything."""
    truth = crowd.truth()
    for channel, users in truth.items():
        if in_redis[channel] != users:
            return f'{channel}: Redis has {in_redis[channel] ^ users} wrong'
    for client in crowd.clients:
        if client.sock is not None and client.members != truth[client.channel]:
            wrong = None if client.members is None else client.members ^ truth[client.channel]
            return f'{client.user} in {client.channel} has {wrong} wrong'
    return None


def members_in_redis(server: RedisServer) -> dict[str, set[str]]:
    with override_settings(WS4REDIS_CONNECTION=server.connection, **SETTINGS):
        return {
            channel: {
                str(member.user)
                for member in Presence(channel.removeprefix('broadcast:')).members()
            }
            for channel in CHANNELS
        }


@pytest.mark.timeout(max(120, 2 * SOAK_SECONDS + 200) * TIMEOUT_FACTOR)
def test_after_each_kill_members_are_the_truth_and_joins_minus_leaves_are_the_members() -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    with RedisServer() as server:
        env = {
            **server.env,
            'DJANGO_SETTINGS_MODULE': 'tests.settings',
            'WS4REDIS_TEST_SETTINGS': json.dumps(SETTINGS),
            'PRESENCE_TEMPO': str(TEMPO),
        }
        clients = [
            Client(f'user{chance.randrange(USERS_PER_CHANNEL)}', CHANNELS[number % len(CHANNELS)])
            for number in range(CLIENTS)
        ]
        with PresenceProcess(env=env) as first, PresenceProcess(env=env) as second:
            with Crowd(clients, [first.port, second.port], chance) as crowd:
                _kill_and_check(crowd, server, [first, second], chance, seed)
                assert sum(client.told for client in clients) > CLIENTS


def _kill_and_check(
    crowd: Crowd,
    server: RedisServer,
    processes: list[PresenceProcess],
    chance: random.Random,
    seed: int,
) -> None:
    def restart(process: PresenceProcess) -> None:
        process.kill()
        process.start()

    def restart_redis() -> None:
        server.kill()
        crowd.live(chance.uniform(0, 3) / TEMPO)
        server.start()

    def both() -> None:
        processes[0].kill()
        restart_redis()
        processes[0].start()

    def cut_off() -> None:
        # All connections of both processes, while clients come and go.
        with server.client() as client:
            for kind in ('pubsub', 'normal'):
                client.client_kill_filter(_type=kind, skipme=True)

    faults: list[tuple[str, Callable[[], object]]] = [
        ('process', lambda: restart(chance.choice(processes))),
        ('Redis', restart_redis),
        ('both', both),
        ('connections', cut_off),
    ]
    crowd.live(5 / TEMPO, comings_and_goings=10 * TEMPO)
    end = time.monotonic() + SOAK_SECONDS
    rounds = 0
    while rounds < len(faults) or time.monotonic() < end:
        name, fault = faults[rounds] if rounds < len(faults) else chance.choice(faults)
        rounds += 1
        crowd.live(2 / TEMPO, comings_and_goings=20 * TEMPO)
        fault()
        killed_at = time.monotonic()
        # Who goes now is there for ten seconds more, and nobody goes after that.
        crowd.live(4 / TEMPO, comings_and_goings=10 * TEMPO)
        crowd.live(max(0.0, killed_at + 20 / TEMPO - time.monotonic()))
        wrong = explain(crowd, members_in_redis(server))
        assert wrong is None, f'seed {seed}, round {rounds}, 20 s after {name} was killed: {wrong}'
        for client in crowd.clients:
            assert client.wrong == [], f'seed {seed}, round {rounds}, {name}: {client.wrong}'
