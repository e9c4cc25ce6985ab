#!/usr/bin/env python
"""Flood a server with default settings in every way known, and time a bystander's echo meanwhile.

Starts Redis and uWSGI by itself. Fails where the 99th percentile of the echoes reaches 100 ms, or
the memory of the worker or of Redis grows by more than is documented. ``--quick`` takes half a
minute.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT)]
os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')

from breaking.floods import FLOODS, Attack, flood
from breaking.listeners import percentile

from tests.faults.observed import ObservedServer
from tests.programs import RedisServer
from tests.websocket_client import RawWebSocket

MAX_ECHO_SECONDS = 0.1
MEBIBYTE = 1024 * 1024
# WS4REDIS_MAX_TOTAL_QUEUE_BYTES, and what reads and interpreter need.
MAX_WORKER_BYTES = 320 * MEBIBYTE
# WS4REDIS_MAX_KEPT_BYTES, and what Redis holds for its clients.
MAX_REDIS_BYTES = 96 * MEBIBYTE
ECHO_INTERVAL_SECONDS = 0.02


@dataclass(frozen=True)
class Outcome:
    """What a flood did to a bystander, and to memory."""

    echoes: list[float]
    worker_bytes: int
    redis_bytes: int

    @property
    def is_harmless(self) -> bool:
        return (
            percentile(self.echoes, 0.99) < MAX_ECHO_SECONDS
            and self.worker_bytes < MAX_WORKER_BYTES
            and self.redis_bytes < MAX_REDIS_BYTES
        )


def measure(attack: Attack, seconds: float) -> Outcome:
    """Let a bystander echo while the flood goes on."""
    with RedisServer() as redis_server, ObservedServer(redis_server) as server:
        options = 'subscribe-broadcast&publish-broadcast&echo'
        with RawWebSocket(server.url_of('bystander', options), timeout=30) as bystander:
            server.wait_for_bus()
            worker_before = server.observe()['rss_bytes']
            with redis_server.client() as client:
                redis_before = client.info('memory')['used_memory']
                with flood(server, attack):
                    echoes = time_echoes(bystander, seconds)
                    worker = server.observe()['rss_bytes']
                redis = client.info('memory')['used_memory']
    return Outcome(echoes, worker - worker_before, redis - redis_before)


def time_echoes(bystander: RawWebSocket, seconds: float) -> list[float]:
    """Return the seconds that each of the bystander's messages takes to come back."""
    echoes: list[float] = []
    until = time.monotonic() + seconds
    while (began := time.monotonic()) < until:
        bystander.send(f'{len(echoes)}')
        bystander.receive()
        echoes.append(time.monotonic() - began)
        time.sleep(ECHO_INTERVAL_SECONDS)
    return echoes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--quick', action='store_true', help='3 seconds for each flood, not 20')
    parser.add_argument('--only', choices=FLOODS, help='run one flood')
    arguments = parser.parse_args()
    seconds = 3.0 if arguments.quick else 20.0
    is_harmless = True
    print(f'{"flood":30} {"median":>9} {"p99":>9} {"worker":>10} {"Redis":>10}')
    for name, attack in FLOODS.items():
        if arguments.only in (None, name):
            outcome = measure(attack, seconds)
            median, p99 = (percentile(outcome.echoes, share) * 1000 for share in (0.5, 0.99))
            worker, redis = outcome.worker_bytes / MEBIBYTE, outcome.redis_bytes / MEBIBYTE
            verdict = '' if outcome.is_harmless else '  TOO MUCH'
            print(
                f'{name:30} {median:6.1f} ms {p99:6.1f} ms {worker:6.1f} MiB {redis:6.1f} MiB'
                f'{verdict}',
                flush=True,
            )
            is_harmless &= outcome.is_harmless
    return 0 if is_harmless else 1


if __name__ == '__main__':
    sys.exit(main())
