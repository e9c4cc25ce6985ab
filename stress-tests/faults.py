#!/usr/bin/env python
"""Break Redis, clients and workers under load, and count what is lost.

Prints what must be reached beside what was, and fails where it was not. ``--quick`` takes some
seven minutes, and only shows the delays, which tell little on a busy machine; without it there is
more of everything.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT)]
os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')

import django
from breaking.churn import Churn, Footprint, churn, footprint, slow_readers
from breaking.delays import Delay, measure_delays
from breaking.histories import Breaker, Outcome, break_everything
from breaking.refusals import COMPILER, Refuser
from breaking.restarts import restart_redis
from breaking.topologies import break_topology

from tests.faults.observed import ObservedServer
from tests.programs import RedisServer
from ws4redis.hub.keepalive import SLOTS as PING_SLOTS

MAX_ADDED_SECONDS = 0.050
MAX_GROWTH = 0.01
MOST_ROUNDS = 4


@dataclass(frozen=True)
class Figure:
    """One figure that must be reached; a time is one that depends on the machine, too."""

    what: str
    wanted: str
    got: str
    is_reached: bool
    is_time: bool = False


def restart_figures(*, quick: bool) -> list[Figure]:
    """Restart Redis twenty times."""
    outcome = restart_redis(websockets=300 if quick else 1000, restarts=20)
    note = f'{outcome.reconnects} reconnections in {outcome.seconds:.0f} s'
    return [
        Figure(
            f'connections held through {outcome.restarts} Redis restarts under load',
            f'all {outcome.websockets}',
            f'{outcome.held} ({note})',
            outcome.held == outcome.websockets,
        ),
        Figure(
            f'lost of {outcome.published_while_up} messages published while Redis and bus were up',
            '0',
            f'{outcome.lost}, and {outcome.repeated_or_out_of_order} repeated or out of order',
            outcome.lost == 0 and outcome.published_while_up > 500,
        ),
        Figure(
            f'not published of {outcome.sent_by_clients} messages sent by clients meanwhile',
            '0',
            str(outcome.not_published),
            outcome.not_published == 0,
        ),
    ]


def delay_figures(*, quick: bool) -> list[Figure]:
    """Measure what disturbs others."""
    modes: dict[str, dict[str, int | None]] = {
        'gevent': {'gevent': 100},
        'threads': {'gevent': None, 'threads': 20},
    }
    figures = []
    for name, mode in modes.items():
        for delay in measure_delays(seconds=1.2 if quick else 6, mode=mode):
            figures.append(delay_figure(name, delay))
    return figures


def delay_figure(mode: str, delay: Delay) -> Figure:
    """Judge one delay."""
    return Figure(
        f'delay added at the 99th percentile by {delay.what} (--{mode})',
        f'< {MAX_ADDED_SECONDS * 1000:.0f} ms',
        f'{delay.added * 1000:.1f} ms (from {delay.before * 1000:.1f} to '
        f'{delay.during * 1000:.1f})',
        delay.added < MAX_ADDED_SECONDS,
        is_time=True,
    )


def leak_figures(*, quick: bool) -> list[Figure]:
    """Let 20,000 connections come and go, and compare what the worker holds."""
    count, warm_up = 20_000, 30_000
    chance = random.Random(4)
    # The log of requests would grow in this process, not in the worker's.
    options = ['--disable-logging']
    with (
        RedisServer() as redis_server,
        ObservedServer(
            redis_server, {'WS4REDIS_MAX_QUEUE_BYTES': 200_000}, options=options
        ) as server,
    ):

        def footprint_after(connections: int) -> tuple[Churn, Footprint]:
            counted = Churn()
            churn(server, connections, counted, chance)
            slow_readers(server, redis_server, 40)
            server.wait_for_bus()
            return counted, footprint(server, redis_server)

        before = footprint_after(warm_up)[1]
        counted, after = footprint_after(count)
        # What is remembered within bounds fills up and is emptied meanwhile. A leak grows in each
        # round, so that the smallest growth tells.
        rounds = [before, after]
        while (growth := least_growth(rounds)) >= MAX_GROWTH and len(rounds) <= MOST_ROUNDS:
            rounds.append(footprint_after(count)[1])
    left = after.descriptors - before.descriptors
    # With pings due, each slot of their wheel has one timer at most, however many websockets.
    timers = max(0, after.timers - before.timers - PING_SLOTS)
    kinds = ', '.join(f'{kind} {n}' for kind, n in sorted(counted.by_end.items()))
    return [
        Figure(
            f'descriptors left after {counted.connections} connections',
            '0',
            f'{left} ({kinds}, never opened {counted.refused})',
            left <= 0,
        ),
        Figure(
            'subscriptions, places, timers and websockets left',
            '0',
            f'{after.subscriptions}, {after.places}, {timers}, {after.websocket_objects}',
            after.subscriptions == after.places == after.websocket_objects == 0 and timers == 0,
        ),
        Figure(
            f'growth of memory by {count} connections, the least of {len(rounds) - 1} rounds',
            '< 1%',
            f'{growth * 100:+.2f}% of {before.rss_bytes / 1e6:.1f} MB '
            f'({after.objects - before.objects:+d} objects in the first)',
            growth < MAX_GROWTH,
        ),
    ]


def least_growth(rounds: list[Footprint]) -> float:
    """Return by what share the memory grew in that round in which it grew least."""
    return min(after.rss_bytes / before.rss_bytes - 1 for before, after in pairwise(rounds))


def topology_figures(kind: str, *, quick: bool, seconds: float | None = None) -> list[Figure]:
    """Break a Cluster, or a Redis under Sentinels, while websockets count what they get."""
    django.setup()
    outcome = break_topology(kind, seconds=seconds or (30 if quick else 300))
    faults = outcome.faults
    broken = ', '.join(f'{name} {n}' for name, n in sorted(outcome.broken.items()))
    told = ', '.join(f'{cause} {n}' for cause, n in sorted(faults.gaps.items())) or 'none'
    silences = ', '.join(f'{name} {s:.1f}' for name, s in sorted(outcome.longest_silences.items()))
    return [
        Figure(
            f'lost untold, repeated and out of order of {faults.received} messages while a {kind} '
            'is broken',
            '0, 0, 0',
            f'{faults.lost_untold}, {faults.duplicated}, {faults.out_of_order} '
            f'({outcome.published} published in {outcome.seconds:.0f} s, '
            f'{outcome.reconnections} times a websocket came back; {broken})',
            faults.received > 1000
            and faults.lost_untold == faults.duplicated == faults.out_of_order == 0,
        ),
        Figure(
            f'gaps told by a {kind} whose masters are cut off and demoted',
            'those alone whose messages Redis has lost',
            f'{told}; {faults.missing_with_a_gap} messages missing',
            is_reached=True,
        ),
        Figure(
            f'longest silence of a websocket in seconds while a {kind} is broken',
            'as long as Redis cannot be reached, and a few seconds',
            f'{silences}; a publisher waited {outcome.longest_wait:.1f} at most',
            max(outcome.longest_silences.values()) < 60,
            is_time=True,
        ),
    ]


def history_figures(*, quick: bool) -> list[Figure]:
    """Break clients, processes and Redis while clients of histories count what they get."""
    outcome = break_everything(
        Breaker(), seconds=25 if quick else 300, clients=60 if quick else 200
    )
    return figures_of_histories(outcome, 'one for each promotion that lost something')


def refusal_figures(*, quick: bool) -> list[Figure]:
    """Let Redis refuse and lose what histories are made of while clients count what they get."""
    outcome = break_everything(
        Refuser(), seconds=10 if quick else 120, clients=20 if quick else 100, channels=20
    )
    refused = ', '.join(f'{word} {times}' for word, times in sorted(outcome.refusals.items()))
    if COMPILER is None:
        print('         (without a C compiler the clock of Redis does not jump)')
    return [
        *figures_of_histories(outcome, 'one for each time that keys were lost, two for a jump'),
        Figure(
            'refusals that publishers were told of, and after which they published',
            'out of memory, read-only, and busy (a ResponseError)',
            refused,
            {'OutOfMemoryError', 'ReadOnlyError', 'ResponseError'} <= set(outcome.refusals),
        ),
    ]


def figures_of_histories(outcome: Outcome, which_gaps: str) -> list[Figure]:
    """Judge what clients of histories got while things broke."""
    faults = outcome.faults
    broken = ', '.join(f'{what} {times} times' for what, times in sorted(outcome.broken.items()))
    told = ', '.join(f'{cause} {times}' for cause, times in sorted(faults.gaps.items())) or 'none'
    return [
        Figure(
            f'lost untold, repeated and out of order of {faults.received} messages of histories',
            '0, 0, 0',
            f'{faults.lost_untold}, {faults.duplicated}, {faults.out_of_order} '
            f'({outcome.published} published in {outcome.seconds:.0f} s; {broken}; '
            f'nobody heard nothing for more than {faults.longest_silence:.1f} s)',
            faults.received > 1000
            and faults.lost_untold == faults.duplicated == faults.out_of_order == 0,
        ),
        Figure(
            f'gaps told to {3 * outcome.clients} websockets that came back '
            f'{outcome.reconnections} times',
            f'{outcome.gaps_forced} each at most, {which_gaps}',
            told,
            faults.gaps.total() <= outcome.gaps_forced * 3 * outcome.clients,
        ),
    ]


TOPOLOGIES = ('cluster', 'sentinel')
SECTIONS: dict[str, Callable[..., list[Figure]]] = {
    'restarts': restart_figures,
    'delays': delay_figures,
    'leaks': leak_figures,
    **{kind: partial(topology_figures, kind) for kind in TOPOLOGIES},
    'histories': history_figures,
    'refusals': refusal_figures,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--quick', action='store_true', help='take some seven minutes')
    parser.add_argument(
        '--seconds', type=float, help='how long to break a Cluster, or Sentinels (default: 300)'
    )
    parser.add_argument('sections', nargs='*', metavar='SECTION', help=f'of {", ".join(SECTIONS)}')
    arguments = parser.parse_args()
    missed = 0
    for name in arguments.sections or SECTIONS:
        started = time.monotonic()
        lasts = {'seconds': arguments.seconds} if name in TOPOLOGIES else {}
        for figure in SECTIONS[name](quick=arguments.quick, **lasts):
            # On a busy machine a delay says nothing; the quick form is run on any.
            missed += not (figure.is_reached or (figure.is_time and arguments.quick))
            verdict = 'reached' if figure.is_reached else 'MISSED '
            print(f'{verdict}  {figure.what}\n         wanted {figure.wanted}, got {figure.got}')
        print(f'         [{name}: {time.monotonic() - started:.0f} s]', flush=True)
    print('All reached.' if not missed else f'{missed} missed.')
    return 1 if missed else 0


if __name__ == '__main__':
    sys.exit(main())
