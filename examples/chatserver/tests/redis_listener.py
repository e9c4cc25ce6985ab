"""Hear what is published in Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chatserver.chat_messages import ChatMessage
from ws4redis.broker.connections import get_client

WAIT_SECONDS = 5
SILENCE_SECONDS = 0.2


class RedisListener:
    """All messages on all channels, in order."""

    def __init__(self, pubsub) -> None:
        self._pubsub = pubsub

    def receive(self, count: int) -> dict[str, ChatMessage]:
        """Return so many messages by their channels, having made sure that no more follow."""
        messages = {}
        for _message in range(count):
            reply = self._pubsub.get_message(timeout=WAIT_SECONDS)
            if reply is None:
                raise AssertionError(f'only {len(messages)} of {count} messages were published')
            messages[reply['channel'].decode()] = ChatMessage.from_payload(reply['data'])
        if (reply := self._pubsub.get_message(timeout=SILENCE_SECONDS)) is not None:
            raise AssertionError(f'published, but not expected: {reply}')
        return messages


@contextmanager
def listening() -> Iterator[RedisListener]:
    """Subscribe to everything."""
    with get_client().pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.psubscribe('*')
        # The confirmation.
        while pubsub.get_message(timeout=WAIT_SECONDS) is None and not pubsub.patterns:
            pass
        yield RedisListener(pubsub)
