"""Whether Sentinels agree, and whether all nodes of a Cluster can be used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import redis

from ws4redis.broker.connections import make_node_connection, redis_target
from ws4redis.broker.masters import ask_sentinel
from ws4redis.broker.slots import fetch_slots
from ws4redis.doctor.findings import Finding, error, good, warning
from ws4redis.settings.topologies import Node, Target, Topology


def examine_topology() -> Iterator[Finding]:
    """Yield findings about Sentinels or about a Cluster; none where there is one Redis."""
    target = redis_target()
    if target.topology is Topology.SENTINEL:
        yield from _examine_sentinels(target)
    elif target.topology is Topology.CLUSTER:
        yield from _examine_cluster(target)


def _examine_sentinels(target: Target) -> Iterator[Finding]:
    masters: set[Node] = set()
    for node in target.nodes:
        subject = f'Sentinel {node}'
        try:
            _, is_up, address = ask_sentinel(target, node)
        except (redis.RedisError, OSError) as exc:
            yield warning(
                subject,
                f'does not tell where {target.service_name!r} is: {exc}',
                "Start it, or correct 'sentinels', 'service_name' and 'sentinel_kwargs' in "
                'WS4REDIS_CONNECTION. The others are asked meanwhile.',
            )
            continue
        masters.add(Node(*address))
        if is_up:
            yield good(subject, f'names {Node(*address)}', master=str(Node(*address)))
        else:
            yield warning(subject, f'holds {Node(*address)} for down', 'Look at its log.')
    if len(masters) > 1:
        names = ' and '.join(sorted(map(str, masters)))
        yield warning(
            'Sentinels',
            f'name different masters: {names}',
            'The latest failover counts. If this stays, some Sentinels do not hear of the others.',
        )


def _examine_cluster(target: Target) -> Iterator[Finding]:
    slots = fetch_slots(target)
    missing = slots.owners.count(None)
    if missing:
        yield error(
            'Cluster',
            f'{missing} slots are served by nobody',
            'See `redis-cli --cluster check`; channels in these slots do not work.',
        )
    else:
        yield good('Cluster', f'{len(slots.masters)} masters serve all slots')
    for node in slots.masters:
        connection = make_node_connection(target, node)
        try:
            connection.connect()
        except (redis.RedisError, OSError) as exc:
            yield error(
                f'Cluster node {node}',
                f'cannot be reached: {exc}',
                'Every process connects to every master: under this address, which the Cluster '
                'itself tells (cluster-announce-ip and cluster-announce-port in redis.conf).',
            )
        else:
            yield good(f'Cluster node {node}', 'can be reached')
        finally:
            with contextlib.suppress(redis.RedisError, OSError):
                connection.disconnect()
