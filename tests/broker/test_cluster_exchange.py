"""What is sent to which node of a Cluster, and what is sent again."""

from __future__ import annotations

import pytest
import redis
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ExecAbortError,
    MovedError,
    TryAgainError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeout,
)

from ws4redis.broker.cluster_client import ClusterClient
from ws4redis.broker.cluster_exchange import ClusterExchange, pause_seconds
from ws4redis.broker.keys import SLOTS
from ws4redis.broker.scripts import PUBLISH
from ws4redis.broker.slots import SlotsMap, parse_slots, slot_of
from ws4redis.settings.topologies import Node, Target, target_of

ONE, TWO, THREE = Node('10.0.0.1', 7000), Node('10.0.0.2', 7000), Node('10.0.0.3', 7000)
HALF = SLOTS // 2
SLOTS_MAP = SlotsMap([(0, HALF - 1, ONE), (HALF, SLOTS - 1, TWO)], [THREE], epoch=1)


def name_at(node: Node) -> bytes:
    """Return the name of a channel that a node serves."""
    names = (f'broadcast:{number}'.encode() for number in range(100))
    return next(name for name in names if SLOTS_MAP.owner_of(name) == node)


AT_ONE, AT_TWO = name_at(ONE), name_at(TWO)


def test_the_reply_to_cluster_slots_tells_masters_and_replicas() -> None:
    reply = [
        [0, 99, [b'10.0.0.1', 7000, b'id1', []], [b'10.0.0.3', 7000, b'id3', []]],
        [100, 16383, [b'', 7001, b'id2', []]],
    ]

    slots = parse_slots(reply, asked=Node('redis.example', 7001), epoch=7)

    assert slots.owners[99] == ONE
    # It does not know its own name, so it has the one under which it was asked.
    assert slots.owners[100] == Node('redis.example', 7001)
    assert slots.masters == (ONE, Node('redis.example', 7001))
    assert THREE in slots.nodes
    assert slots.epoch == 7


def test_a_slot_that_nobody_serves_has_no_owner() -> None:
    assert parse_slots([], asked=ONE).owner_of(b'x') is None


def test_scripts_go_where_their_first_key_is() -> None:
    assert slot_of(PUBLISH.call([AT_ONE, b'other'], ['payload'])) == key_slot(AT_ONE)
    assert slot_of((b'GET', 'broadcast:ä')) == key_slot('broadcast:ä'.encode())


def test_each_node_gets_one_batch_with_a_transaction_per_slot() -> None:
    exchange = ClusterExchange(
        [
            (b'SET', AT_ONE, b'm'),
            (b'SPUBLISH', AT_ONE, b'm'),
            (b'SET', AT_TWO, b'm'),
            (b'SPUBLISH', AT_TWO, b'm'),
        ],
        transaction=True,
    )

    batches = exchange.batches(SLOTS_MAP)

    assert list(batches) == [ONE, TWO]
    (unit,) = batches[ONE]
    assert unit.to_send() == [
        (b'MULTI',),
        (b'SET', AT_ONE, b'm'),
        (b'SPUBLISH', AT_ONE, b'm'),
        (b'EXEC',),
    ]
    exchange.take(ONE, batches[ONE], [b'OK', b'QUEUED', b'QUEUED', [b'OK', 3]])
    exchange.take(TWO, batches[TWO], [b'OK', b'QUEUED', b'QUEUED', [b'OK', 4]])
    assert exchange.replies == [b'OK', 3, b'OK', 4]
    assert not exchange.open


def test_what_has_moved_is_sent_again_as_a_whole() -> None:
    exchange = ClusterExchange(
        [(b'SET', AT_ONE, b'm'), (b'SPUBLISH', AT_ONE, b'm')], transaction=True
    )
    batches = exchange.batches(SLOTS_MAP)
    moved = MovedError(f'{key_slot(AT_ONE)} 10.0.0.2:7000')

    exchange.take(ONE, batches[ONE], [b'OK', moved, moved, ExecAbortError('EXECABORT')])

    assert exchange.wants_slots
    assert not exchange.wants_pause
    again = exchange.batches(SlotsMap([(0, SLOTS - 1, TWO)], [], epoch=2))
    assert list(again) == [TWO]
    exchange.take(TWO, again[TWO], [b'OK', b'QUEUED', b'QUEUED', [b'OK', 1]])
    assert exchange.replies == [b'OK', 1]


