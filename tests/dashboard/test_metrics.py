from __future__ import annotations

from typing import Any

import pytest
import redis
from django.contrib.auth.models import AnonymousUser, User
from django.test import RequestFactory, override_settings
from prometheus_client.parser import text_string_to_metric_families

from tests.dashboard.snapshots import snapshot, tell
from tests.programs import RedisServer
from ws4redis.dashboard import views
from ws4redis.dashboard.metrics import exposition
from ws4redis.loop.metrics import declarations

TOKEN = 'a-token-that-nobody-guesses'


def get(view: Any, user: Any = None, **headers: str) -> Any:
    request = RequestFactory().get('/', headers=headers)
    request.user = user or AnonymousUser()
    return view(request)


def samples(text: str) -> dict[str, float]:
    return {
        f'{s.name}{dict(sorted(s.labels.items()))}': s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_the_metrics_of_all_processes_are_there_in_the_format_of_prometheus() -> None:
    found = samples(exposition([snapshot(1), snapshot(2, open=50)]).decode())
    assert found['ws4redis_processes{}'] == 2
    assert found["ws4redis_open{'process': 'web-1'}"] == 100
    assert found["ws4redis_open{'process': 'web-2'}"] == 50
    assert found["ws4redis_handshakes_total{'process': 'web-1', 'status': '403'}"] == 2
    assert found["ws4redis_gaps_total{'cause': 'trimmed', 'process': 'web-1'}"] == 3
    assert found["ws4redis_facility_messages_total{'pattern': 'chat/*', 'process': 'web-1'}"] == 7
    assert found["ws4redis_loop_lag_seconds_bucket{'le': '+Inf', 'process': 'web-1'}"] == 13
    assert found["ws4redis_loop_lag_seconds_count{'process': 'web-1'}"] == 13
    assert found["ws4redis_load{'process': 'web-2'}"] == 0.25


def test_what_another_version_tells_is_left_out() -> None:
    strange = snapshot(1, open='many', handshakes=7, closes=None, unheard_of=3)
    strange['metrics'] = {'loop_lag_seconds': {'counts': [1, 2]}, 'facility_messages': 5}
    found = samples(exposition([strange, snapshot(2)]).decode())
    assert "ws4redis_open{'process': 'web-1'}" not in found
    assert "ws4redis_messages_sent_total{'process': 'web-1'}" in found
    assert "ws4redis_open{'process': 'web-2'}" in found


def test_each_metric_says_what_it_is() -> None:
    families = {f.name: f for f in text_string_to_metric_families(exposition([]).decode())}
    for declaration in declarations.values():
        family = families[f'ws4redis_{declaration.name}']
        assert family.type == declaration.kind
        assert family.documentation == declaration.about


@override_settings(WS4REDIS_METRICS_TOKEN=TOKEN)
def test_prometheus_needs_the_token(redis_server: RedisServer) -> None:
    assert get(views.metrics).status_code == 401
    for header in ('', TOKEN, f'Basic {TOKEN}', 'Bearer', 'Bearer ', f'Bearer {TOKEN}x'):
        assert get(views.metrics, authorization=header).status_code == 401
    answer = get(views.metrics, authorization=f'Bearer {TOKEN}')
    assert answer.status_code == 200
    assert answer.headers['Content-Type'].startswith('text/plain')


@pytest.mark.parametrize('token', [None, ''])
def test_without_a_token_in_the_settings_none_is_taken(token: Any) -> None:
    with override_settings(WS4REDIS_METRICS_TOKEN=token):
        for header in ('Bearer', 'Bearer ', 'Bearer None'):
            assert get(views.metrics, authorization=header).status_code == 401


def test_users_need_the_permission(redis_server: RedisServer) -> None:
    admin = User(username='admin', is_staff=True, is_superuser=True)
    assert get(views.metrics, admin).status_code == 200
    for change in ({'is_active': False}, {'is_staff': False}, {'is_superuser': False}):
        user = User(username='x', is_staff=True, is_superuser=True)
        user.user_permissions_cache = set()  # type: ignore[attr-defined]
        for name, value in change.items():
            setattr(user, name, value)
        user._perm_cache = set()  # type: ignore[attr-defined]
        assert get(views.metrics, user).status_code == 401


@override_settings(
    WS4REDIS_METRICS_TOKEN=TOKEN, WS4REDIS_CONNECTION={'host': '127.0.0.1', 'port': 1}
)
def test_without_redis_the_answer_is_503() -> None:
    assert get(views.metrics, authorization=f'Bearer {TOKEN}').status_code == 503
    assert get(views.ready).status_code == 503
    assert get(views.health).status_code == 200


def test_a_site_is_ready_when_a_process_with_websockets_is(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    with override_settings(WS4REDIS_SNAPSHOT_INTERVAL=5):
        assert get(views.ready).status_code == 503
        tell(redis_client, snapshot(1, redis_connected=False))
        assert get(views.ready).status_code == 503
        tell(redis_client, snapshot(2))
        assert get(views.ready).status_code == 200
    assert get(views.ready).status_code == 200


@override_settings(WS4REDIS_METRICS_TOKEN=TOKEN)
def test_a_scrape_costs_redis_the_same_however_many_processes_there_are(
    redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    def scrape() -> tuple[int, bytes]:
        redis_client.config_resetstat()
        answer = get(views.metrics, authorization=f'Bearer {TOKEN}')
        statistics: Any = redis_client.info('commandstats')
        return sum(command['calls'] for command in statistics.values()), answer.content

    codes = {str(code): code for code in range(1000, 1016)}
    tell(redis_client, snapshot(0))
    scrape()  # so that a connection is there
    commands, text = scrape()
    assert b'ws4redis_processes 1.0' in text
    tell(redis_client, *(snapshot(pid, closes=codes, handshakes=codes) for pid in range(50)))
    commands_for_fifty, text = scrape()
    assert b'ws4redis_processes 50.0' in text
    assert text.count(b'process="') > 2000
    assert commands_for_fifty == commands
