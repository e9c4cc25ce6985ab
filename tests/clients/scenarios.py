"""What clients of every transport go through, in the same way."""

from __future__ import annotations

from typing import Any

from tests.clients.cuttable import Cuttable
from tests.clients.node_client import NodeClient
from ws4redis.publisher import RedisPublisher


def publish(facility: str, *messages: Any) -> None:
    publisher = RedisPublisher(facility=facility, broadcast=True)
    for message in messages:
        publisher.publish_json(message)


def assert_what_was_missed_is_recovered(client: NodeClient, proxy: Cuttable) -> None:
    """Cut a client off that comes by a proxy, and publish meanwhile."""
    client.subscribe('recovery:x')
    publish('recovery:x', 1)
    assert client.received('recovery:x', 1) == [1]
    proxy.hold()
    proxy.cut()
    client.event('connecting', 2)
    publish('recovery:x', 2, 3)
    proxy.let_in()
    told = client.event('sub_subscribed', 2)
    assert told['wasRecovering'] is told['recovered'] is True
    publish('recovery:x', 4)
    assert client.received('recovery:x', 4) == [1, 2, 3, 4]