def test_while_a_slot_moves_keys_go_ahead_and_news_to_where_the_subscribers_are() -> None:
    exchange = ClusterExchange(
        [(b'SET', AT_ONE, b'm'), (b'SPUBLISH', AT_ONE, b'm')], transaction=True
    )
    batches = exchange.batches(SLOTS_MAP)
    ask = AskError(f'{key_slot(AT_ONE)} 10.0.0.2:7000')

    exchange.take(ONE, batches[ONE], [b'OK', ask, b'QUEUED', ExecAbortError('EXECABORT')])
    again = exchange.batches(SLOTS_MAP)

    assert [unit.to_send() for unit in again[TWO]] == [[(b'ASKING',), (b'SET', AT_ONE, b'm')]]
    assert [unit.to_send() for unit in again[ONE]] == [[(b'SPUBLISH', AT_ONE, b'm')]]
    exchange.take(TWO, again[TWO], [b'OK', b'OK'])
    exchange.take(ONE, again[ONE], [5])
    assert exchange.replies == [b'OK', 5]


def test_a_script_follows_its_keys_once() -> None:
    command = PUBLISH.call([AT_ONE], ['payload'])
    exchange = ClusterExchange([command], transaction=True)
    batches = exchange.batches(SLOTS_MAP)

    exchange.take(ONE, batches[ONE], [AskError(f'{key_slot(AT_ONE)} 10.0.0.2:7000')])
    again = exchange.batches(SLOTS_MAP)
    exchange.take(TWO, again[TWO], [b'OK', TryAgainError('split')])

    # The next one goes to the owner again, who says where the keys are then.
    assert list(exchange.batches(SLOTS_MAP)) == [ONE]


@pytest.mark.parametrize('error', [TryAgainError('split'), ClusterDownError('down')])
def test_what_nobody_can_serve_now_is_sent_again_after_a_pause(error: Exception) -> None:
    exchange = ClusterExchange([(b'GET', AT_ONE)], transaction=False)
    batches = exchange.batches(SLOTS_MAP)

    exchange.take(ONE, batches[ONE], [error])

    assert exchange.wants_pause
    assert len(exchange.open) == 1
    exchange.give_up()
    assert exchange.replies == [error]


def test_a_slot_without_an_owner_waits_for_one() -> None:
    exchange = ClusterExchange([(b'GET', AT_ONE)], transaction=False)

    assert exchange.batches(SlotsMap([], [], epoch=1)) == {}

    assert exchange.wants_slots
    assert exchange.wants_pause
    assert isinstance(exchange.replies[0], ClusterDownError)


def test_what_a_broken_connection_left_without_an_answer_is_not_sent_again() -> None:
    exchange = ClusterExchange([(b'GET', AT_ONE), (b'GET', AT_TWO)], transaction=False)
    batches = exchange.batches(SLOTS_MAP)
    error = RedisTimeout('reset')

    exchange.failed(batches[ONE], error)
    exchange.not_connected(batches[TWO], error)

    assert exchange.replies[0] is error
    assert [unit.commands for unit in exchange.open] == [[(b'GET', AT_TWO)]]


def test_an_error_of_a_command_proper_is_its_reply() -> None:
    exchange = ClusterExchange(
        [(b'SET', AT_ONE, b'm'), (b'SPUBLISH', AT_ONE, b'm')], transaction=True
    )
    batches = exchange.batches(SLOTS_MAP)
    oom = Exception('OOM')

    exchange.take(ONE, batches[ONE], [b'OK', oom, b'QUEUED', ExecAbortError('EXECABORT')])

    assert exchange.replies == [oom, oom]
    assert not exchange.open


def test_pauses_grow_to_a_bound() -> None:
    assert pause_seconds(0) < pause_seconds(1) < pause_seconds(100) == 0.5


def test_clients_may_be_added_while_those_of_former_nodes_are_dropped() -> None:
    target = target_of({'cluster': ['redis://10.0.0.1:7000']})
    clients = ClusterClient(target, make_client_of_node)
    gone = clients._client_of(THREE)

    class NodesWhileOthersPublish(tuple[Node, ...]):
        __slots__ = ()

        def __contains__(self, node: object) -> bool:
            clients._client_of(TWO)
            return super().__contains__(node)

    slots = SlotsMap([(0, SLOTS - 1, ONE)], [TWO], epoch=2)
    slots.nodes = NodesWhileOthersPublish(slots.nodes)

    assert clients._use(slots) == [gone]
    assert list(clients._clients) == [TWO]


def make_client_of_node(target: Target, node: Node) -> redis.Redis:
    return redis.Redis(host=node.host, port=node.port)
