from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hub.clients.rig import Client, Project
from tests.hub.rig import Clock, Home
from ws4redis.hub.options import HubOptions


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hub(clock: Clock) -> Iterator[Home]:
    with Home(options=HubOptions(ping_interval_seconds=None), clock=clock) as hub:
        hub.turn(2)
        yield hub


@pytest.fixture
def project() -> Project:
    return Project()


@pytest.fixture
def client(hub: Home, project: Project) -> Client:
    return Client(hub, project)
