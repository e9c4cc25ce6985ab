from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.test import override_settings

from tests.clients.node_client import NodeClient
from tests.clients.project import SETTINGS
from tests.programs import RedisServer
from tests.serving import Served, served
from ws4redis.applications.wsgi import WebSocketServer

PATH = '/connection/websocket'
Connect = Callable[..., NodeClient]


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[Served]:
    """The client protocol, as a plain configuration has it, in this process."""
    with override_settings(**SETTINGS), served(WebSocketServer()) as server:
        yield server


@pytest.fixture
def node() -> Iterator[Connect]:
    """Start a client in Node and connect it, ``node(port, **options)``."""
    with ExitStack() as stack:

        def start(
            port: int, *, path: str = PATH, connects: bool = True, **options: Any
        ) -> NodeClient:
            client = stack.enter_context(NodeClient(f'ws://127.0.0.1:{port}{path}', **options))
            if connects:
                client.run('centrifuge.connect(); await centrifuge.ready();')
            return client

        yield start
