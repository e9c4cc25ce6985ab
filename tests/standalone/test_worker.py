"""A process that serves, by itself: how it starts to accept, and how it ends."""

from __future__ import annotations

from tests.hub.rig import run_program

# Signals and gevent's loop need a process of their own.
PROGRAM = """
import os, signal, socket, struct, threading, time
import django
django.setup()
from django.conf import settings
from tests.timeouts import SOON_SECONDS
from tests.websocket_client import RawWebSocket
from ws4redis.handlers.routes import routes_from_settings
from ws4redis.handlers.server import HandlerServer
from ws4redis.standalone.addresses import Address, listen
from ws4redis.standalone.worker import Worker

settings.DEFAULT_WS_HANDLERS = {'default': 'tests.handlers.sample_handlers.Echo'}
settings.WS4REDIS_DRAIN_SECONDS = 0
listener = listen(Address(port=0))
port = listener.getsockname()[1]
lifeline, lifeline_writer = os.pipe()
ready, ready_writer = os.pipe()
codes = []

def client():
    assert os.read(ready, 1) == bytes(1), 'it did not say that it serves'
    assert os.read(ready, 1) == b'', 'the descriptor is still open'
    with RawWebSocket(f'ws://127.0.0.1:{port}/socket') as websocket:
        websocket.send('x')
        assert websocket.receive() == 'x'
        END
        codes.append(websocket.receive_close())

thread = threading.Thread(target=client)
thread.start()
worker = Worker(listener.detach(), HandlerServer(routes_from_settings()))
worker.run(lifeline=lifeline, ready=ready_writer)
thread.join(SOON_SECONDS)
print(codes)
"""


def end_by(statement: str) -> str:
    return run_program(PROGRAM.replace('END', statement)).splitlines()[-1]


def test_sigterm_closes_its_websockets_with_1001() -> None:
    assert end_by('os.kill(os.getpid(), signal.SIGTERM)') == "[(1001, 'the server stops')]"


def test_sighup_closes_its_websockets_with_1012() -> None:
    assert end_by('os.kill(os.getpid(), signal.SIGHUP)') == "[(1012, 'the server restarts')]"


def test_the_end_of_its_supervisor_closes_its_websockets_with_1001() -> None:
    assert end_by('os.close(lifeline_writer)') == "[(1001, 'the server stops')]"


def test_ctrl_c_is_the_supervisors_to_deal_with() -> None:
    both = 'os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGHUP)'
    assert end_by(both) == "[(1012, 'the server restarts')]"
