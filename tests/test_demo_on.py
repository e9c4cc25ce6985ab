"""`make cluster` and `make sentinel`: the demo on several Redis servers."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.demo_server import Demo
from tests.server_process import still_alive
from tests.topologies import require_cluster
from tests.websocket_client import RawWebSocket

pytestmark = pytest.mark.slow


class DemoOn(Demo):
    """The demo on a Cluster, or under Sentinels, which it starts itself."""

    def __init__(self, topology: str, directory: Path) -> None:
        super().__init__(directory)
        self._topology = topology

    def command(self) -> Sequence[str]:
        module = 'tests.demo_on'
        return [sys.executable, '-m', module, self._topology, '--port', str(self.port)]


def by_terminate(demo: DemoOn) -> None:
    demo.signal(signal.SIGTERM)


def by_ctrl_c(demo: DemoOn) -> None:
    os.killpg(demo.pid, signal.SIGINT)


@pytest.mark.parametrize(
    ('topology', 'servers', 'stop'),
    [('cluster', 6, by_terminate), ('sentinel', 6, by_ctrl_c)],
    ids=['cluster', 'sentinel'],
)
def test_the_demo_serves_on_several_servers_and_ends_them_all(
    tmp_path: Path, topology: str, servers: int, stop: Callable[[DemoOn], None]
) -> None:
    if topology == 'cluster':
        require_cluster()
    with DemoOn(topology, tmp_path) as demo:
        assert 'csrfmiddlewaretoken' in demo.get('/chat/')
        url = f'{demo.ws_url}/ws/foobar?subscribe-broadcast&publish-broadcast&echo'
        with RawWebSocket(url) as websocket:
            websocket.send('by way of the servers')
            assert websocket.receive() == 'by way of the servers'
        processes = demo.descendants()
        assert sum('redis-server' in process.name() for process in processes) == servers
        stop(demo)
        demo.wait()
    assert still_alive(processes) == []
