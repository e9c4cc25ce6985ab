"""Subscribers that projects might write."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Any

import gevent
from django.http import HttpRequest

from ws4redis.broker.channels import facility_of
from ws4redis.conf import conf
from ws4redis.redis_store import RedisMessage
from ws4redis.subscriber import RedisSubscriber, WebSocketProxy

#: The latest subscriber of each facility in this process.
opened: dict[str, RedisSubscriber] = {}


class Registered(RedisSubscriber):
    """Can be found by its facility."""

    facility = ''

    def set_pubsub_channels(self, request: HttpRequest, channels: Iterable[str]) -> None:
        super().set_pubsub_channels(request, channels)
        self.facility = facility_of(request.path_info, conf.WEBSOCKET_URL)
        opened[self.facility] = self


class AddsChannels(Registered):
    """Subscribes to one channel more, and publishes on another one."""

    def set_pubsub_channels(self, request: HttpRequest, channels: Iterable[str]) -> None:
        super().set_pubsub_channels(request, channels)
        self._subscription.subscribe(f'{self.get_prefix()}broadcast:news')
        self._publishers = {f'{self.get_prefix()}broadcast:audit'}


class SendsHistory(RedisSubscriber):
    """Sends messages of its own when a websocket opens, then the kept ones."""

    def send_persisted_messages(self, websocket: WebSocketProxy) -> None:
        for number in range(3):
            websocket.send(f'history {number}')
        super().send_persisted_messages(websocket)


class SendsHistoryInOldSpelling(RedisSubscriber):
    """The same as earlier versions spelt it."""

    def send_persited_messages(self, websocket: WebSocketProxy) -> None:
        websocket.send('history in the old spelling')
        super().send_persited_messages(websocket)


class BringsPipe(Registered):
    """Brings in messages from a pipe, beside those of its channels."""

    pipe = (-1, -1)

    def set_pubsub_channels(self, request: HttpRequest, channels: Iterable[str]) -> None:
        super().set_pubsub_channels(request, channels)
        self.pipe = os.pipe()

    def get_file_descriptor(self) -> int:
        return self.pipe[0]

    def parse_response(self) -> Any:
        return [b'message', b'pipe', os.read(self.pipe[0], 1000)]

    def release(self) -> None:
        for fd in self.pipe:
            os.close(fd)
        self._connection.incr(f'released {self.facility}')
        super().release()


class Shouts(RedisSubscriber):
    """Changes what its own connection to Redis brings, as one could with earlier versions."""

    def parse_response(self) -> Any:
        kind, *channel, payload = super().parse_response()
        return [kind, *channel, payload.upper() if isinstance(payload, bytes) else payload]


class PublishesItself(Registered):
    """Changes messages on their way, and notes when it is released."""

    def publish_message(self, message: object, expire: int | None = None) -> None:  # type: ignore[override]  # as in 0.6
        assert isinstance(message, bytes)
        if message == b'refuse me':
            raise ValueError('refused by the project')
        super().publish_message(RedisMessage(b'<' + message + b'>'), expire=expire)

    def release(self) -> None:
        self._connection.incr(f'released {self.facility}')
        super().release()


class PublishesInTimers(RedisSubscriber):
    """Publishes a little later, in a timer of its own."""

    def publish_message(self, message: object, expire: int | None = None) -> None:  # type: ignore[override]  # as in 0.6
        threading.Timer(0.05, super().publish_message, (message, expire)).start()


class PublishesInGreenlets(RedisSubscriber):
    """Publishes in greenlets, so that nobody waits for it."""

    def publish_message(self, message: object, expire: int | None = None) -> None:  # type: ignore[override]  # as in 0.6
        gevent.spawn(super().publish_message, message, expire)
