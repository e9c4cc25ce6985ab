"""Run the demo on a Redis Cluster or under Sentinels: `make cluster`, `make sentinel`.

What it starts ends with it, as by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.server_process import ROOT
from tests.timeouts import SERVER_SECONDS
from tests.topologies import ClusterOfRedis, RedisWithSentinels


def addresses(nodes: list[tuple[str, int]]) -> str:
    return ','.join(f'{host}:{port}' for host, port in nodes)


@contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """Run a Cluster, and give the environment that leads the demo to it."""
    with ClusterOfRedis() as running:
        for node in running.nodes:
            kind = 'master' if running.is_master(node) else 'replica'
            print(f'{kind:8} redis-cli -c -p {node.port}   (process {node.pid})')
        yield {'WS4REDIS_CLUSTER': addresses([node.node for node in running.nodes])}


@contextmanager
def sentinel() -> Iterator[dict[str, str]]:
    """Run a master with replicas and Sentinels, and give the environment that leads to it."""
    with RedisWithSentinels() as running:
        for server in running.servers:
            kind = 'master' if server is running.master() else 'replica'
            print(f'{kind:8} redis-cli -p {server.port}   (process {server.pid})')
        for watcher in running.sentinels:
            print(f'sentinel redis-cli -p {watcher.port}   (process {watcher.pid})')
        yield {
            'WS4REDIS_SENTINELS': addresses([(s.host, s.port) for s in running.sentinels]),
            'WS4REDIS_SERVICE_NAME': 'main',
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('topology', choices=['cluster', 'sentinel'])
    options, others = parser.parse_known_args()
    with {'cluster': cluster, 'sentinel': sentinel}[options.topology]() as environment:
        sys.stdout.flush()
        demo = subprocess.Popen(
            [sys.executable, str(ROOT / 'examples' / 'demo.py'), *others],
            env={**os.environ, **environment},
        )
        try:
            return demo.wait()
        except KeyboardInterrupt:
            # It got the same Ctrl-C.
            return demo.wait(SERVER_SECONDS)
        finally:
            if demo.poll() is None:
                demo.terminate()
                demo.wait(SERVER_SECONDS)


if __name__ == '__main__':
    import signal

    # So that what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.exit(main())
