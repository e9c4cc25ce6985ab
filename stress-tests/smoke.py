#!/usr/bin/env python
"""Show in half a minute that one uWSGI worker is fast and small.

A burst of 200 messages to 1,000 websockets arrives whole; 10,000 idle websockets cost little
memory, and the worker has two connections to Redis however many there are. Starts Redis and uWSGI
by itself, and ends them. The exit status tells whether all of it was as wanted.
"""

import argparse
import gc
import signal
import sys
from dataclasses import dataclass
from functools import partial

from bench.contenders import CONTENDERS
from bench.measurements import burst
from bench.programme import exit_by_signal, open_theatre
from bench.stage import Limits, Theatre

WANTED_PER_SECOND = 500_000
WANTED_KB_PER_WEBSOCKET = 4
WANTED_REDIS_CONNECTIONS = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was measured.

    Attributes:
        text: what was found, and what was wanted.
        is_good: whether that was enough.
    """

    text: str
    is_good: bool


def burst_findings(theatre: Theatre, *, websockets: int, messages: int) -> list[Finding]:
    """Publish a burst of messages to everybody."""
    metrics = burst(theatre, CONTENDERS['ws4redis'], websockets=websockets, messages=messages)
    expected = websockets * messages
    arrived = round(metrics['complete_share'] * expected)
    rate = metrics['delivered_per_second']
    return [
        Finding(f'{arrived:,} of {expected:,} messages arrived', arrived == expected),
        Finding(
            f'{rate:,.0f} messages/s (wanted: more than {WANTED_PER_SECOND:,})',
            rate > WANTED_PER_SECOND,
        ),
    ]


def idle_findings(theatre: Theatre, *, websockets: int) -> list[Finding]:
    """Open websockets that do nothing."""
    first = websockets // 50
    with theatre.stage(CONTENDERS['ws4redis']) as stage:
        stage.subscribe(first)
        before = stage.server.private_bytes()
        stage.subscribe(websockets - first)
        each = (stage.server.private_bytes() - before) / (websockets - first) / 1024
        # One more is the publisher's.
        connections = theatre.redis.connections() - 1
    return [
        Finding(
            f'{each:.2f} KB of memory per websocket, of {websockets:,} '
            f'(wanted: less than {WANTED_KB_PER_WEBSOCKET})',
            each < WANTED_KB_PER_WEBSOCKET,
        ),
        Finding(
            f'{connections} connections to Redis (wanted: {WANTED_REDIS_CONNECTIONS})',
            connections == WANTED_REDIS_CONNECTIONS,
        ),
    ]


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--websockets', type=int, default=1_000, help='that receive the burst')
    parser.add_argument('--messages', type=int, default=200, help='of the burst')
    parser.add_argument('--idle', type=int, default=10_000, help='websockets that do nothing')
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, exit_by_signal)
    gc.disable()
    steps = (
        partial(burst_findings, websockets=options.websockets, messages=options.messages),
        partial(idle_findings, websockets=options.idle),
    )
    is_good = True
    try:
        with open_theatre(Limits(run_seconds=30), accounts=0) as theatre:
            for step in steps:
                for finding in step(theatre):
                    print('ok    ' if finding.is_good else 'BAD   ', finding.text, flush=True)
                    is_good = is_good and finding.is_good
    except Exception as exc:
        print(f'BAD    {type(exc).__name__}: {exc}', file=sys.stderr)
        return 1
    return 0 if is_good else 1


if __name__ == '__main__':
    sys.exit(main())
