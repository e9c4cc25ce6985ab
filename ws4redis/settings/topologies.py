"""Whether ``WS4REDIS_CONNECTION`` names one Redis, a service under Sentinels, or a Cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple

import redis
from django.core.exceptions import ImproperlyConfigured
from redis.connection import parse_url

from ws4redis.settings.judges import is_filled_string
from ws4redis.settings.redis_options import (
    CONNECTION_OPTIONS,
    LARGEST_PORT,
    TOPOLOGY_OPTIONS,
    bus_arguments,
    connection_arguments,
    is_port,
    make_connection,
    with_defaults,
)

SENTINEL_PORT: Final = 26379
REDIS_PORT: Final = 6379
# A Sentinel or a node that does not answer must not keep us from asking the next one.
ASK_SECONDS: Final = 1.0
# What says where one Redis is.
SINGLE_OPTIONS: Final = ('url', 'host', 'port', 'unix_socket_path')


class Topology(Enum):
    SINGLE = 'single'
    SENTINEL = 'sentinel'
    CLUSTER = 'cluster'


class Node(NamedTuple):
    """The address of one server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f'[{self.host}]:{self.port}' if ':' in self.host else f'{self.host}:{self.port}'


@dataclass(frozen=True, slots=True)
class Target:
    """Where Redis is, and how redis-py connects to it.

    ``arguments`` are those of ``connection_class``. ``nodes`` are the Sentinels, or the nodes of
    the Cluster that are asked first; the address of a Redis is then found out.
    """

    topology: Topology
    connection_class: type[Any]
    arguments: dict[str, Any]
    nodes: tuple[Node, ...] = ()
    service_name: str = ''
    sentinel_arguments: dict[str, Any] = field(default_factory=dict)


def topology_of(options: Mapping[str, Any]) -> Topology:
    """Return what the options of ``WS4REDIS_CONNECTION`` name."""
    if 'cluster' in options:
        return Topology.CLUSTER
    if 'sentinels' in options:
        return Topology.SENTINEL
    return Topology.SINGLE


def target_of(options: Mapping[str, Any]) -> Target:
    """Return what ``WS4REDIS_CONNECTION`` names; raise ``ImproperlyConfigured`` if it is wrong."""
    topology = topology_of(options)
    own = {name: options[name] for name in TOPOLOGY_OPTIONS if name in options}
    rest = {name: value for name, value in options.items() if name not in TOPOLOGY_OPTIONS}
    if topology is Topology.SINGLE:
        if own:
            raise _wrong(f"holds {next(iter(own))!r}, which goes with 'sentinels'")
        return Target(topology, *connection_arguments(rest))
    _refuse_single(topology, rest)
    if topology is Topology.CLUSTER:
        return _cluster(own, rest)
    return _sentinel(own, rest)


def _wrong(complaint: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f'WS4REDIS_CONNECTION {complaint}.')


def _refuse_single(topology: Topology, rest: Mapping[str, Any]) -> None:
    named = 'cluster' if topology is Topology.CLUSTER else 'sentinels'
    for name in SINGLE_OPTIONS:
        if name in rest:
            raise _wrong(f'holds {named!r} and {name!r}: one of them says where Redis is')


# Sentinel


def _sentinel(own: Mapping[str, Any], rest: Mapping[str, Any]) -> Target:
    if 'cluster' in own:
        raise _wrong("holds 'sentinels' and 'cluster': one of them says where Redis is")
    service_name = own.get('service_name')
    if not is_filled_string(service_name):
        raise _wrong(
            "holds 'sentinels' without 'service_name', the name under which they know the master"
        )
    nodes = _nodes('sentinels', own['sentinels'], SENTINEL_PORT)
    given = own.get('sentinel_kwargs') or {}
    if not isinstance(given, Mapping):
        raise _wrong("holds a value for 'sentinel_kwargs' that is not a dictionary")
    for name in (*SINGLE_OPTIONS, 'db'):
        if name in given:
            raise _wrong(f"holds {name!r} in 'sentinel_kwargs', which does not belong there")
    asking = {'socket_timeout': ASK_SECONDS, 'socket_connect_timeout': ASK_SECONDS, **given}
    sentinel_class, sentinel_arguments = connection_arguments(asking)
    sentinel_arguments['connection_class'] = sentinel_class
    return Target(
        Topology.SENTINEL,
        *connection_arguments(rest),
        nodes=tuple(node for node, _ in nodes),
        service_name=str(service_name),
        sentinel_arguments=sentinel_arguments,
    )


