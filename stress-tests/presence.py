#!/usr/bin/env python
"""Measure what presence costs: the loop, Redis, and those who ask.

Starts Redis by itself. Members are put into a real hub; there are no websockets, so that nothing
else is measured. Fails where keeping them costs more than 1 % of a core or 50 commands per second,
those that scripts run included.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT)]
os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')

import django
from bench.figures import tell
from django.test import override_settings

from tests.programs import RedisServer

MAX_CORE = 0.01
MAX_COMMANDS_PER_SECOND = 50
FACILITIES = {'room/*': {'PRESENCE': True}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--members', type=int, default=10_000)
    parser.add_argument('--seconds', type=float, default=30.0)
    options = parser.parse_args()
    django.setup()
    is_cheap = True
    for channels in (1, 100, options.members):
        with (
            RedisServer() as server,
            override_settings(
                WS4REDIS_CONNECTION=server.connection, WS4REDIS_FACILITIES=FACILITIES
            ),
        ):
            is_cheap &= measure(server, channels, options.members, options.seconds)
    return 0 if is_cheap else 1


def measure(server: RedisServer, channels: int, members: int, seconds: float) -> bool:
    from ws4redis.broker.presence import Member, member_id_of_user
    from ws4redis.presence import Presence, counts
    from ws4redis.servers.process import drop_hub, get_hub

    hub = get_hub()
    facilities = [f'room/{number}' for number in range(channels)]

    def join_all() -> None:
        for number in range(members):
            user = f'user{number}'
            channel = f'broadcast:{facilities[number % channels]}'.encode()
            hub.presence.joined(channel, number, Member(member_id_of_user(user), user, None))

    def leave_all() -> None:
        for number in range(members):
            channel = f'broadcast:{facilities[number % channels]}'.encode()
            hub.presence.left(channel, number, at_once=True)

    def count() -> int:
        return sum(counts(facilities).values())

    def timed(function: Callable[[], object]) -> float:
        begin = time.perf_counter()
        function()
        return time.perf_counter() - begin

    def until(condition: Callable[[], bool]) -> None:
        while not condition():
            time.sleep(0.05)

    try:
        until(lambda: hub.links.commands.is_connected)
        with server.client() as client:
            empty = used_memory(client)
            hub.loop.call_soon(join_all)
            joining = timed(lambda: until(lambda: count() == members))
            each = (used_memory(client) - empty) / members
            counting = timed(count)
            reading = timed(Presence(facilities[0]).members)
            # What came with the joining is over.
            time.sleep(5)
            calls, all_calls, cpu, redis_cpu = (
                commands(client),
                total(client),
                cpu_time(),
                used_cpu(client),
            )
            time.sleep(seconds)
            core = (cpu_time() - cpu) / seconds
            redis_core = (used_cpu(client) - redis_cpu) / seconds
            rate = (commands(client) - calls) / seconds
            all_rate = (total(client) - all_calls) / seconds
            assert count() == members
            hub.loop.call_soon(leave_all)
            leaving = timed(lambda: until(lambda: count() == 0))
    finally:
        drop_hub()
    where = 'a channel' if channels == 1 else f'{channels:,} channels'
    tell({f'presence of {members:,} members in {where}: % of a core': core * 100})
    tell({f"presence of {members:,} members in {where}: Redis' commands/s": all_rate})
    print(
        f'{members} members in {channels} channels: hub {core:.2%} of a core, '
        f'Redis {redis_core:.2%}, {rate:.1f} commands/s, {all_rate:.1f} with those in scripts; '
        f'{each:.0f} bytes each in Redis; all joined in {joining:.2f} s, all left in '
        f'{leaving:.2f} s; all channels counted in {counting * 1000:.1f} ms, the first one read in '
        f'{reading * 1000:.1f} ms',
        flush=True,
    )
    return core <= MAX_CORE and all_rate <= MAX_COMMANDS_PER_SECOND


def cpu_time() -> float:
    times = os.times()
    return times.user + times.system


def info(client: Any, section: str) -> dict[str, Any]:
    found: dict[str, Any] = client.info(section)
    return found


def used_memory(client: Any) -> int:
    return int(info(client, 'memory')['used_memory'])


def used_cpu(client: Any) -> float:
    found = info(client, 'cpu')
    return float(found['used_cpu_user']) + float(found['used_cpu_sys'])


def commands(client: Any) -> int:
    """Return how many scripts were called."""
    return int(info(client, 'commandstats').get('cmdstat_evalsha', {}).get('calls', 0))


def total(client: Any) -> int:
    """Return how many commands Redis has run, those in scripts included."""
    return sum(int(stats['calls']) for stats in info(client, 'commandstats').values())


if __name__ == '__main__':
    sys.exit(main())
