"""What ``WS4REDIS_CONNECTION`` may say of Sentinels and of a Cluster."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from ws4redis.settings.redis_options import with_defaults
from ws4redis.settings.topologies import Node, Topology, judge_connection, target_of

SENTINELS: dict[str, Any] = {'sentinels': [('10.0.0.1', 26379)], 'service_name': 'main'}
CLUSTER: dict[str, Any] = {'cluster': ['redis://10.0.0.1:7000', ('10.0.0.2', 7000), 'c:7001']}


def test_one_redis_is_the_default() -> None:
    target = target_of(with_defaults({'port': 6380}))

    assert target.topology is Topology.SINGLE
    assert target.arguments['host'] == 'localhost'


def test_sentinels_have_a_login_and_tls_of_their_own() -> None:
    target = target_of(
        {
            'sentinels': ['one', 'two:5000', ('::1', 26379)],
            'service_name': 'main',
            'sentinel_kwargs': {'password': 'theirs', 'ssl': True},
            'password': 'that of Redis',
            'db': 2,
        }
    )

    assert target.topology is Topology.SENTINEL
    assert target.nodes == (Node('one', 26379), Node('two', 5000), Node('::1', 26379))
    assert target.connection_class is redis.Connection
    assert target.arguments['password'] == 'that of Redis'
    assert target.arguments['db'] == 2
    assert target.sentinel_arguments['connection_class'] is redis.SSLConnection
    assert target.sentinel_arguments['password'] == 'theirs'
    assert target.sentinel_arguments['ssl_check_hostname'] is True


def test_the_first_nodes_of_a_cluster_are_urls_or_pairs() -> None:
    target = target_of(CLUSTER)

    assert target.topology is Topology.CLUSTER
    assert target.nodes == (Node('10.0.0.1', 7000), Node('10.0.0.2', 7000), Node('c', 7001))


def test_the_urls_of_a_cluster_may_hold_a_login_and_ask_for_tls() -> None:
    urls = ['rediss://me:secret@one:7000', 'rediss://me:secret@two:7000']

    target = target_of({'cluster': urls})

    assert target.connection_class is redis.SSLConnection
    assert target.arguments['username'] == 'me'
    assert target.arguments['password'] == 'secret'
    assert target.nodes == (Node('one', 7000), Node('two', 7000))


@pytest.mark.parametrize(
    ('options', 'complaint'),
    [
        ({**SENTINELS, 'host': 'x'}, "holds 'sentinels' and 'host'"),
        ({**CLUSTER, 'url': 'redis://x'}, "holds 'cluster' and 'url'"),
        ({**CLUSTER, 'db': 1}, "holds 'cluster' and 'db'"),
        ({**SENTINELS, **CLUSTER}, 'a Cluster has no Sentinels'),
        ({'sentinels': ['x']}, "without 'service_name'"),
        ({'service_name': 'main'}, "which goes with 'sentinels'"),
        ({'sentinels': [], 'service_name': 'main'}, 'not a list of addresses'),
        ({'cluster': 'redis://x'}, 'not a list of addresses'),
        ({'cluster': [('x', 0)]}, "an address in 'cluster'"),
        ({'cluster': ['unix:///tmp/s']}, "an address in 'cluster'"),
        ({'cluster': ['redis://x/1']}, 'names a database'),
        ({'cluster': ['redis://:a@x', 'redis://:b@y']}, 'differ in more than the address'),
        ({**SENTINELS, 'sentinel_kwargs': 'secret'}, "'sentinel_kwargs' that is not a dictionary"),
        ({**SENTINELS, 'sentinel_kwargs': {'nonsense': 1}}, "holds 'nonsense'"),
        ({**SENTINELS, 'nonsense': 1}, "holds 'nonsense'"),
        ({**SENTINELS, 'sentinel_kwargs': {'db': 1}}, 'does not belong there'),
    ],
)
def test_what_contradicts_itself_is_refused_with_a_reason(
    options: dict[str, Any], complaint: str
) -> None:
    found = judge_connection(options)

    assert found is not None
    assert complaint in found


@pytest.mark.parametrize('address', ['http://:hunter2@x', ['x', 'hunter2'], 'redis://:hunter2@x:y'])
def test_a_wrong_address_is_not_shown(address: Any) -> None:
    found = judge_connection({'cluster': [address]})

    assert found is not None
    assert 'hunter2' not in found


def test_right_ones_are_taken() -> None:
    assert judge_connection(SENTINELS) is None
    assert judge_connection(CLUSTER) is None
