"""Slow callbacks, for the settings of servers under test."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from django.contrib.auth.backends import ModelBackend

from tests.timeouts import scaled
from ws4redis.handlers import WebSocketHandler
from ws4redis.handshake.policy import process_request
from ws4redis.subscriber import RedisSubscriber

SLOW_SECONDS = scaled(2)
logger = logging.getLogger('ws4redis')


def sleep_two_seconds(request: Any) -> None:
    """Take long, where the query string says so or there is none, then do what is usual."""
    query = request.META['QUERY_STRING']
    if 'quick' not in query:
        logger.info('slow callback began')
        if 'busy' in query:
            deadline = time.monotonic() + SLOW_SECONDS
            while time.monotonic() < deadline:
                sum(range(1000))
        else:
            time.sleep(SLOW_SECONDS)
    process_request(request)


def slow_allowed_channels(request: Any, channels: list[str]) -> list[str]:
    """Take long, unless the facility is quick."""
    _take_long(request.path)
    return channels


def count_users(request: Any) -> None:
    """Use the database."""
    from django.contrib.auth.models import User

    process_request(request)
    logger.info('%d users', User.objects.count())


def _take_long(path: str) -> None:
    if 'quick' not in path:
        logger.info('slow callback began')
        time.sleep(SLOW_SECONDS)


class SlowToSubscribe(RedisSubscriber):
    """Take long to name the channels."""

    def set_pubsub_channels(self, request: Any, channels: Any) -> None:
        """Subscribe, at last."""
        _take_long(request.path)
        super().set_pubsub_channels(request, channels)


class SlowToSendPersisted(RedisSubscriber):
    """Take long to send kept messages."""

    def send_persisted_messages(self, websocket: Any) -> None:
        """Send them, at last."""
        assert self.request is not None
        _take_long(self.request.path)
        super().send_persisted_messages(websocket)


class SlowBackend(ModelBackend):
    """Take long to find a user."""

    def get_user(self, user_id: int) -> Any:
        """Find the user, at last."""
        _take_long('')
        return super().get_user(user_id)


class SlowToOpen(WebSocketHandler):
    """Take long to take its websocket."""

    def on_connect(self) -> None:
        """Take it, at last."""
        _take_long(self.request.path)
        logger.info('slow on_connect ended')

    def on_message(self, message: str | bytes) -> None:
        """Send back what comes."""
        self.send(message)

    def on_close(self, code: int) -> None:
        """Tell the code."""
        logger.info('slow handler closed with %d', code)


class SlowToBringDescriptor(RedisSubscriber):
    """Take long to bring a descriptor, and tell when it is released."""

    pipe = (-1, -1)

    def get_file_descriptor(self) -> int:
        """Return one end of a pipe, at last."""
        self.pipe = os.pipe()
        _take_long('')
        logger.info('slow descriptor came')
        return self.pipe[0]

    def release(self) -> None:
        """Close the pipe."""
        logger.info('released')
        for fd in self.pipe:
            os.close(fd)
        super().release()


class SlowToSendAndReleased(RedisSubscriber):
    """Take long to send what was kept, and tell when it is released."""

    def send_persisted_messages(self, websocket: Any) -> None:
        """Send it, at last."""
        _take_long('')
        logger.info('slow messages sent')

    def release(self) -> None:
        """Tell of it."""
        logger.info('released')
        super().release()
