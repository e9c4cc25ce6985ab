"""Presence, joins and leaves, told to Centrifuge's own client for JavaScript."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.test import override_settings

from tests.clients.conftest import PATH, Connect
from tests.clients.node_client import NodeClient, NodeError
from tests.clients.project import SETTINGS
from tests.programs import RedisServer
from tests.serving import Served, served
from ws4redis.applications.wsgi import WebSocketServer
from ws4redis.hub import presence as module
from ws4redis.presence import Presence


class Named:
    """A user without a model."""

    is_authenticated = True
    groups: tuple[str, ...] = ()

    def __init__(self, name: str) -> None:
        self._name = name

    def get_username(self) -> str:
        return self._name


def by_query(request: Any) -> None:
    """Believe what a client says of itself."""
    name = request.GET.get('user')
    request.user = Named(name) if name else AnonymousUser()


@pytest.fixture
def present(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(module, 'GRACE_SECONDS', 0.5)
    settings: dict[str, Any] = {
        **SETTINGS,
        'WS4REDIS_PROCESS_REQUEST': by_query,
        'WS4REDIS_FACILITIES': {'chat/*': {'PRESENCE': True}},
    }
    with override_settings(**settings), served(WebSocketServer()) as server:
        yield server


def enter(node: Connect, server: Served, user: str = '', **options: Any) -> NodeClient:
    client = node(server.port, path=f'{PATH}?user={user}')
    client.subscribe('chat/1', joinLeave=True, **options)
    return client


def told(client: NodeClient, name: str) -> list[str]:
    users: list[str] = client.run(
        f"return seen.filter(e => e.name === '{name}').map(e => e.info.user);"
    )
    return users


def test_two_clients_see_each_other_come_and_go(present: Served, node: Connect) -> None:
    john = enter(node, present, 'john')
    mary = enter(node, present, 'mary')
    john.run("await until(() => seen.some(e => e.name === 'sub_join' && e.info.user === 'mary'));")
    there = mary.run("return (await subs['chat/1'].presence()).clients;")
    assert there['user:john'] == {'client': 'user:john', 'user': 'john'}
    assert sorted(there) == ['user:john', 'user:mary']
    assert mary.run("return await subs['chat/1'].presenceStats();") == {
        'numClients': 2,
        'numUsers': 2,
    }
    assert [member.user for member in Presence('chat/1').members()] == ['john', 'mary']
    mary.run("subs['chat/1'].unsubscribe();")
    assert john.event('sub_leave')['info'] == {'client': 'user:mary', 'user': 'mary'}
    assert Presence('chat/1').count() == 1


def test_a_second_tab_and_a_reconnection_are_told_to_nobody(present: Served, node: Connect) -> None:
    john = enter(node, present, 'john')
    first, second = (enter(node, present, 'mary') for _ in range(2))
    second.run('centrifuge.disconnect();')
    first.run('centrifuge.disconnect(); centrifuge.connect(); await centrifuge.ready();')
    paul = enter(node, present, 'paul')
    paul.run("subs['chat/1'].unsubscribe();")
    assert john.event('sub_leave')['info']['user'] == 'paul'
    assert told(john, 'sub_join')[-2:] == ['mary', 'paul']
    first.run('centrifuge.disconnect();')
    assert john.event('sub_leave', 2)['info']['user'] == 'mary'


def test_visitors_without_a_session_count_by_connection(present: Served, node: Connect) -> None:
    first = enter(node, present)
    enter(node, present)
    stats = """
        for (;;) {
            const stats = await subs['chat/1'].presenceStats();
            if (stats.numClients > 1) { return stats; }
        }
    """
    assert first.run(stats) == {'numClients': 2, 'numUsers': 1}
    assert {member.user for member in Presence('chat/1').members()} == {None}


def test_who_does_not_ask_for_joins_gets_none(present: Served, node: Connect) -> None:
    john = node(present.port, path=f'{PATH}?user=john')
    john.subscribe('chat/1')
    peter = enter(node, present, 'peter')
    enter(node, present, 'mary')
    peter.run("await until(() => seen.some(e => e.name === 'sub_join' && e.info.user === 'mary'));")
    assert told(john, 'sub_join') == []


def test_a_facility_without_presence_has_none_to_tell(present: Served, node: Connect) -> None:
    client = node(present.port, path=f'{PATH}?user=john')
    client.subscribe('news', joinLeave=True)
    for method in ('presence', 'presenceStats'):
        with pytest.raises(NodeError) as caught:
            client.run(f"return await subs['news'].{method}();")
        assert caught.value.thrown['code'] == 108
