"""Options of the stress tests, which run against a server that was started on its own."""

import os
import sys
from pathlib import Path

import pytest

# `bench` lies beside this file; with `--import-mode=importlib` pytest does not add it by itself.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from blocking_clients import ENVIRONMENT_VARIABLE, NO_URL, Facility


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--websocket-url',
        metavar='URL',
        help='of the running server, such as ws://localhost:8000/ws/stress '
        f'(default: the environment variable {ENVIRONMENT_VARIABLE})',
    )
    parser.addoption(
        '--websockets', type=int, default=1000, metavar='COUNT', help='how many (default: 1000)'
    )


@pytest.fixture
def facility(request: pytest.FixtureRequest) -> Facility:
    """Return a facility of the running server; without one the test is skipped."""
    url = request.config.getoption('--websocket-url') or os.environ.get(ENVIRONMENT_VARIABLE)
    if not url:
        pytest.skip(NO_URL)
    return Facility.from_url(url)


@pytest.fixture
def count(request: pytest.FixtureRequest) -> int:
    """Return how many websockets there are to be."""
    return int(request.config.getoption('--websockets'))
