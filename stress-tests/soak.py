#!/usr/bin/env python
"""Let websockets come and go for a long time, with Redis restarting, and fail when anything grows.

``--minutes N`` is how long. Each round opens and ends connections in every way, lets slow readers
be closed, publishes meanwhile and restarts Redis; then the worker is measured at rest. After the
warm-up neither descriptors nor memory, objects, channels or timers may grow.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT)]
os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')

from breaking.churn import Churn, Footprint, churn, footprint, slow_readers
from breaking.listeners import Listeners
from breaking.restarts import Publisher

from tests.faults.observed import ObservedServer
from tests.programs import RedisServer

CONNECTIONS_PER_ROUND = 2000
WARM_UP_ROUNDS = 5
LAST_ROUNDS = 3
MAX_GROWTH = 0.01
# Objects vary a little with what is under way, such as timers and exceptions kept for a moment.
MAX_MORE_OBJECTS = 1500
COLUMNS = ('minute', 'connections', 'descriptors', 'channels', 'timers', 'objects', 'memory MB')


def soak_round(
    server: ObservedServer, redis_server: RedisServer, counted: Churn, chance: random.Random
) -> Footprint:
    """Do the worst once, and return what the worker holds when all is over."""
    lasting = Listeners([server.url_of('shared')] * 50)
    server.wait_for_bus()
    publisher = Publisher(redis_server, 'broadcast:shared', rate=50)
    try:
        churn(server, CONNECTIONS_PER_ROUND // 2, counted, chance)
        redis_server.kill() if chance.random() < 0.5 else redis_server.stop()
        churn(server, CONNECTIONS_PER_ROUND // 10, counted, chance)
        redis_server.start()
        server.wait_for_bus()
        churn(server, CONNECTIONS_PER_ROUND // 2, counted, chance)
        slow_readers(server, redis_server, 10)
        if lasting.number_open != len(lasting.all):
            raise SystemExit(f'only {lasting.number_open} of {len(lasting.all)} stayed open')
    finally:
        publisher.stop()
        lasting.close()
    return footprint(server, redis_server)


def growth(before: Footprint, after: Footprint) -> list[str]:
    """Return what has grown."""
    grown = [
        f'{name} from {getattr(before, name)} to {getattr(after, name)}'
        for name in ('descriptors', 'channels', 'subscriptions', 'websocket_objects', 'places')
        if getattr(after, name) > getattr(before, name)
    ]
    if after.timers > before.timers + 2:
        grown.append(f'timers from {before.timers} to {after.timers}')
    if after.objects > before.objects + MAX_MORE_OBJECTS:
        grown.append(f'objects from {before.objects} to {after.objects}')
    if after.rss_bytes > before.rss_bytes * (1 + MAX_GROWTH):
        grown.append(f'memory from {before.rss_bytes} to {after.rss_bytes} bytes')
    return grown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--minutes', type=float, default=10)
    parser.add_argument('--seed', type=int, default=None, help='repeat a run')
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(1_000_000)
    chance = random.Random(seed)
    counted = Churn()
    started = time.monotonic()
    settings = {'WS4REDIS_MAX_QUEUE_BYTES': 200_000, 'WS4REDIS_CLOSE_TIMEOUT': 2}
    options = ['--disable-logging']
    print(f'seed {seed}\n' + ''.join(f'{column:>13}' for column in COLUMNS), flush=True)
    seen: list[Footprint] = []
    with RedisServer() as redis_server:
        with ObservedServer(redis_server, settings, options=options) as server:
            while (
                time.monotonic() - started < arguments.minutes * 60
                or len(seen) < WARM_UP_ROUNDS + 1 + LAST_ROUNDS
            ):
                after = soak_round(server, redis_server, counted, chance)
                seen.append(after)
                row = (
                    f'{(time.monotonic() - started) / 60:.1f}',
                    counted.connections,
                    after.descriptors,
                    after.channels,
                    after.timers,
                    after.objects,
                    f'{after.rss_bytes / 1e6:.2f}',
                )
                print(''.join(f'{value:>13}' for value in row), flush=True)
            statistics = server.statistics()
    # What is remembered within bounds fills up and is emptied: a leak shows in its lowest, too.
    lowest = min(seen[-LAST_ROUNDS:], key=lambda footprint: footprint.objects)
    grown = growth(seen[WARM_UP_ROUNDS], lowest)
    print(f'closes {statistics["closes"]}, Redis reconnections {statistics["redis_reconnects"]}')
    print(f'Grown: {"; ".join(grown)}' if grown else 'Nothing has grown.')
    return 1 if grown else 0


if __name__ == '__main__':
    sys.exit(main())
