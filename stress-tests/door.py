"""Measure the doors: handshakes of all kinds, slow heads, how processes share, event streams.

    python stress-tests/door.py [anonymous] [ticket] [ticket-server] [user] [tls]
        [uwsgi-anonymous] [uwsgi-user] [slow] [spread] [streams]

Without a name it measures all. Starts Redis and the servers by itself, and ends them.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]
os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')

import psutil
from bench.figures import tell
from handshakes import HANDSHAKES
from tls_handshakes import tls

from tests.event_stream_client import EventStreamClient
from tests.programs import RedisServer
from tests.standalone.server import StandaloneServer
from tests.websocket_client import RawWebSocket, handshake_request

SLOW_HEADS = 5000
SETTINGS = {'WS4REDIS_HANDSHAKE_TIMEOUT': 60, 'WS4REDIS_EXPIRE': 0}
PATH = '/ws/bench?subscribe-broadcast'


def main() -> None:
    """Measure what the command line names, or all."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 40_000), hard))
    names = sys.argv[1:] or list(MEASUREMENTS)
    with RedisServer() as redis_server:
        for name in names:
            MEASUREMENTS[name](redis_server)


def server_of(redis_server: RedisServer, *options: str) -> StandaloneServer:
    return StandaloneServer(*options, redis_server=redis_server, django_settings=SETTINGS)


def workers_of(server: StandaloneServer) -> list[psutil.Process]:
    return psutil.Process(server.pid).children()


def memory_of(server: StandaloneServer) -> int:
    return sum(worker.memory_full_info().uss for worker in workers_of(server))


def slow_heads(redis_server: RedisServer) -> None:
    """Let clients send a byte a second, and others come meanwhile."""
    with server_of(redis_server) as server:
        with RawWebSocket(server.ws_url + PATH):
            pass
        head = handshake_request(server.ws_url + PATH)
        before = memory_of(server)
        clients = [socket.create_connection((server.host, server.port)) for _ in range(SLOW_HEADS)]
        latencies = []
        started = time.monotonic()
        for second in range(10):
            for client in clients:
                client.sendall(head[second : second + 1])
            while time.monotonic() < started + second + 1:
                began = time.monotonic()
                with RawWebSocket(server.ws_url + PATH):
                    latencies.append(time.monotonic() - began)
                time.sleep(0.01)
        each = (memory_of(server) - before) / SLOW_HEADS
        latencies.sort()
        tell({'bytes of a slow head': each})
        tell({f'handshake beside {SLOW_HEADS:,} slow heads, ms at most': latencies[-1] * 1e3})
        print(
            f'{SLOW_HEADS} slow heads: {each:.0f} bytes each; {len(latencies)} handshakes beside '
            f'them: median {latencies[len(latencies) // 2] * 1e3:.1f} ms, '
            f'at most {latencies[-1] * 1e3:.1f} ms'
        )
        for client in clients:
            client.close()


def spread(redis_server: RedisServer) -> None:
    """See how many of the connections each of two processes takes, trickling and in a storm."""
    for name, pause in (('one after the other', 0.002), ('at once', 0.0)):
        with server_of(redis_server, '--workers', '2') as server:
            clients = []
            request = handshake_request(server.ws_url + PATH)
            for _ in range(1000):
                client = socket.create_connection((server.host, server.port))
                client.sendall(request)
                clients.append(client)
                time.sleep(pause)
            for client in clients:
                assert client.recv(12) == b'HTTP/1.1 101'
            held = Counter(
                worker.pid
                for worker in workers_of(server)
                for connection in worker.net_connections('tcp')
                if connection.status == psutil.CONN_ESTABLISHED
                and connection.laddr.port == server.port
            )
            print(f'1000 handshakes {name}: {sorted(held.values())} in two processes')
            for client in clients:
                client.close()


def streams(redis_server: RedisServer) -> None:
    """Compare the memory and the CPU of event streams with those of websockets."""
    figures = []
    for name in ('websocket', 'event stream'):
        with server_of(redis_server) as server, redis_server.client() as client:
            with RawWebSocket(server.ws_url + PATH):
                pass
            before = memory_of(server)
            opened: list[Any] = []
            for _ in range(2000):
                opened.append(
                    RawWebSocket(server.ws_url + PATH)
                    if name == 'websocket'
                    else EventStreamClient(server.url + PATH)
                )
            each = (memory_of(server) - before) / len(opened)
            (worker,) = workers_of(server)
            cpu = sum(worker.cpu_times()[:2])
            for _ in range(60):
                client.publish('broadcast:bench', 'x' * 100)
                time.sleep(0.05)
            time.sleep(0.5)
            cpu = sum(worker.cpu_times()[:2]) - cpu
            figures.append((each, cpu))
            print(
                f'2000 × {name}: {each:.0f} bytes each, {cpu / 60 / 2000 * 1e6:.2f} µs per delivery'
            )
            for one in opened:
                one.socket.close()
    memory, load = (stream / websocket for websocket, stream in zip(*figures, strict=True))
    tell({'event stream: memory × websocket': memory})
    tell({'event stream: steady CPU × websocket': load})


MEASUREMENTS = {
    **HANDSHAKES,
    'tls': tls,
    'slow': slow_heads,
    'spread': spread,
    'streams': streams,
}

if __name__ == '__main__':
    main()
