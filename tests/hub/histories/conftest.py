from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test import override_settings

from tests.hub.history_rig import home
from tests.hub.rig import Home, bus_link_of
from tests.programs import RedisServer


@pytest.fixture
def hub(redis_server: RedisServer) -> Iterator[Home]:
    facilities = {'chat*': {'HISTORY_SIZE': 100}}
    with override_settings(WS4REDIS_FACILITIES=facilities), home() as hub:
        hub.turn_until(lambda: bus_link_of(hub).is_connected)
        yield hub
