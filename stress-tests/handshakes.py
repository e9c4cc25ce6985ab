"""How many handshakes a process makes in a second, of each kind, and what each takes of its CPU.

`door.py` runs these measurements by their names. As many handshakes are under way at once as a
single client process can drive, on one machine with the server.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import cycle, islice
from typing import Any

import psutil
from arrivals import Greeting, arrive
from bench.contenders import Contender, Setup, Ws4redis, Ws4redisNative
from bench.figures import tell
from bench.frames import upgrade_request
from bench.processes import cpu_seconds, process_tree
from bench.programme import open_theatre
from bench.stage import Limits

from tests.programs import RedisServer
from tests.standalone.server import StandaloneServer
from tests.websocket_client import TEXT, encode_frame

WEBSOCKETS = 4000
# Imports and connections are made with the first ones.
WARM_UP = 50
ACCOUNTS = 1000
CHANNELS = ('door/a', 'door/b', 'door/c')
SETTINGS = {'WS4REDIS_EXPIRE': 0}


def _report(
    name: str,
    pid: int,
    address: tuple[str, int],
    requests: Sequence[bytes],
    greeting: Greeting | None = None,
) -> None:
    """Make the handshakes, and say how it went."""
    opened = arrive(address, requests[:WARM_UP], greeting).sockets
    before = sum(map(cpu_seconds, process_tree(pid)))
    arrival = arrive(address, requests[WARM_UP:], greeting)
    used = sum(map(cpu_seconds, process_tree(pid))) - before
    count = len(arrival.sockets)
    tell({f'handshakes/s, {name}': count / arrival.seconds})
    print(
        f'{count} handshakes, {name}: {count / arrival.seconds:,.0f} a second, '
        f'{used / count * 1e6:.0f} µs of the CPU of the server each, '
        f'{arrival.client_seconds / count * 1e6:.0f} µs of that of the client',
        flush=True,
    )
    for sock in opened + arrival.sockets:
        sock.close()


# One process of `run_wsserver` with clients that have a ticket


def _ticket(redis_server: RedisServer, *, by_server: bool) -> None:
    import django

    django.setup()
    from storm import requests_of

    wanted = () if by_server else CHANNELS
    settings: dict[str, Any] = {**SETTINGS}
    if by_server:
        settings['WS4REDIS_CLIENT_CHANNELS'] = list(CHANNELS)
    with StandaloneServer(redis_server=redis_server, django_settings=settings) as server:
        (worker,) = psutil.Process(server.pid).children()
        commands: list[dict[str, Any]] = [{'id': 1, 'connect': {}}]
        for number, channel in enumerate(wanted, 2):
            commands.append({'id': number, 'subscribe': {'channel': channel}})
        frame = encode_frame(TEXT, '\n'.join(map(json.dumps, commands)).encode())
        reply, replies = (b'"connect":{', 1) if by_server else (b'"subscribe":{', len(CHANNELS))
        name = 'ticket and three channels of ' + ('the server' if by_server else 'the client')
        requests = requests_of(server, WARM_UP + WEBSOCKETS)
        address = (server.host, server.port)
        _report(name, worker.pid, address, requests, Greeting(frame, reply, replies))


# Servers of the benchmark, whose project has sessions in the cache and users in the database


def _contender(redis_server: RedisServer, contender: Contender, *, of_users: bool) -> None:
    """Measure a server; it has a Redis of its own, as in the benchmark."""
    with ExitStack() as stack:
        theatre = stack.enter_context(open_theatre(Limits(), accounts=ACCOUNTS * of_users))
        server = contender.start(Setup(theatre.redis, theatre.directory))
        stack.callback(server.stop)
        server.wait_until_ready()
        assert server.port is not None
        path = contender.path('bench', 'subscribe-broadcast')
        kinds: list[dict[str, str]] = [{}]
        if of_users:
            path = contender.user_path()
            kinds = [{'Cookie': f'sessionid={key}'} for key in theatre.session_keys]
        host = f'127.0.0.1:{server.port}'
        requests = [upgrade_request(path, host=host, headers=headers) for headers in kinds]
        who = 'session and user' if of_users else 'anonymous'
        _report(
            f'{who}, {contender.title}',
            server.popen.pid,
            ('127.0.0.1', server.port),
            list(islice(cycle(requests), WARM_UP + WEBSOCKETS)),
        )


HANDSHAKES: dict[str, Callable[[RedisServer], None]] = {
    'anonymous': partial(_contender, contender=Ws4redisNative(), of_users=False),
    'ticket': partial(_ticket, by_server=False),
    'ticket-server': partial(_ticket, by_server=True),
    'user': partial(_contender, contender=Ws4redisNative(), of_users=True),
    'uwsgi-anonymous': partial(_contender, contender=Ws4redis(), of_users=False),
    'uwsgi-user': partial(_contender, contender=Ws4redis(), of_users=True),
}