# Cluster


def _cluster(own: Mapping[str, Any], rest: dict[str, Any]) -> Target:
    for name in ('sentinels', 'service_name', 'sentinel_kwargs'):
        if name in own:
            raise _wrong(f"holds 'cluster' and {name!r}: a Cluster has no Sentinels")
    if int(rest.get('db') or 0):
        raise _wrong("holds 'cluster' and 'db': a Cluster has no other database than 0")
    nodes = _nodes('cluster', own['cluster'], REDIS_PORT)
    from_urls = dict(nodes[0][1])
    if any(dict(options) != from_urls for _, options in nodes):
        raise _wrong("holds URLs in 'cluster' that differ in more than the address")
    if int(from_urls.pop('db', 0)):
        raise _wrong("names a database in 'cluster': a Cluster has no other than 0")
    if from_urls.pop('connection_class', None) is redis.SSLConnection:
        from_urls['ssl'] = True
    connection_class, arguments = connection_arguments({**from_urls, **rest})
    # It would be selected on each connection, which a Cluster refuses for any but 0.
    arguments['db'] = 0
    return Target(
        Topology.CLUSTER, connection_class, arguments, nodes=tuple(node for node, _ in nodes)
    )


# Addresses


def _nodes(name: str, given: Any, port: int) -> list[tuple[Node, Mapping[str, Any]]]:
    if not isinstance(given, list | tuple) or not given:
        raise _wrong(f'holds a value for {name!r} that is not a list of addresses')
    return [_node(name, item, port) for item in given]


def _node(name: str, given: Any, default_port: int) -> tuple[Node, Mapping[str, Any]]:
    """Return the address that an item names, and what else its URL says."""
    if isinstance(given, list | tuple) and len(given) == 2:
        host, port = given
        if is_filled_string(host) and is_port(port):
            return Node(host, int(port)), {}
    elif name == 'cluster' and isinstance(given, str) and '://' in given:
        try:
            options = dict(parse_url(given))  # type: ignore[no-untyped-call]
        except (ValueError, AttributeError, TypeError):
            options = {'path': ''}
        if 'path' not in options:
            host = options.pop('host', 'localhost')
            return Node(host, int(options.pop('port', default_port))), options
    elif is_filled_string(given):
        host, colon, port = given.rpartition(':')
        if not colon:
            host, port = given, str(default_port)
        if host and is_port(port):
            return Node(host.strip('[]'), int(port)), {}
    kinds = "(host, port) or 'host:port'"
    if name == 'cluster':
        kinds += ' or redis://host:port or rediss://host:port'
    # Not shown: it may hold a password.
    raise _wrong(f'holds an address in {name!r} that is not {kinds}, ports being 1–{LARGEST_PORT}')


# The judge


def judge_connection(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return f'must be a dictionary, not {type(value).__name__}'
    for option, what, is_right in CONNECTION_OPTIONS:
        if option in value and not is_right(value[option]):
            # The value is not shown: it may be a password in the wrong place.
            return f'holds a value for {option!r} that is not {what}'
    try:
        target = target_of(with_defaults(value))
        make_connection(target.connection_class, bus_arguments(target.arguments))
    except ImproperlyConfigured as exc:
        return str(exc).removeprefix('WS4REDIS_CONNECTION').strip().rstrip('.')
    return None
