"""Fixtures and rules for all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.test import override_settings

from tests import server_process
from tests.distributions import build_distributions, install_alone, made_once, python_of
from tests.programs import RedisServer
from tests.requirements import NOT_APPLICABLE, UNDER_CI
from tests.server_coverage import measure_native_threads

measure_native_threads()

# A shell has its background commands ignore SIGINT. Servers would inherit that, and not stop by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests that start a server each, or nearly: too slow for `make unit`.
SLOW = {
    'clients',
    'doctor',
    'e2e',
    'faults',
    'handlers/test_modes.py',
    'handlers/test_multiprocess_faults.py',
    'handlers/test_other_servers.py',
    'regression/test_callbacks.py',
    'standalone/test_server.py',
    'test_examples.py',
    'test_servers.py',
    'test_stress_tests.py',
    'views/test_view_servers.py',
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(tests):
            path = item.path.relative_to(tests)
            if path.parts[0] in SLOW or str(path) in SLOW:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(scope='session')
def redis_server() -> Iterator[RedisServer]:
    """A Redis server of this test process; emptied, and started again if need be, for each test.

    A test that asks for it, directly or not, has WS4REDIS_CONNECTION pointing at it.
    """
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A plain client of the Redis server."""
    with redis_server.client() as client:
        yield client


@pytest.fixture(autouse=True)
def _fresh_redis(request: pytest.FixtureRequest) -> Iterator[None]:
    if 'redis_server' not in request.fixturenames:
        yield
        return
    server: RedisServer = request.getfixturevalue('redis_server')
    if server.is_running:
        server.resume()
    else:
        server.kill()
        server.start()
    with server.client() as client:
        client.flushall()
    with override_settings(WS4REDIS_CONNECTION=server.connection):
        yield


@pytest.fixture(scope='session')
def of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all of pytest's processes share."""
    directory = tmp_path_factory.getbasetemp()
    return directory.parent if 'PYTEST_XDIST_WORKER' in os.environ else directory


@pytest.fixture(scope='session')
def sdist(of_all_workers: Path) -> Path:
    """The sdist that users may download."""
    (path,) = made_once(of_all_workers / 'dist', build_distributions).glob('*.tar.gz')
    return path


@pytest.fixture(scope='session')
def wheel(of_all_workers: Path) -> Path:
    """The wheel that users install, built from the sdist."""
    (path,) = made_once(of_all_workers / 'dist', build_distributions).glob('*.whl')
    return path


@pytest.fixture(scope='session')
def installed_python(wheel: Path, of_all_workers: Path) -> Path:
    """The interpreter of an otherwise empty virtual environment with the wheel installed."""
    directory = of_all_workers / 'environment'
    return python_of(made_once(directory, lambda made: install_alone(wheel, made)))


# Reports


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Show the servers' logs with a failure, and let no skipped test pass under CI."""
    report: pytest.TestReport = yield
    if report.skipped and not hasattr(report, 'wasxfail'):
        _refuse_skipping_under_ci(report)
    if report.failed:
        for server in server_process.running:
            report.sections.append((f'log of {server.name}', server.recent_log()))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    """Let no skipped module pass under CI."""
    report: pytest.CollectReport = yield
    if report.outcome == 'skipped':
        _refuse_skipping_under_ci(report)
    return report


def _refuse_skipping_under_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    longrepr = report.longrepr
    reason = str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)
    if UNDER_CI and NOT_APPLICABLE not in reason:
        report.outcome = 'failed'
        report.longrepr = f'skipped under CI: {reason}'
