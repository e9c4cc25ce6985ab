"""How many handshakes over TLS a process makes, with and without a session of the client's.

`door.py tls` runs it. The certificate is of P-256, as they are issued today.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import psutil
from bench.environments import compiled
from bench.figures import tell
from bench.processes import cpu_seconds

from tests.programs import RedisServer
from tests.standalone.certificates import make_certificate
from tests.standalone.server import StandaloneServer
from tests.websocket_client import handshake_request

HANDSHAKES = 4000
IN_FLIGHT = 64
PATIENCE_SECONDS = 60.0
PATH = '/ws/bench?subscribe-broadcast'
CLIENTS = Path(__file__).resolve().parent / 'bench' / 'tls_clients.c'


def tls(redis_server: RedisServer) -> None:
    """Make handshakes over TLS, new ones and resumed ones; what counts is the server's CPU."""
    clients = compiled(CLIENTS, 'ssl', 'crypto')
    with tempfile.TemporaryDirectory() as directory:
        certfile, keyfile = make_certificate(Path(directory))
        options = ('--certfile', str(certfile), '--keyfile', str(keyfile))
        with StandaloneServer(
            *options, redis_server=redis_server, django_settings={'WS4REDIS_EXPIRE': 0}
        ) as server:
            (worker,) = psutil.Process(server.pid).children()
            request = handshake_request(f'wss://{server.host}:{server.port}{PATH}')
            for kind in ('new', 'resumed'):
                before = cpu_seconds(worker.pid)
                figures = subprocess.check_output(
                    [clients, server.host, str(server.port), str(HANDSHAKES), str(IN_FLIGHT), kind],
                    input=request,
                    timeout=PATIENCE_SECONDS,
                )
                used = cpu_seconds(worker.pid) - before
                opened, resumed, seconds, client_seconds = map(float, figures.split())
                tell({f'handshakes per CPU second, TLS, {kind}': opened / used})
                print(
                    f'{opened:.0f} handshakes over TLS, {kind} ({resumed:.0f} resumed): '
                    f'{opened / seconds:,.0f} a second, '
                    f'{used / opened * 1e6:.0f} µs of the CPU of the server each, '
                    f'{client_seconds / opened * 1e6:.0f} µs of that of the client',
                    flush=True,
                )
