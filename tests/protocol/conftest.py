"""Run tests with each implementation of masking that is there, plain Python among them."""

from __future__ import annotations

import pytest

from ws4redis.protocol import connection, masking, message


@pytest.fixture(params=['python', 'wsaccel', 'websockets'])
def each_masking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the protocol mask with one implementation after the other; returns its name."""
    name: str = request.param
    implementations = masking.available()
    if name not in implementations:
        pytest.skip(f'{name} is not installed')
    for module in (connection, message):
        monkeypatch.setattr(module, 'apply_mask', implementations[name])
    return name
