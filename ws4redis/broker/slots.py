"""Which node of a Redis Cluster has which slots: asked for, and read.

Here it blocks; who must not be blocked calls it in a thread. See "Cluster specification", "Key
distribution model".
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any, Final

import redis
from redis.crc import key_slot

from ws4redis.broker.keys import SLOTS
from ws4redis.broker.publication import Command
from ws4redis.settings.redis_options import bus_arguments
from ws4redis.settings.topologies import ASK_SECONDS, Node, Target

OLDEST_VERSION: Final = 7
NO_CLUSTER_WORDS: Final = 'cluster support disabled'


class ClusterUnusable(redis.ConnectionError):
    """The nodes answer, but what they say is nothing that ws4redis can use."""


TELLING_ERRORS = (ClusterUnusable, redis.AuthenticationError)


class SlotsMap:
    """The master of each slot, as one node saw it in an epoch of the Cluster."""

    __slots__ = ('epoch', 'masters', 'nodes', 'owners')

    def __init__(self, ranges: Iterable[tuple[int, int, Node]], nodes: Iterable[Node], epoch: int):
        self.owners: list[Node | None] = [None] * SLOTS
        masters: dict[Node, None] = {}
        for first, last, master in ranges:
            masters[master] = None
            self.owners[first : last + 1] = [master] * (last + 1 - first)
        self.masters = tuple(masters)
        # Replicas too: one of them may be all that is left to ask.
        self.nodes = tuple(dict.fromkeys((*masters, *nodes)))
        self.epoch = epoch

    def owner_of(self, name: bytes) -> Node | None:
        """Return the master of a key or channel; None while nobody serves its slot."""
        return self.owners[key_slot(name)]


def slot_of(command: Command) -> int:
    """Return the slot of the key or channel that a command names."""
    key = command[3] if command[0] in {b'EVALSHA', b'EVAL'} else command[1]
    return key_slot(key.encode() if isinstance(key, str) else bytes(key))


def fetch_slots(target: Target, known: SlotsMap | None = None) -> SlotsMap:
    """Ask the nodes who has which slots, until one knows; raise ``redis.ConnectionError``.

    A node that was cut off from the others may live in the past: an answer that is older than what
    is known, or of a node that cannot reach the majority, is taken only where there is no other.
    """
    candidates = list(dict.fromkeys((*(known.nodes if known else ()), *target.nodes)))
    random.shuffle(candidates)
    second_best: SlotsMap | None = None
    complaint: Exception | None = None
    for node in candidates:
        try:
            found, is_ok = _ask(target, node)
        except (redis.RedisError, OSError) as exc:
            # What is wrong with a node that answers says more than that another one does not.
            if complaint is None or isinstance(exc, TELLING_ERRORS):
                complaint = exc
            continue
        if is_ok and (known is None or found.epoch >= known.epoch):
            return found
        if second_best is None or found.epoch > second_best.epoch:
            second_best = found
    if second_best is not None:
        return second_best
    assert complaint is not None
    if isinstance(complaint, TELLING_ERRORS):
        raise complaint
    raise redis.ConnectionError(f'no node of the Cluster answers; one says: {complaint}')


def node_arguments(arguments: dict[str, Any], node: Node) -> dict[str, Any]:
    """Return the arguments of a connection to one node."""
    return {**arguments, 'host': node.host, 'port': node.port}


def _ask(target: Target, node: Node) -> tuple[SlotsMap, bool]:
    arguments = node_arguments(bus_arguments(target.arguments), node)
    for name in ('socket_timeout', 'socket_connect_timeout'):
        arguments[name] = min(arguments[name], ASK_SECONDS)
    connection = target.connection_class(**arguments)
    try:
        connection.connect()
        version = _reply(connection, b'INFO', b'server')
        _refuse_old(node, version)
        info = info_of(_reply(connection, b'CLUSTER', b'INFO'))
        slots = _reply(connection, b'CLUSTER', b'SLOTS')
    except redis.ResponseError as exc:
        if NO_CLUSTER_WORDS in str(exc):
            raise ClusterUnusable(
                f'the Redis at {node} belongs to no Cluster; name it by host and port instead'
            ) from exc
        raise
    finally:
        connection.disconnect()
    epoch = int(info.get('cluster_current_epoch', 0))
    return parse_slots(slots, node, epoch), info.get('cluster_state') == 'ok'


def _reply(connection: Any, *words: bytes) -> Any:
    connection.send_command(*words)
    return connection.read_response()


def _refuse_old(node: Node, info: Any) -> None:
    version = info_of(info).get('redis_version', '')
    major = version.partition('.')[0]
    if major.isdigit() and int(major) < OLDEST_VERSION:
        raise ClusterUnusable(
            f'the Redis at {node} is {version}, and has no sharded pub/sub; a Cluster needs '
            f'Redis {OLDEST_VERSION} or newer'
        )


def info_of(text: bytes | str) -> dict[str, str]:
    """Read the reply to ``INFO`` or ``CLUSTER INFO``."""
    lines = _text(text).splitlines()
    return dict(line.split(':', 1) for line in lines if ':' in line)


def parse_slots(reply: Sequence[Any], asked: Node, epoch: int = 0) -> SlotsMap:
    """Read the reply to ``CLUSTER SLOTS`` of a node."""
    ranges = []
    nodes = []
    for first, last, *servers in reply:
        addresses = [_address(server, asked) for server in servers]
        ranges.append((int(first), int(last), addresses[0]))
        nodes += addresses[1:]
    return SlotsMap(ranges, nodes, epoch)


def _address(server: Sequence[Any], asked: Node) -> Node:
    # Without a name where the node does not know its own: it is where we found it.
    host = _text(server[0] or b'')
    return Node(asked.host if host in {'', '?'} else host, int(server[1]))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
