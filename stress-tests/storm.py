"""Kill two processes with 20,000 clients that have tickets, and see them come back.

    python stress-tests/storm.py [--clients N] [kill] [term] [hup]

Each client speaks the client protocol, in the name of a session, on three channels with a history.
While nobody is connected messages are published, which all get when they are back. The server's
database does not exist, so that a single query would fail a handshake. A third process has 200
websockets, which are sent 20 messages a second all the time. Redis and the servers are started,
and ended, by the script; the clients come from four processes, since one may not have so many
descriptors.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import selectors
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]
os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'tests.settings')

import django
import psutil
from bench.figures import tell
from storm_clients import CHANNELS, raise_limits, run_clients

from tests.programs import RedisServer
from tests.standalone.server import StandaloneServer
from ws4redis.test.handshakes import handshake_request

CLIENT_PROCESSES = 4
MISSED = 5
BYSTANDERS = 200
BYSTANDERS_PER_SECOND = 20
PATIENCE_SECONDS = 120.0
SETTINGS: dict[str, Any] = {
    'WS4REDIS_FACILITIES': {'storm/*': {'HISTORY_SIZE': 100}},
    'WS4REDIS_DRAIN_SECONDS': 1.0,
    'WS4REDIS_EXPIRE': 0,
    'DATABASES': {
        'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': '/nonexistent/no.sqlite3'}
    },
}
Ending = Callable[[StandaloneServer], object]


def workers_of(server: StandaloneServer) -> list[psutil.Process]:
    return psutil.Process(server.pid).children()


def signal_workers(number: int) -> Ending:
    def end(server: StandaloneServer) -> None:
        for worker in workers_of(server):
            worker.send_signal(number)

    return end


ENDINGS: dict[str, Ending] = {
    'kill': signal_workers(signal.SIGKILL),
    'term': signal_workers(signal.SIGTERM),
    'hup': lambda server: psutil.Process(server.pid).send_signal(signal.SIGHUP),
}


# Bystanders


def run_bystanders(pipe: Connection, url: str, redis_port: int) -> None:
    """Publish 20 times a second to 200 websockets, and measure how long each message takes."""
    import redis

    from tests.websocket_client import RawWebSocket

    raise_limits()
    client = redis.Redis(port=redis_port)
    websockets = [RawWebSocket(url) for _ in range(BYSTANDERS)]
    selector = selectors.EpollSelector()
    for websocket in websockets:
        selector.register(websocket.socket, selectors.EVENT_READ)
    latencies: list[float] = []
    pipe.send(None)
    due = published = time.monotonic()
    while not pipe.poll():
        now = time.monotonic()
        if now >= due:
            due = now + 1 / BYSTANDERS_PER_SECOND
            published = now
            client.publish('broadcast:beside', f'{published}')
        for key, _ in selector.select(max(0.0, due - time.monotonic())):
            key.fileobj.recv(65536)  # type: ignore[union-attr]
            latencies.append(time.monotonic() - published)
    pipe.send(sorted(latencies))


# The scenario


def requests_of(server: StandaloneServer, count: int) -> list[bytes]:
    """Return handshakes with a ticket each, and the cookie of its session."""
    from ws4redis.handshake.tokens import ticket_of
    from ws4redis.hub.identity import Identity, digest_of

    requests = []
    for number in range(count):
        session = f'{number:032d}'
        identity = Identity(
            user=f'user-{number}',
            user_id=str(number),
            session=session,
            session_digest=digest_of(session),
            knows_groups=True,
        )
        url = f'{server.ws_url}/ws/connection/websocket?ticket={ticket_of(identity)}'
        headers = {'Cookie': f'sessionid={session}', 'Sec-WebSocket-Protocol': 'centrifuge-json'}
        requests.append(handshake_request(url, headers=headers))
    return requests


def reads_of_histories(client: Any) -> int:
    stats = client.info('commandstats')
    return sum(stats.get(f'cmdstat_{name}', {}).get('calls', 0) for name in ('xrange', 'xrevrange'))


def server_of(redis_server: RedisServer, *options: str, **more: Any) -> StandaloneServer:
    settings = {**SETTINGS, **more}
    return StandaloneServer(*options, redis_server=redis_server, django_settings=settings)


def storm(name: str, count: int) -> None:
    with ExitStack() as stack:
        redis_server = stack.enter_context(RedisServer())
        client = stack.enter_context(redis_server.client())
        server = stack.enter_context(server_of(redis_server, '--workers', '2'))
        # Its websockets answer no pings.
        beside = stack.enter_context(server_of(redis_server, WS4REDIS_PING_INTERVAL=None))
        requests = requests_of(server, count)
        url = f'{beside.ws_url}/ws/beside?subscribe-broadcast'
        ours = start(stack, run_bystanders, url, redis_server.port)
        ours.recv()
        pipes = []
        for place in range(CLIENT_PROCESSES):
            mine = requests[place::CLIENT_PROCESSES]
            pipes.append(start(stack, run_clients, (server.host, server.port), mine))
        began = time.monotonic()
        await_all(pipes)
        print(f'{name}: {count} clients in two processes after {time.monotonic() - began:.1f} s')
        reads = reads_of_histories(client)
        ended = time.monotonic()
        ENDINGS[name](server)
        publish(redis_server)
        reports = await_all(pipes)
        back = sorted(each for report in reports for each in report['back'])
        lost = sorted(each for report in reports for each in report['lost'])
        missed = [each for report in reports for each in report['missed']]
        refused = dict(sum((report['refused'] for report in reports), Counter()))
        cpu = sum(sum(worker.cpu_times()[:2]) for worker in workers_of(server))
        clients_cpu = sum(report['cpu'] for report in reports)
        spread = [len(worker.net_connections('tcp')) for worker in workers_of(server)]
        ours.send(None)
        latencies = ours.recv()
        median, p99 = (latencies[int(len(latencies) * part)] * 1e3 for part in (0.5, 0.99))
        tell(
            {
                f's from the {name} to the last one back': back[-1] - ended,
                's from the first to the last one back': back[-1] - back[0],
                'clients that got all that they missed': missed.count(MISSED * len(CHANNELS)),
                'reads of histories': reads_of_histories(client) - reads,
                'µs of CPU of the new processes for a client': cpu / count * 1e6,
                'p99 beside, ms': p99,
            }
        )
        print(
            f'  lost within {lost[-1] - ended:.2f} s; first back after {back[0] - ended:.2f} s, '
            f'last after {back[-1] - ended:.2f} s ({back[-1] - back[0]:.2f} s from first to last)\n'
            f'  {len(back)} came back, refused {refused}, '
            f'{missed.count(MISSED * len(CHANNELS))} got all that they missed\n'
            f'  {reads_of_histories(client) - reads} reads of histories, no database\n'
            f'  {cpu:.1f} s of CPU in the new processes ({cpu / count * 1e6:.0f} µs a client), '
            f'connections {spread}; {clients_cpu:.1f} s in the clients, whose cores they share\n'
            f'  beside: {len(latencies)} messages, median {median:.1f} ms, p99 {p99:.1f} ms, '
            f'at most {latencies[-1] * 1e3:.1f} ms',
            flush=True,
        )


def publish(redis_server: RedisServer) -> None:
    """Publish what the clients miss."""
    from django.test import override_settings

    from ws4redis.publisher import RedisPublisher

    facilities = SETTINGS['WS4REDIS_FACILITIES']
    connection = {'port': redis_server.port}
    with override_settings(WS4REDIS_CONNECTION=connection, WS4REDIS_FACILITIES=facilities):
        for channel in CHANNELS:
            publisher = RedisPublisher(facility=channel, broadcast=True)
            for number in range(MISSED):
                publisher.publish_message(str(number))


def start(stack: ExitStack, function: Callable[..., object], *arguments: Any) -> Connection:
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context('fork')
    process = context.Process(target=function, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    stack.callback(process.kill)
    return ours


def await_all(pipes: list[Connection]) -> list[dict[str, Any]]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    reports = []
    for pipe in pipes:
        if not pipe.poll(max(0.0, deadline - time.monotonic())):
            raise SystemExit(f'not all clients were back within {PATIENCE_SECONDS:g} seconds')
        reports.append(pipe.recv())
    return reports


def main() -> None:
    """Run the storms that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--clients', type=int, default=20_000)
    parser.add_argument('names', nargs='*', choices=[*ENDINGS, []], default=list(ENDINGS))
    options = parser.parse_args()
    raise_limits()
    django.setup()
    for name in options.names or ENDINGS:
        storm(name, options.clients)


if __name__ == '__main__':
    main()
