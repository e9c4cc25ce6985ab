"""``run_wsserver --metrics``: what Prometheus asks on a port of its own."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings
from prometheus_client.parser import text_string_to_metric_families

from tests.free_ports import free_port
from tests.programs import RedisServer
from tests.standalone.server import StandaloneServer, settings_with_handlers
from tests.timeouts import SOON_SECONDS, wait_until
from tests.websocket_client import RawWebSocket

pytestmark = pytest.mark.slow
TOKEN = 'a-token-that-nobody-guesses'


class Metrics:
    """A server that shows its metrics, and one websocket on it."""

    def __init__(self, redis_server: RedisServer, **settings: Any) -> None:
        self.port = free_port()
        self.server = StandaloneServer(
            '--workers=2',
            f'--metrics={self.port}',
            redis_server=redis_server,
            django_settings=settings_with_handlers(WS4REDIS_SNAPSHOT_INTERVAL=0.3, **settings),
        )

    def ask(self, path: str = '/metrics', method: str = 'GET', **headers: str) -> tuple[int, str]:
        url = f'http://127.0.0.1:{self.port}{path}'
        request = urllib.request.Request(url, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=SOON_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()

    def samples(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(self.ask()[1]):
            for sample in family.samples:
                labels = {k: v for k, v in sample.labels.items() if k != 'process'}
                name = f'{sample.name}{labels or ""}'
                found[name] = found.get(name, 0) + sample.value
        return found


@pytest.fixture(scope='module')
def metrics(redis_server: RedisServer) -> Iterator[Metrics]:
    metrics = Metrics(redis_server, WS4REDIS_FACILITIES={'room': {'PRESENCE': True}})
    with metrics.server:
        yield metrics


def test_they_are_those_of_all_processes(metrics: Metrics) -> None:
    url = metrics.server.ws_url
    with RawWebSocket(f'{url}/socket'), RawWebSocket(f'{url}/ws/room?subscribe-broadcast'):
        expected = {
            'ws4redis_open': 2,
            'ws4redis_presence': 1,
            'ws4redis_processes': 2,
            "ws4redis_connections{'transport': 'websocket'}": 2,
            "ws4redis_connections_of_kind{'kind': 'channels'}": 1,
            "ws4redis_connections_of_kind{'kind': 'handler'}": 1,
            "ws4redis_redis_links{'link': 'pub/sub'}": 2,
            "ws4redis_redis_links{'link': 'commands'}": 2,
        }
        # Each process tells its own in its own time.
        wait_until(lambda: expected.items() <= metrics.samples().items())
    wait_until(lambda: metrics.samples()["ws4redis_connections{'transport': 'websocket'}"] == 0)


def test_each_process_measures_how_long_its_publications_take(metrics: Metrics) -> None:
    wait_until(lambda: metrics.samples().get('ws4redis_publish_to_send_seconds_count', 0) >= 4)
    assert metrics.samples()['ws4redis_publish_to_send_seconds_sum'] > 0


def test_there_is_nothing_else(metrics: Metrics) -> None:
    assert metrics.ask('/')[0] == metrics.ask('/metricsx')[0] == 404
    assert metrics.ask('/metrics/', method='HEAD') == (200, '')
    assert metrics.ask(method='POST')[0] == 501


def test_with_a_token_it_has_to_be_sent(redis_server: RedisServer) -> None:
    metrics = Metrics(redis_server, WS4REDIS_METRICS_TOKEN=TOKEN)
    with metrics.server:
        assert metrics.ask()[0] == 401
        assert metrics.ask(Authorization=f'Bearer {TOKEN}x')[0] == 401
        assert metrics.ask(Authorization=f'Bearer {TOKEN}')[0] == 200
        redis_server.stop()
        try:
            assert metrics.ask(Authorization=f'Bearer {TOKEN}')[0] == 503
        finally:
            redis_server.start()


@pytest.mark.parametrize('address', ['0.0.0.0:9000', '[::]:9000', 'nonsense'])
def test_without_a_token_only_this_machine_may_ask(address: str) -> None:
    with pytest.raises(CommandError, match='WS4REDIS_METRICS_TOKEN|is no address'):
        call_command('run_wsserver', '0', f'--metrics={address}', skip_checks=True)


@override_settings(WS4REDIS_METRICS_TOKEN=TOKEN)
def test_a_port_that_is_taken_is_an_error_at_the_start() -> None:
    with socket.create_server(('127.0.0.1', 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(CommandError, match=f'cannot listen on 127.0.0.1:{port}'):
            call_command('run_wsserver', '0', f'--metrics={port}', skip_checks=True)
