"""Restart Redis again and again under load: who stays connected, and what is lost?"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise

import redis

from breaking.listeners import Listeners
from tests.faults.observed import ObservedServer
from tests.programs import RedisServer

UP_SECONDS = 0.4
MESSAGES_PER_SECOND = 400


@dataclass
class Published:
    """What a publisher has published, and what Redis said about it."""

    delivered_to_bus: list[int] = field(default_factory=list)
    refused: int = 0


class Publisher:
    """Publish numbered messages without a break, and note those that reached the bus.

    `PUBLISH` returns the number of subscribers: one, if the worker's bus was up and subscribed.
    Redis answers the publisher before it writes to the subscribers, and may be killed in between;
    only the answer to a later command tells that it was not.
    """

    def __init__(self, server: RedisServer, channel: str, *, rate: float) -> None:
        self._server = server
        self._channel = channel
        self._interval = 1 / rate
        self._stop = threading.Event()
        self.published = Published()
        self._number = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> Published:
        """Stop publishing, and return what was."""
        self._stop.set()
        self._thread.join(30)
        return self.published

    def _run(self) -> None:
        client: redis.Redis = self._server.client(socket_timeout=2)
        unconfirmed: list[int] = []
        due = time.monotonic()
        while not self._stop.is_set():
            due += self._interval
            self._number += 1
            try:
                message = f'{self._number} {time.monotonic():.6f}'
                subscribers = client.publish(self._channel, message)
                self.published.delivered_to_bus += unconfirmed
                unconfirmed = [self._number] if subscribers else []
            except redis.RedisError:
                unconfirmed = []
                self.published.refused += 1
                due = time.monotonic() + self._interval
            time.sleep(max(0.0, due - time.monotonic()))
        client.close()


@dataclass
class Outcome:
    """What twenty restarts did."""

    websockets: int
    held: int
    restarts: int
    published_while_up: int
    lost: int
    repeated_or_out_of_order: int
    sent_by_clients: int
    not_published: int
    reconnects: int
    seconds: float


def restart_redis(*, websockets: int, restarts: int) -> Outcome:
    """Restart Redis under load, half of the times by SIGTERM and half by SIGKILL."""
    settings = {'WS4REDIS_PING_INTERVAL': 5, 'WS4REDIS_PING_TIMEOUT': 20}
    with RedisServer() as redis_server, ObservedServer(redis_server, settings) as server:
        started = time.monotonic()
        listeners = Listeners(
            [server.url_of('down')] * (websockets - 10)
            # These send, too, on another facility, to which they all listen.
            + [server.url_of('up', 'subscribe-broadcast&publish-broadcast&echo')] * 10
        )
        server.wait_for_bus()
        publisher = Publisher(redis_server, 'broadcast:down', rate=MESSAGES_PER_SECOND)
        sent = 0
        try:
            for number in range(restarts):
                until = time.monotonic() + UP_SECONDS
                while time.monotonic() < until:
                    listeners.send(websockets - 1 - sent % 10, b'up%d' % sent)
                    sent += 1
                    time.sleep(0.01)
                redis_server.stop() if number % 2 else redis_server.kill()
                # Messages that come now have to wait.
                listeners.send(websockets - 1 - sent % 10, b'up%d' % sent)
                sent += 1
                redis_server.start()
                server.wait_for_bus()
            time.sleep(UP_SECONDS)
        finally:
            published = publisher.stop()
        statistics = server.wait_for_statistics(lambda s: not s['unpublished_messages'])
        time.sleep(0.5)
        outcome = _outcome(listeners, published, websockets - 10)
        listeners.close()
        refused = sum(statistics['messages_not_published'].values())
        return Outcome(
            websockets=websockets,
            restarts=restarts,
            sent_by_clients=sent,
            not_published=refused + sent - statistics['messages_published'],
            reconnects=statistics['redis_reconnects'],
            seconds=time.monotonic() - started,
            **outcome,
        )


def _outcome(listeners: Listeners, published: Published, listening: int) -> dict[str, int]:
    expected = set(published.delivered_to_bus)
    lost = disorder = 0
    for listener in listeners.all[:listening]:
        numbers = [int(message.split(b' ')[0]) for message in listener.messages]
        lost += len(expected - set(numbers))
        disorder += sum(b <= a for a, b in pairwise(numbers))
    return {
        'held': listeners.number_open,
        'published_while_up': len(expected),
        'lost': lost,
        'repeated_or_out_of_order': disorder,
    }
